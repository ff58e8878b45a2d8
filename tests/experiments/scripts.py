"""Scripts of experiments: as a process that is killed, or to their end in this one."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from residual.experiments import EXPERIMENTS

ROOT = Path(__file__).parents[2] / "experiments"


def kill_when(seen: Callable[[], object], log: Path, number: str, *words: str | Path) -> None:
    """Start a script with as many threads as there are here, and kill it once something is `seen`."""
    command = [sys.executable, ROOT / EXPERIMENTS[number].folder / "run.py", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    while not seen():
        assert process.poll() is None, log.read_text()
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def run_to_its_end(number: str, *words: str | Path) -> None:
    script = ROOT / EXPERIMENTS[number].folder / "run.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *map(str, words)])
        with pytest.raises(SystemExit, match="0"):
            runpy.run_path(str(script), run_name="__main__")
