"""The studies of experiment 3, each against its definition on contributions; and the tables made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from residual import ResiDual, ResidualStore, SpectralBases, load_encoder
from residual.errors import ResidualError
from residual.experiments import EXPERIMENTS, Plan, read_results, run_experiment
from residual.experiments.head_pages import best_heads, overlap_pages, part_of, study_pages
from residual.experiments.head_studies import STUDIES, adapted_rows
from residual.experiments.heads import HeadsSettings
from residual.heads import ablate, jaccard, kept_layers, top_share
from residual.heads.linear import best_linear
from residual.text import TextDictionary, somp
from residual.workflows.store_origin import classifier_of

LIMIT = 40
SETTINGS = HeadsSettings(
    shares=(0.01, 0.05, 0.1), seeds=2, atoms=3, rank=20, dictionary="attributes", adapted=(),
    alone=True, counting="published", studies=tuple(STUDIES),
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    out = tmp_path_factory.mktemp("studies")
    plan = Plan(out, ("picto",), ("digits",), "letters", limit=LIMIT, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("residual.experiments.running.save_figure", lambda *_: [])
        told = run_experiment(EXPERIMENTS["3"](SETTINGS), plan, lambda *_: None)
    assert told["failed"] == []
    assert told["tables"] == ["table.md", "accuracy.md", *(f"{name}.md" for name in STUDIES)]
    return out, read_results(out / "3_heads")["picto"]["digits"]


def store(made, split: str, name: str = "digits") -> ResidualStore:
    return ResidualStore.open(made[0] / f"stores/picto/{name}-{split}-{LIMIT}")


@pytest.fixture(scope="module")
def texts() -> TextDictionary:
    return TextDictionary.encode(load_encoder("picto", device="cpu"), "attributes")


def test_texts_of_the_heads_that_are_kept(made, texts):
    selected, val = part_of(made[1], "selected"), store(made, "val")
    assert {"random", "accuracy", "head_span", "trained"} <= set(selected["way"])
    scores = part_of(made[1], "score")
    for way in ("accuracy", "head_span"):
        best = top_share(scores[way], 0.1, scores["unit"], "published")
        x = val.contributions(units=best).double().sum(1)
        found, own = somp(x, texts, 3), selected[selected["way"] == way]
        assert own["text"].tolist() == list(found.texts)
        for name, values in found.quality(x).items():
            np.testing.assert_allclose(own[name], values, rtol=1e-3)
        assert own["heads"].tolist() == [4] * 3


def test_texts_of_mlps_are_of_the_reference(made, texts):
    mlps, reference = part_of(made[1], "mlps"), store(made, "train", "letters")
    assert len(mlps) == 8 * 3
    unit = int(mlps["unit"].iloc[-1])
    wanted = somp(reference.contributions(units=[unit])[:, 0], texts, 3)
    assert mlps[mlps["unit"] == unit]["text"].tolist() == list(wanted.texts)


def test_rows_stand_for_what_residual_makes_of_a_unit():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((30, 2, 5)) + 1)
    components = [torch.linalg.qr(torch.from_numpy(rng.standard_normal((5, k))))[0].T for k in (5, 2)]
    variances = [torch.ones(len(each)).double() for each in components]
    adapter = ResiDual(SpectralBases([3, 7], torch.zeros(2, 5).double(), components, variances))
    with torch.no_grad():
        adapter.lambdas.copy_(torch.from_numpy(rng.standard_normal(7)))
    scores = torch.cat([x[:, place] @ rows.T for place, rows in enumerate(components)], 1)
    weights = adapter.lambdas.detach().double().split([5, 2])
    for place, (unit, before, after) in enumerate(adapted_rows(adapter, scores)):
        own = components[place].double()
        whole = x[:, place] @ own.T @ own
        changed = (x[:, place] @ own.T * weights[place]) @ own
        assert unit == (3, 7)[place]
        for rows, samples in ((before, whole), (after, changed)):
            moments = np.cov(samples.numpy().T, bias=True)
            np.testing.assert_allclose(rows.T @ rows, moments, atol=1e-6)


def test_heads_are_named_before_and_after(made):
    heads = part_of(made[1], "adapted_heads")
    assert heads.groupby("name")["unit"].nunique().to_dict() == {"residual": 48, "zero_shot": 48}
    assert heads["explained_variance"].between(0, 1 + 1e-9).all()
    assert heads["bound"].between(0.1, 1).all()
    for bound, first in ((2.0, {"no name"}), (np.nan, set(heads["text"]))):  # none in older cells
        (page,) = study_pages({"picto": {"digits": made[1].assign(bound=bound)}})["adapted_heads"]
        assert {line[3].split(", ")[0] for line in page.lines} <= first


def test_layers_that_are_kept_are_ablations_of_the_others(made):
    layers, test = part_of(made[1], "layers"), store(made, "test")
    classifier, everything = classifier_of(test, load_encoder("picto", device="cpu")), test.contributions()
    rows = layers.set_index(["mode", "name"])["accuracy"]
    for mode in ("zero", "mean"):
        for name, keep in list(kept_layers(test.units).items())[::5]:
            wanted = classifier.accuracy(ablate(everything, keep, mode), test.labels)
            assert rows[mode, name] == pytest.approx(wanted, abs=1 / (LIMIT - 1)), name
    assert rows["zero", "only layers up to 7"] == classifier.accuracy(test.output(), test.labels)


def test_the_linear_classifier_is_of_the_output(made):
    row = part_of(made[1], "linear").iloc[0]
    parts = [(store(made, split).output(), store(made, split).labels) for split in ("train", "val", "test")]
    found = best_linear(parts[0], parts[1], 10)
    assert row["accuracy"] == pytest.approx(found.accuracy(*parts[2]))
    assert row["decay"] == found.decay


def test_the_scoreboard_with_others_at_their_means(made):
    board, zero = part_of(made[1], "mean"), part_of(made[1], "accuracy")
    assert board[["way", "share", "heads"]].equals(zero[["way", "share", "heads"]])
    assert not np.allclose(board["accuracy"], zero["accuracy"])
    assert zero[zero["way"] == "span"]["heads"].tolist() == [1, 2, 2, 4]


def test_overlaps_between_datasets(made):
    table = made[1]
    other = table.assign(accuracy=table["accuracy"][::-1].to_numpy(), span=table["span"].fillna(0) ** 2)
    other["accuracy"] = other["accuracy"].fillna(0)
    tables = {"digits": table, "others": other}
    (pages,) = overlap_pages({"picto": tables}, 0.1).values()
    chosen = {name: best_heads(each, 0.1) for name, each in tables.items()}
    assert len(pages) == len(chosen["digits"]) >= 6
    for page, way in zip(pages, chosen["digits"], strict=True):
        wanted = jaccard(chosen["digits"][way], chosen["others"][way])
        assert page.lines == [["digits", "1.00", f"{wanted:.2f}"], ["others", f"{wanted:.2f}", "1.00"]]
    assert overlap_pages({"picto": {"digits": table}}, 0.1) == {}


def test_every_study_is_a_table(made):
    for name in ("accuracy", *STUDIES):
        text = (made[0] / f"3_heads/{name}.md").read_text(encoding="utf-8")
        assert text.startswith("picto")
        assert (made[0] / f"3_heads/{name}.tex").read_text(encoding="utf-8").count("\\toprule") >= 1
        if name in ("accuracy", "mean"):
            assert "| kept | best (1) | 1% (2) | 5% (2) | 10% (4) | 100% |" in text


def test_settings_that_came_later_are_noted_where_they_are_asked_for():
    noted = {"shares", "seeds", "seed", "atoms", "rank", "dictionary", "adapted"}
    assert set(EXPERIMENTS["3"](HeadsSettings()).noted()) == noted
    assert set(EXPERIMENTS["3"](SETTINGS).noted()) == noted | {"alone", "counting", "studies"}
    with pytest.raises(ResidualError, match=r"got \('mlp',\)\. Did you mean 'mlps'"):
        HeadsSettings(studies=("mlp",))
