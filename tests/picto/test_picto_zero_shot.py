"""The shipped weights reach what the model card says, measured by the script that it names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "src/residual/encoders/picto"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    from evaluate import Model

    return Model(FOLDER, "cpu")


@pytest.mark.parametrize(
    ("dataset", "split", "size", "least"),
    [("mnist", "all", 5000, 0.96), ("emoji-concepts", "test", 1000, 0.75)],
)
def test_zero_shot_accuracy(model, dataset, split, size, least):
    from evaluate import accuracy

    found, total = accuracy(model, dataset, split)
    assert total == size
    assert found >= least


@pytest.mark.parametrize("split", ["val", "test"])
def test_reported_accuracies_are_those_measured_now(model, split):
    """One quick dataset of each committed report; the rest is measured by the command in the card."""
    from evaluate import accuracy

    report = json.loads((ROOT / f"picto/results/{split}.json").read_text(encoding="utf-8"))
    assert report["split"] == split
    assert len(report["zero_shot"]) == 10
    assert accuracy(model, "digits", split)[0] == pytest.approx(report["zero_shot"]["digits"], abs=0.006)
