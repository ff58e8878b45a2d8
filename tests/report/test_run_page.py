"""The page of a run: self-contained, well-formed, and its pictures are the right ones."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import write_folder
from PIL import Image
from test_heads_page import Reader, contrast, seen_by_a_browser, shows
from tiny import fittings

import residual
from residual.adapters import compute_scores, strongest_components
from residual.adapters.inspection import Component
from residual.heads import UnitTexts
from residual.heads.descriptions import ChosenText
from residual.report.changes import Change, Changes
from residual.report.gains import gain_colours, unit_anchor
from residual.report.pages import name_html
from residual.report.run_page import write_run_page
from residual.report.sentences import intervals_note, sentence
from residual.report.tables import accuracy_of, run_rows, suite_markdown, suite_rows
from residual.report.unit_sections import PICTURES, component_sentence
from residual.text import Chance, ZeroShotClassifier
from residual.text.chance import Range
from residual.workflows.outcome import compared
from residual.workflows.run import run_tasks

BEST = "residual"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    name = f"folder:{write_folder(tmp_path_factory.mktemp('page') / 'a <b> & c', each=20)}"
    encoder = residual.load_encoder("picto", device="cpu")
    return next(run_tasks(encoder, [name], fittings(epochs=2), bases=name))


def page_of(run, path, texts=None, changes=None, adapters=None, encoder=None):
    task, changes = run.task, changes or run.changes
    adapters = run.adapters if adapters is None else adapters
    shown = run.summary, adapters, changes, task.stores["train"], task.datasets, task.classifier
    return write_run_page(path, *shown, texts, encoder=encoder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def texts(run):
    """Of one unit that has a name, and of one that has none."""
    chance = Chance(1, Range(0.05, 0.03, 0.06), Range(0.05, 0.04, 0.06), 0.3)
    adapter = run.adapters["residual"]
    return {
        unit: UnitTexts((ChosenText(f"text <{unit}>", share),), chance)
        for unit, share in zip(adapter.units[:2], (0.5, 0.04), strict=True)
    }


@pytest.fixture(scope="module")
def page(run, texts, tmp_path_factory):
    encoder = residual.load_encoder("picto", device="cpu")
    return page_of(run, tmp_path_factory.mktemp("out") / "deep/index.html", texts, encoder=encoder)


def test_it_is_well_formed_and_needs_nothing_from_outside(page):
    reader = Reader(page)
    assert reader.open == []
    assert all(link.startswith("data:") or link[1:] in reader.ids for link in reader.links)
    assert len(reader.ids) == len(set(reader.ids))
    assert len(page) < 3_000_000
    assert not re.search(r"https?://|@import|url\(", page)
    assert "<script" not in page


def test_it_tells_the_recipe_and_how_the_parts_were_made(run, page, tmp_path):
    assert "recipe: paper;" in page
    assert "Held out" not in page
    run = replace(run, summary=run.summary | {"held_out": ["*/ink/*"], "limit": 36})
    shown = page_of(run, tmp_path / "index.html")
    assert "Held out of training, to choose by: the 12 pictures of &#39;*/ink/*&#39;." in shown
    assert "Of each part at most 36 pictures" in shown


def test_names_are_escaped_and_broken_at_their_own_signs_alone(page):
    assert "a &lt;b&gt; &amp; c" in page
    assert "<b>" not in page
    assert "text &lt;" in page
    name = name_html("steel_blue-Donaudampfschiff<i> \u202e\U0001f600")
    assert str(name) == (
        '<bdi class="name" title="steel_blue-Donaudampfschiff&lt;i&gt; \\u202e\U0001f600">'
        "steel_<wbr>blue-<wbr>Donaudampfschiff&lt;i&gt; \\u202e\U0001f600</bdi>"
    )


def test_pictures_of_heads_have_maps_and_those_of_mlps_none(page):
    for section in page.split('<section class="unit"')[1:]:
        mapped = section.count('<img class="map"')
        assert mapped == (0 if "MLP</h3>" in section else section.count("<figure"))


def test_it_leads_with_the_pictures_that_changed_and_both_answers(run, page, tmp_path):
    changes = run.changes[BEST]
    n = len(changes.labels)
    labels, before = np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64)
    made = replace(changes, labels=labels, before=before, after=np.arange(n) % 2)
    shown = page_of(run, tmp_path / "index.html", None, run.changes | {BEST: made})
    start, end = shown.index("From wrong to right"), shown.index("From right to wrong")
    right = (n + 1) // 2
    assert (
        f"gets\n<strong>{right}</strong> right that were wrong before, and <strong>0</strong> wrong" in shown
    )
    assert f"<h3>From wrong to right: {right}</h3>" in shown
    tiles = Reader(shown[shown.index('<div class="tiles">') : shown.index("</section>", start)]).pictures
    one, other = run.task.classifier.class_names[:2]
    assert {alt for alt, _ in tiles} == {f"A picture of {one}, answered {other} before and {one} after"}
    dataset = run.task.datasets["test"]
    image, _ = dataset[list(dataset.sample_ids).index(made.fixed[0].sample_id)]
    assert shows(tiles[0][1], image)
    assert "From right to wrong: none</h3>" in shown[end:]
    order = [page.index(f'id="{part}"') for part in ("changed", "classes", "units", "components")]
    assert order == sorted(order)


def test_classes_are_sorted_by_what_they_gained(run, page, tmp_path):
    names = [f"class {k}" for k in range(100)]
    labels = np.repeat(np.arange(100), 2)
    after = np.where(np.arange(200) < 20, labels, 99 - labels)  # the first ten are right, nearly
    before = np.where(labels >= 95, labels, 99 - labels)
    made = replace(
        run.changes[BEST], class_names=names, labels=labels, before=before, after=after,
        sample_ids=[f"{k}" for k in range(200)],
    )  # fmt: skip
    shown = page_of(run, tmp_path / "index.html", None, run.changes | {BEST: made})
    assert "85 of 100 classes are as before" in shown
    assert page.count('<td class="bars">') == 3  # of few classes all, once
    assert "Guessing gets 1 % right" in shown
    first, folded = shown.split("All 100 classes</summary>")
    rows = re.findall(r'<th scope="row"><bdi class="name">class (\d+)</bdi>', first)
    assert [int(row) for row in rows[:10]] == list(range(10))
    assert sorted(int(row) for row in rows[10:]) == [95, 96, 97, 98, 99]
    assert folded.count('<td class="bars">') == 100
    assert '<span class="missing">0</span>' in shown  # a picture that isn't there is named


def test_every_head_and_mlp_has_a_cell_that_leads_to_its_section(page):
    reader = Reader(page)
    assert len(re.findall(r'<td><a href="#unit-', page)) == 48 + 56
    assert sum(name.startswith("unit-") for name in reader.ids) == 56


def test_a_section_has_the_pictures_at_the_ends_and_a_name_if_it_deserves_one(run, page):
    adapter, store = run.adapters["residual"], run.task.stores["train"]
    (component,) = strongest_components(adapter, 1)
    unit = store.units.iloc[component.unit]
    anchor = unit_anchor(unit["kind"], int(unit["layer"]), unit["head"])
    section = page[page.index(f'<section class="unit" id="{anchor}"') :]
    section = section[: section.index("</section>")]
    assert f"Component {component.index + 1}." in section
    scores, dataset = compute_scores(adapter, store).scores[:, component.position], run.task.datasets["train"]
    pictures = [uri for _, uri in Reader(section).pictures]
    assert shows(pictures[0], dataset[int(scores.argmin())][0])
    assert shows(pictures[PICTURES], dataset[int(scores.argmax())][0])
    named, nameless = adapter.units[:2]
    assert f"Its texts: text &lt;{named}&gt;." in page
    assert f"text &lt;{nameless}&gt;" not in page
    assert "These texts explain 4 % of this MLP, no more than 1 texts at random (3 to 6 %): no name." in page


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (0.01, "Removed: with a weight of +0.01 it no longer reaches the output."),
        (
            -0.8,
            "Turned round: its weight is negative (-0.80), so that what spoke for up now speaks for down.",
        ),
        (0.4, "Weakened to 0.40 of what it was."),
        (1.01, "Left nearly as it was (weight 1.01)."),
        (2.0, "Strengthened to 2.00 times what it was."),
    ],
)
def test_a_weight_in_plain_words_and_where_scores_push(weight, said):
    """Held against the logits: what is said to be pushed gains most when the score is added."""
    classifier = ZeroShotClassifier(
        torch.tensor([[1.0, 0.2], [-1.0, 0.2], [0.0, 1.0]]), ["up", "down", "side"]
    )
    direction = torch.tensor([1.0, 0.0]).double()
    component = Component(3, 0, 0, weight, abs(weight), 0.25, direction)
    shown = re.sub(r"<[^>]*>", "", component_sentence(component, classifier))
    assert shown == f"It holds 25 % of what varies here. {said}"
    output = torch.tensor([[0.0, 1.0]])
    for score in (-2.0, 2.0):
        added = classifier.logits(output + weight * score * direction.float()) - classifier.logits(output)
        most = classifier.class_names[int(added[0].argmax())]
        assert component.towards(classifier, score)[0] == most
    assert component.towards(classifier, 0.0) == []


def test_methods_that_weight_no_unit_have_no_grid(run, tmp_path):
    shown = page_of(run, tmp_path / "index.html", adapters={})
    assert 'id="classes"' in shown
    assert 'id="units"' not in shown
    assert 'id="components"' not in shown
    assert Reader(shown).open == []


def test_colours_are_even_about_one_and_their_numbers_readable():
    assert gain_colours(1.0)["light"] == ("rgb(255, 255, 255)", "#000")
    assert gain_colours(4.0) == gain_colours(100.0)
    assert gain_colours(0.25) == gain_colours(0.0)
    inks = {"#000": "rgb(0,0,0)", "#fff": "rgb(255,255,255)"}
    for gain in np.geomspace(0.2, 5, 30):
        for ground, ink in gain_colours(gain).values():
            assert contrast(ground, inks[ink]) >= 4.5


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1200, False)])
def test_a_browser_shows_it(page, tmp_path, width, dark):
    seen = seen_by_a_browser(page, tmp_path, width, dark)
    assert seen["pictures"] == len(Reader(page).pictures) > 0
    assert seen["bars"] == Reader(page).tags.count("rect") > 0


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
            r"None is better than ResiDual\* \(.*\): .* 0.2 points \(-\S+ to \S+\) more than zero-shot, "
            r"which may be chance, and as many as ResiDual \(-\S+ to \S+ points more\)\.",
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
    store = run.task.stores["train"]
    component = strongest_components(run.adapters[BEST], 1)[0]
    scores = compute_scores(run.adapters[BEST], store).scores[:, component.position]
    unit = store.units.iloc[component.unit]
    shown = page_of(run, tmp_path / "index.html")
    section = shown[shown.index(f'id="{unit_anchor(unit["kind"], int(unit["layer"]), unit["head"])}"') :]
    (_, uri), *_ = Reader(section[: section.index("</section>")]).pictures
    lowest = root / store.sample_ids[int(scores.argmin())]
    assert shows(uri, Image.open(lowest))
