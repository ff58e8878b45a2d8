"""Writers are killed at random calls of the system and at random times: nothing is lost.

`RESIDUAL_KILLS=200 pytest tests/safety/test_killed.py -s` kills each kind of work 200 times.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import saved
import torch
from examples import picture
from kills import Nursery
from tiny import random_pixels, tiny_encoder

from residual.adapters import AdaptedEncoder
from residual.spectral.unit_moments import UnitMoments
from residual.store.disk import ResidualStore
from residual.tensor_files import load_tensors

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and killed"),
]
KILLS = int(os.environ.get("RESIDUAL_KILLS", "3"))
OWN = "the user's own.txt"
ENCODER = tiny_encoder(dtype=torch.float32)


class Killer:
    """Work in folders, killed again and again, with what an unbroken run leaves."""

    def __init__(self, folder: Path):
        self.folder, self.model = folder, folder / "model"
        saved.transformers_folder("CLIPModel", self.model)
        for number, name in enumerate("abc"):
            for kind in ("cat", "dog"):
                for sample in range(20):
                    at = self.model / name / kind / f"{sample}.png"
                    at.parent.mkdir(parents=True, exist_ok=True)
                    at.write_bytes(
                        picture(20 * sample + 90 * number + (kind == "cat"), size=(32, 32 + sample))
                    )
        (self.model / "a/cat/0.png").write_bytes(b"no picture")
        (self.model / "a/cat/1.png").write_bytes(b"")
        self.nursery = Nursery(Path(__file__).with_name("killed_nursery.py"), folder / "errors.txt")
        self.random = np.random.default_rng(int.from_bytes(os.urandom(4)) if KILLS > 20 else 5)

    def start(self, place: Path, kind: str, **how: int) -> int:
        place.mkdir(exist_ok=True)
        if kind in ("bases", "grid") or any(place.glob("*.safetensors")):  # else it would be no place for it
            (place / OWN).write_text("mine")
        return self.nursery.start(place, kind=kind, model=str(self.model), **how)

    def killed(self, place: Path, kind: str, most: int, longest: float, version: int) -> bool:
        """Whether the process was killed, by itself at a call or by us after some time; else it has ended."""
        if self.random.integers(2):
            at = 1 + int(self.random.integers(most))
            ending = self.nursery.wait(self.start(place, kind, kill_at=at, version=version))
        else:
            process = self.start(place, kind, version=version)
            time.sleep(float(self.random.uniform(0, longest)))
            os.kill(process, signal.SIGKILL)
            ending = self.nursery.wait(process)
        assert ending in (0, -signal.SIGKILL), self.nursery.errors.read_text()
        return ending != 0

    def run(self, place: Path, kind: str, version: int = 0) -> None:
        process = self.start(place, kind, version=version)
        was_there = (place / OWN).exists()
        assert self.nursery.wait(process) == 0, self.nursery.errors.read_text()
        assert not was_there or (place / OWN).read_text() == "mine"
        (place / OWN).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    made = Killer(tmp_path_factory.mktemp("kills"))
    yield made
    made.nursery.close()


def kept(folder: Path) -> dict[str, object]:
    """All that a run leaves, by name: bytes, but of tables their numbers."""
    files: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            files[name] = pd.read_parquet(path).to_dict() if path.suffix == ".parquet" else path.read_bytes()
    return files


def bases_readable(place: Path) -> None:
    """The state of a run that was killed is whole."""
    if (place / "bases.safetensors.unfinished").exists():
        UnitMoments.load(place / "bases.safetensors.unfinished")
    if (place / "bases.safetensors").exists():
        load_tensors(place / "bases.safetensors", "bases")


def checkpoint_readable(place: Path) -> None:
    for name in ("checkpoint", "finished"):
        if (place / f"{name}.safetensors").exists():
            load_tensors(place / f"{name}.safetensors", "checkpoint")


def grid_readable(place: Path) -> None:
    for path in place.rglob("*.parquet"):
        pd.read_parquet(path)
    for path in place.glob("stores/*/*/manifest.json"):
        store = ResidualStore.open(path.parent, cut_off=True)
        assert not len(store) or store.verify() == []


ALL = {  # how many calls and seconds a run takes at most, and what can be read wherever it was killed
    "bases": (60, 0.4, bases_readable),
    "fine-tuning": (20, 0.8, checkpoint_readable),
    "grid": (150, 1.0, grid_readable),
}
# The others are killed in `store/test_kills.py` and `adapters/test_fine_tuning_kills.py`, too.
KINDS = list(ALL) if "RESIDUAL_KILLS" in os.environ else ["grid"]


@pytest.mark.filterwarnings("ignore:.*isn't complete")
@pytest.mark.timeout(300 + 20 * KILLS)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_run_again_it_ends_as_if_nothing_had_been(killer, tmp_path, kind):
    """Half of the killed runs are ended and compared, the others killed again."""
    most, longest, readable = ALL[kind]
    killer.run(tmp_path / "unbroken", kind)
    expected, endings, kills, number = kept(tmp_path / "unbroken"), 0, 0, 0
    while kills < KILLS:
        place = tmp_path / str(number)
        for version in range(8):
            if not killer.killed(place, kind, most, longest, version):
                break
            kills += 1
            readable(place)
            if killer.random.integers(2) or kills == KILLS:
                break
        killer.run(place, kind)
        same(kept(place), expected)
        endings, number = endings + 1, number + 1
    print(f"\n{json.dumps({'kind': kind, 'kills': kills, 'endings compared': endings})}")


def same(got: dict[str, object], expected: dict[str, object]) -> None:
    assert sorted(got) == sorted(expected)
    assert [
        name for name in got if got[name] != expected[name] and not same_tensors(name, got, expected)
    ] == []


def same_tensors(name: str, got: dict[str, object], expected: dict[str, object]) -> bool:
    """A finished fine-tuning notes its seconds: its weights and its history are the same."""
    from residual.tensor_files import unpack_tensors

    if name != "finished.safetensors":
        return False
    one, other = (unpack_tensors(each[name], "checkpoint", name) for each in (got, expected))
    notes = all(one[1][part] == other[1][part] for part in ("identity", "history"))
    return notes and all(torch.equal(one[0][key], other[0][key]) for key in other[0])


def test_an_adapter_that_is_saved_over_another_is_the_old_or_the_new_one(killer, tmp_path):
    outputs: dict[int, torch.Tensor] = {}
    pixels, place, seen, kills, last = random_pixels(2, dtype=torch.float32), tmp_path / "adapter", [], 0, 0
    killer.run(place, "adapter", 0)
    files = sorted(kept(place))
    while kills < KILLS:
        version = last + 1
        if last not in outputs:
            outputs[last] = output(place, pixels, last)
        killed = killer.killed(place, "adapter", 30, 0.05, version)
        kills += killed
        loaded = AdaptedEncoder.from_pretrained(place, encoder=ENCODER)
        found = int(loaded.classifier.class_names[0].rpartition(" ")[2])
        assert found in ((last, version) if killed else (version,))
        got = output(place, pixels, found)
        if found == last:
            torch.testing.assert_close(got, outputs[last], rtol=0, atol=0)
        assert (place / OWN).read_text() == "mine"
        seen.append(found == version)
        killer.run(place, "adapter", version)
        assert sorted(kept(place)) == files
        last = version
    assert set(seen) == {True, False} or KILLS < 20
    print(f"\n{json.dumps({'kind': 'adapter', 'kills': kills, 'new after a kill': sum(seen)})}")


def output(place: Path, pixels: torch.Tensor, version: int) -> torch.Tensor:
    made = AdaptedEncoder.from_pretrained(place, encoder=ENCODER)
    assert made.classifier.class_names == tuple(f"class {number} of {version}" for number in range(3))
    with torch.no_grad():
        return made(pixels)
