"""The page of a run: self-contained, well-formed, and its pictures are the right ones."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from pictures import write_folder
from PIL import Image
from test_heads_page import Reader
from tiny import fittings

import residual
from residual.adapters import compute_scores, strongest_components
from residual.report.changes import Change, Changes
from residual.report.pages import PICTURES, gain_colour, write_run_page
from residual.report.sentences import intervals_note, sentence
from residual.report.tables import accuracy_of, run_rows, suite_markdown, suite_rows
from residual.workflows.outcome import compared
from residual.workflows.run import run_tasks


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    name = f"folder:{write_folder(tmp_path_factory.mktemp('page') / 'a <b> & c', each=20)}"
    encoder = residual.load_encoder("picto", device="cpu")
    return next(run_tasks(encoder, [name], fittings(epochs=2), bases=name))


def page_of(run, path):
    train, pictures = run.task.stores["train"], run.task.datasets["train"]
    return write_run_page(path, run.summary, run.adapters, train, pictures, run.task.classifier).read_text()


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    return page_of(run, tmp_path_factory.mktemp("out") / "deep/index.html")


def test_it_is_well_formed_and_needs_nothing_from_outside(page):
    reader = Reader(page)
    assert reader.open == []
    assert all(link.startswith("data:") for link in reader.links)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "<script" not in page


def test_it_tells_the_recipe_and_what_was_held_out(run, page, tmp_path):
    assert "recipe: paper;" in page
    assert "held out" not in page
    run = replace(run, summary=run.summary | {"held_out": ["*/ink/*"]})
    assert "held out to choose by: */ink/*;" in page_of(run, tmp_path / "index.html")


def test_names_are_escaped(page):
    assert "a &lt;b&gt; &amp; c" in page
    assert "<b>" not in page


def test_the_pictures_are_those_at_the_ends_of_the_strongest_components(run, page):
    reader = Reader(page)
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
        for _, uri in reader.pictures
    ]
    assert len(shown) == 5 * 2 * PICTURES
    adapter, store = run.adapted["residual"][0].adapter, run.task.stores["train"]
    scores = compute_scores(adapter, store).scores
    dataset = run.task.datasets["train"]
    for place, component in enumerate(strongest_components(adapter, 5)):
        column = scores[:, component.position]
        first = place * 2 * PICTURES
        lowest, highest = (
            np.asarray(dataset[int(column.argmin())][0]),
            np.asarray(dataset[int(column.argmax())][0]),
        )
        assert np.array_equal(shown[first], lowest)
        assert np.array_equal(shown[first + PICTURES], highest)


def test_every_head_and_mlp_has_a_cell(page):
    assert len(re.findall(r'<td style="background:', page)) == 48 + 56


def test_colours_are_even_about_one():
    assert gain_colour(1.0)[0] == "rgb(255, 255, 255)"
    assert gain_colour(4.0)[0] == gain_colour(100.0)[0]
    assert gain_colour(0.25)[0] == gain_colour(0.0)[0]


def right(share, n=1_000):
    return (np.arange(n) < round(share * n)).astype(float)


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        (
            {"zero_shot": 0.7, "residual_star": 0.65, "residual": 0.9},
            r"The best is ResiDual \(weighting \S+ components of its heads and MLPs\): picto gets 90.0 % "
            r"\(88.0 to 91.7\) of the .* pictures right, 20.0 points \(\S+ to \S+\) more than zero-shot, and "
            r"25.0 points \(\S+ to \S+\) more than ResiDual\*\.",
        ),
        (
            {"zero_shot": 0.7, "residual_star": 0.702, "residual": 0.702},
            r"The best is ResiDual\* \(.*\): .* 0.2 points \(-\S+ to \S+\) more than zero-shot, which may be "
            r"chance, and as many as ResiDual \(-\S+ to \S+ points more\), which may be chance\.",
        ),
        (
            {"zero_shot": 0.8, "residual_star": 0.5, "residual": 0.7},
            r"The best is zero-shot \(nothing trained\): picto gets 80.0 % .*, 10.0 points \(\S+ to \S+\) "
            r"more than ResiDual\.",
        ),
        ({"zero_shot": 0.8, "linear": 0.9}, r"The best is linear map: picto gets 90.0 % .* than zero-shot\."),
        ({"fine_tuning": 0.9}, r"fine-tuning: picto gets 90.0 % \(88.0 to 91.7\) of the .* pictures right\."),
    ],
)
def test_the_sentence_names_the_best_and_what_may_be_chance(run, shares, told):
    accuracies = {"accuracy": shares, **compared({name: right(share) for name, share in shares.items()})}
    assert re.fullmatch(told, sentence(run.summary | {"encoder": "picto", "best_epoch": {}} | accuracies))


def test_signs_are_told_by_what_they_are_over(run):
    summary = run.summary | {"seeds": [0, 1, 2], "n_test": 1_000}
    pictures = "In brackets: Wilson's 95 % interval over the 1,000 test pictures. "
    sign = "±: half the 95 % t interval over 3 seeds"
    for halves, told in (
        ((0.01, 0.002), f"{sign}."),
        ((0.01, 0.0), f"{sign}, none where all agree."),
        ((0.0, 0.0), "All 3 seeds agree, so there is no ±; that says nothing about other pictures."),
    ):
        summary["interval"] = dict(zip(("residual_star", "residual"), halves, strict=True))
        assert intervals_note(summary) == pictures + told
        assert accuracy_of(summary, "residual").count("±") == (halves[1] > 0)
    assert "Only 4 pictures say next to nothing" in intervals_note(summary | {"n_test": 4})


def test_what_changed_is_told_by_picture_and_by_class(run):
    for method, changes in run.changes.items():
        fits, test = run.adapted[method][0], run.task.stores["test"]
        assert run.summary["changed"][method] == changes.counts()
        assert fits.accuracy == pytest.approx(float((fits.answers == test.labels).mean()))
        assert changes.by_class["after"] @ changes.by_class["pictures"] == pytest.approx(
            fits.accuracy * len(test)
        )
        more = len(changes.fixed) - len(changes.broken)
        assert more == round((fits.accuracy - run.task.zero_shot) * len(test))
    answers = np.array([[0, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    made = Changes("linear", 0, "wxyz", ("cat", "dog"), *answers)
    assert made.fixed == [Change("w", 0, "cat", "dog", "cat")]
    assert made.broken == [Change("y", 2, "dog", "dog", "cat")]
    assert made.by_class.to_dict("list") == {
        "class_name": ["cat", "dog"], "pictures": [2, 2], "before": [0.5, 0.5], "after": [1.0, 0.0]
    }  # fmt: skip


def test_the_sentence_says_where_no_epoch_was_better(run):
    summary = run.summary
    said = sentence(summary | {"best_epoch": {}})
    kept = sentence(summary | {"best_epoch": {"residual_star": [0, 0], "residual": [0, 3]}})
    told = "In 2 of 2 fits of ResiDual* and 1 of 2 fits of ResiDual no epoch was better on val than the first"
    assert kept.startswith(f"{said} {told}")
    assert sentence(summary | {"best_epoch": {"residual": [1, 2]}}) == said


def test_seconds_are_those_of_one_seed(run):
    seconds = {f"fit_{method}": 7.5 for method in run.summary["parameters"]}
    rows = run_rows(run.summary | {"seeds": [0, 1, 2], "seconds": seconds})
    assert [row[-1] for row in rows] == ["", *["2.5"] * len(seconds)]


def test_the_suite_table_ends_with_the_mean(run):
    other = run.summary | {"dataset": "other", "accuracy": dict.fromkeys(run.summary["accuracy"], 0.0)}
    rows = suite_rows([run.summary, other])
    assert [row[0] for row in rows] == [run.summary["dataset"], "other", "mean"]
    assert rows[-1][-1] == f"{50 * run.summary['accuracy']['residual']:.1f} %"
    table = suite_markdown([run.summary, other]).splitlines()
    assert len({line.count("|") for line in table}) == 1


def test_pictures_are_the_right_ones_where_some_were_left_out(tmp_path):
    root = write_folder(tmp_path / "pictures")
    (root / "digit 0/00.png").write_bytes(b"")
    (root / "digit 1/01.png").write_bytes(b"")
    encoder = residual.load_encoder("picto", device="cpu")
    (run,) = run_tasks(
        encoder, [f"folder:{root}"], fittings(epochs=1), bases=f"folder:{root}", on_error="skip"
    )
    reader = Reader(page_of(run, tmp_path / "index.html"))
    store = run.task.stores["train"]
    component = strongest_components(run.adapted["residual"][0].adapter, 1)[0]
    scores = compute_scores(run.adapted["residual"][0].adapter, store).scores[:, component.position]
    lowest = root / store.sample_ids[int(scores.argmin())]
    shown = Image.open(io.BytesIO(base64.b64decode(reader.pictures[0][1].partition(",")[2])))
    assert np.array_equal(np.asarray(shown), np.asarray(Image.open(lowest).convert("RGB")))
