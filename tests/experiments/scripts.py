"""Scripts of experiments, run to their end in this process."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from residual.experiments import EXPERIMENTS

ROOT = Path(__file__).parents[2] / "experiments"


def run_to_its_end(number: str, *words: str | Path) -> None:
    script = ROOT / EXPERIMENTS[number].folder / "run.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *map(str, words)])
        with pytest.raises(SystemExit, match="0"):
            runpy.run_path(str(script), run_name="__main__")
