"""Processes that fine-tune are really killed; started again, they end with the weights of an unbroken run."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tuned
from kills import Nursery

from residual.tensor_files import load_tensors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and killed")

FINISHED = "finished.safetensors"


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    made = Nursery(
        Path(__file__).with_name("fine_tuning_nursery.py"), tmp_path_factory.mktemp("nursery") / "errors.txt"
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def unbroken(nursery, tmp_path_factory):
    """What a training that nothing stops leaves, without a single checkpoint on the way inside of epochs."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert nursery.run(folder, every=1e9) == 0, nursery.errors.read_text()
    held = load_tensors(folder / FINISHED, "checkpoint")
    assert len(held[1]["history"]) == 4
    return held


def ends_like(folder: Path, unbroken) -> None:
    assert [path.name for path in folder.iterdir()] == [FINISHED]
    weights, note = load_tensors(folder / FINISHED, "checkpoint")
    for name in ("identity", "history"):
        assert note[name] == unbroken[1][name], name
    assert tuned.same(weights, unbroken[0])


def reached(folder: Path) -> tuple[int, int]:
    """The epoch and the batch of what is there; it can be read whenever the process was killed."""
    if (folder / FINISHED).exists():
        return 99, 0
    if not (folder / "checkpoint.safetensors").exists():
        return 0, 0
    _, note = load_tensors(folder / "checkpoint.safetensors", "checkpoint")
    return note["number"], note["step"]


def test_killed_again_and_again_in_the_middle_of_training(nursery, unbroken, tmp_path):
    """Each process gets a few batches further, and dies inside of one."""
    places, ending = [], -9
    while ending:
        ending = nursery.run(tmp_path, in_memory=False, call="step", kill_at=4)
        places.append(reached(tmp_path))
        assert ending in (0, -9), nursery.errors.read_text()
        assert places == sorted(places)
        assert len(places) < 20
    assert len(set(places)) >= 5
    assert any(0 < step < 4 for _, step in places)
    ends_like(tmp_path, unbroken)


@pytest.mark.parametrize("call", ["replace", "unlink", "validation"])
def test_killed_at_every_kind_of_moment(nursery, unbroken, tmp_path, call):
    """Before a file comes to its place, before one goes, before validation: and once more from there."""
    for number in {"replace": (1, 20), "unlink": (21,), "validation": (2,)}[call]:
        folder = tmp_path / str(number)
        assert nursery.run(folder, call=call, kill_at=number) == -9, number
        reached(folder)
        assert nursery.run(folder) == 0, nursery.errors.read_text()
        ends_like(folder, unbroken)


def test_killed_at_random_moments(nursery, unbroken, tmp_path):
    random, endings, places = np.random.default_rng(3), [], []
    how = {"pause": 0.002, "in_memory": False}  # half a second of reading, and all that is between
    for _ in range(4):
        process = nursery.start(tmp_path, **how)
        time.sleep(float(random.uniform(0.1, 0.5)))
        os.kill(process, signal.SIGKILL)
        endings.append(nursery.wait(process))
        places.append(reached(tmp_path))
    assert set(endings) <= {-9, 0}
    assert endings.count(-9) >= 2
    assert places == sorted(places)
    assert nursery.run(tmp_path, **how) == 0, nursery.errors.read_text()
    ends_like(tmp_path, unbroken)
