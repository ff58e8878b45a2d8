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


@pytest.mark.parametrize(("split", "size", "least"), [("test", 359, 0.96), ("val", 360, 0.95)])
def test_accuracies_are_those_reported(model, split, size, least):
    """The smallest dataset of each committed report; the rest is measured by the command in the card."""
    from evaluate import accuracy

    report = json.loads((ROOT / f"picto/results/{split}.json").read_text(encoding="utf-8"))
    assert report["split"] == split
    assert len(report["zero_shot"]) == 10
    assert report["zero_shot"]["mnist"] >= least
    measured, total = accuracy(model, "digits", split)
    assert total == size
    assert measured == pytest.approx(report["zero_shot"]["digits"], abs=0.006)
