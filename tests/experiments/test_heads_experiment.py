"""Experiment 3 on a little of what ships: its parts, each held against what it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from residual import ResidualStore
from residual.errors import ResidualError
from residual.experiments import EXPERIMENTS, Plan, read_results, run_experiment
from residual.experiments.heads import HeadsSettings, part_of
from residual.heads import ablate, ablations, jaccard, score_units, top_share
from residual.workflows.store_origin import classifier_of, encoder_of

LIMIT = 60
SETTINGS = HeadsSettings(shares=(0.05, 0.1, 0.5), seeds=2, atoms=3, rank=20, dictionary="attributes")
PARTS = {"accuracy", "score", "ablation", "jaccard", "text", "late", "adapted"}


def plan(out: Path, **how) -> Plan:
    chosen = {"encoders": ("picto",), "datasets": ("digits", "flags"), "reference": "letters", "limit": LIMIT}
    return Plan(out=out, device="cpu", **(chosen | how))


def run(out: Path, settings: HeadsSettings = SETTINGS, **how) -> dict:
    return run_experiment(EXPERIMENTS["3"](settings), plan(out, **how), lambda *_: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict, pd.DataFrame]:
    out = tmp_path_factory.mktemp("heads")
    told = run(out)
    return out, told, read_results(out / "3_heads")["picto"]["digits"]


def store(out: Path, split: str) -> ResidualStore:
    return ResidualStore.open(out / f"stores/picto/digits-{split}-{LIMIT}")


def test_a_cell_a_dataset_with_every_part(made):
    out, told, table = made
    assert [cell["dataset"] for cell in told["cells"]] == ["digits", "flags"]
    assert set(table["part"]) == PARTS
    assert list(told["summary"]["picto"]) == ["digits", "flags"]
    json.dumps(told, allow_nan=False)
    assert (out / "3_heads/table.tex").read_text(encoding="utf-8").count(r"\toprule") == 1
    assert "| digits |" in (out / "3_heads/table.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_measured_twice_and_settings_are_not_mixed(made):
    out, _, _ = made
    again = run(out)
    assert not any(cell["measured"] for cell in again["cells"])
    with pytest.raises(ResidualError, match=r"settings\.atoms 3, not 4"):
        run(out, HeadsSettings(shares=SETTINGS.shares, seeds=2, atoms=4, rank=20, dictionary="attributes"))


def test_scores_and_accuracies_are_those_of_the_stores(made):
    out, _, table = made
    val, test = store(out, "val"), store(out, "test")
    classifier = classifier_of(val, encoder_of(val))
    scores = score_units(val, classifier)
    kept = part_of(table, "score")
    for name in ("accuracy", "span", "correlation"):
        np.testing.assert_allclose(kept[name], scores[name], atol=1e-4)
    accuracies = part_of(table, "accuracy")
    everything = test.contributions()
    best = top_share(scores["accuracy"], 0.1, scores["unit"])
    row = accuracies[(accuracies["way"] == "accuracy") & (accuracies["share"] == 0.1)].iloc[0]
    wanted = classifier.accuracy(ablate(everything, best), test.labels)
    assert row["accuracy"] == pytest.approx(wanted, abs=1 / (LIMIT - 1))
    for mode in ("zero", "mean"):
        rows = part_of(table, "ablation")
        rows = rows[rows["mode"] == mode].set_index("name")["accuracy"]
        for name, keep in list(ablations(test.units).items())[:5]:
            wanted = classifier.accuracy(ablate(everything, keep, mode), test.labels)
            assert rows[name] == pytest.approx(wanted, abs=1 / (LIMIT - 1)), name


def test_overlaps_are_of_the_best_heads(made):
    _, _, table = made
    scores, overlaps = part_of(table, "score"), part_of(table, "jaccard")
    best = {name: top_share(scores[name], 0.1, scores["unit"]) for name in ("accuracy", "span", "trained")}
    found = overlaps.set_index(["a", "b"])["jaccard"]
    for a in best:
        for b in best:
            assert found[a, b] == pytest.approx(jaccard(best[a], best[b]))


def test_texts_come_in_order_and_explain_more_and_more(made):
    _, _, table = made
    texts = part_of(table, "text")
    assert {"head", "mlp"} == set(texts["kind"])
    assert (texts["kind"] == "mlp").sum() == 8 * SETTINGS.atoms
    for _, own in texts.groupby("unit"):
        assert own["order"].tolist() == [1, 2, 3]
        assert own["explained_variance"].is_monotonic_increasing
    late = part_of(table, "late")
    assert set(late["method"]) == {"somp", "omp", "text_span"}
    assert set(late["layer"]) == {6, 7}
    assert late["participation_ratio"].min() >= 1
    adapted = part_of(table, "adapted")
    assert adapted["name"].tolist() == ["zero_shot"] * 3 + ["residual"] * 3


def test_figures(made):
    out, told, _ = made
    names = {Path(path).stem for path in told["figures"]}
    assert names == {"picto-digits", "picto-flags", "picto-ablations", "picto-overlaps"}
    for path in (out / "3_heads/figures").glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 300


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"rank": 0}, "rank takes a whole number, at least 1"),
        ({"shares": (0.5,)}, "0.05 and 0.1 among them"),
        ({"seeds": 10**12}, "seeds takes a whole number from 2 to 1,000"),
        ({"atoms": 0}, "atoms takes a whole number, at least 1"),
    ],
)
def test_bad_settings(how, message):
    with pytest.raises(ResidualError, match=message):
        HeadsSettings(**how)
