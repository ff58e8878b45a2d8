"""Processes that encode are really killed, at random and at every single write: nothing is lost or false."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from kills import Nursery
from store_files import files_of, float32_encoder, same_files, small_shards, whole_samples
from tiny import TinyImages

from residual.errors import ResidualError, UnreadableImageError
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.store.storage import Storage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and killed")

MANY = {"n": 330, "rows": 32}  # eleven shards
FEW = {"n": 20, "rows": 8}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    made = Nursery(
        Path(__file__).with_name("encode_nursery.py"), tmp_path_factory.mktemp("nursery") / "errors.txt"
    )
    yield made
    made.close()


def undisturbed(nursery, folder, **what):
    assert nursery.run(folder / "store", **what) == 0
    memory = encode_dataset(
        float32_encoder(), TinyImages(what["n"], broken=(3, what["n"] // 2)), on_error="skip", batch_size=16
    )
    store = ResidualStore.open(folder / "store")
    assert store.complete
    assert store.sample_ids == memory.sample_ids
    np.testing.assert_allclose(store.contributions(), memory.contributions(), rtol=0, atol=0.05)
    return folder / "store", store.load()


@pytest.fixture(scope="module")
def many(nursery, tmp_path_factory):
    return undisturbed(nursery, tmp_path_factory.mktemp("many"), **MANY)


@pytest.fixture(scope="module")
def few(nursery, tmp_path_factory):
    return undisturbed(nursery, tmp_path_factory.mktemp("few"), **FEW)


def half_right(path: Path, whole) -> int:
    """What is there opens as far as it is whole, says so, and is right; how many shards there are."""
    if not (path / "manifest.json").exists():
        with pytest.raises(ResidualError, match="There is no store at"):
            ResidualStore.open(path)
        return 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store = ResidualStore.open(path)
    assert len(caught) == (not store.complete)
    assert all("isn't complete" in str(warning.message) for warning in caught)
    shards = len(store._arrays.receipts)
    if not shards:
        return 0
    assert store.verify() == []
    whole_samples(store, whole)
    return shards


def test_kills_at_random_moments(nursery, many, tmp_path):
    expected, whole = many
    random = np.random.default_rng(7)
    path, reached, endings, longest = tmp_path / "store", [0], [], 0.3
    for _ in range(6):
        process = nursery.start(path, pause=0.003, **MANY)  # a second for all of the images
        time.sleep(float(random.uniform(0, longest)))
        os.kill(process, signal.SIGKILL)
        endings.append(nursery.wait(process))
        reached.append(half_right(path, whole))
        longest *= 2 if reached[-1] == reached[-2] < len(whole) // MANY["rows"] else 1  # on a busy machine
    assert set(endings) <= {-9, 0}
    assert endings.count(-9) >= 3
    assert reached == sorted(reached)  # what was whole stays
    assert len(set(reached)) >= 2
    assert nursery.run(path, **MANY) == 0
    same_files(files_of(path), files_of(expected))


@pytest.mark.slow
@pytest.mark.parametrize(("call", "step"), [("fsync", 17), ("replace", 5)])
def test_killed_at_every_write(nursery, few, tmp_path, call, step):
    """At every fifth file that gets its name, and at every 17th time that one is brought to the disk. At
    all of them with RESIDUAL_EVERY_KILL=1.
    """
    if "RESIDUAL_EVERY_KILL" in os.environ:
        step = 1
    expected, whole = few
    number, before, bytes_of_all = 1, 0, files_of(expected)
    while (ending := nursery.run(path := tmp_path / str(number), call=call, kill_at=number, **FEW)) != 0:
        assert ending == -9
        shards = half_right(path, whole)
        assert shards >= before  # a later kill never leaves less
        before = shards
        assert nursery.run(path, **FEW) == 0
        same_files(files_of(path), bytes_of_all)
        number += step
    assert number > {"fsync": 70, "replace": 35}[call]
    assert before >= 2


def test_killed_again_and_again_some_steps_further_each_time(nursery, tmp_path):
    what = {"n": 20, "rows": 2}
    expected, whole = undisturbed(nursery, tmp_path, **what)
    path, ending, reached = tmp_path / "killed", -9, []
    while ending:
        ending = nursery.run(path, call="any", kill_at=130, **what)
        reached.append(half_right(path, whole))
        assert reached == sorted(reached)
        assert len(reached) < 30
    assert len(reached) >= 3
    same_files(files_of(path), files_of(expected))


def test_killed_inside_of_a_write(nursery, few, tmp_path):
    expected, whole = few
    for longest_file in (10, 4000):
        path = tmp_path / str(longest_file)
        for _ in range(2):
            assert nursery.run(path, longest_file=longest_file, **FEW) == -signal.SIGXFSZ
            partial = [name for name in files_of(path) if name.endswith(".partial")]
            assert len(partial) == 1  # they don't gather
            half_right(path, whole)
        assert nursery.run(path, **FEW) == 0
        same_files(files_of(path), files_of(expected))


def test_killed_while_it_mends(nursery, few, tmp_path):
    """A file was removed, as advised; its receipt is still there while it is made again."""
    expected, whole = few
    path = tmp_path / "store"
    assert nursery.run(path, **FEW) == 0
    for number in (1, 8):
        (path / "z/c/1/0/0/0").unlink(missing_ok=True)
        (path / "mean/c/1").unlink(missing_ok=True)
        assert nursery.run(path, call="replace", kill_at=number, **FEW) in (-9, 0)
        store = ResidualStore.open(path)
        missing = [damage.file for damage in store.verify()]
        assert set(missing) <= {"z/c/1/0/0/0", "mean/c/1"}
        np.testing.assert_array_equal(store.read([0, 1, 17]).emb, whole.coordinates.emb[[0, 1, 17]])
    assert nursery.run(path, **FEW) == 0
    same_files(files_of(path), files_of(expected))


def test_bases_alone_go_on_to_the_same_bytes(nursery, tmp_path):
    """Killed at a batch, at a checkpoint, and again when it has gone on; nothing is encoded twice."""
    how = {"n": 130, "rows": 8, "bases": True}
    assert nursery.run(tmp_path / "whole", **how) == 0
    for kills in ((2, 4), (10,)):
        path = tmp_path / "-".join(map(str, kills))
        for number in kills:
            assert nursery.run(path, call="replace", kill_at=number, **how) == -9
        assert nursery.run(path, **how) == 0
        assert path.read_bytes() == (tmp_path / "whole").read_bytes(), kills


# Several writers


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        (MANY, [(1, 3), (2, 3), (3, 3)]),
        (FEW, [(number, 8) for number in range(1, 9)]),  # some write only what isn't of samples
        (MANY, [(1, 1)] * 3),
        (MANY, [(1, 2)] * 3),
    ],
    ids=["three parts", "more parts than shards", "the whole thrice", "a part thrice"],
)
def test_several_writers_at_once(request, nursery, tmp_path, what, parts):
    expected, _ = request.getfixturevalue("many" if what is MANY else "few")
    path = tmp_path / "store"
    writers = [nursery.start(path, part=part, **what) for part in parts]
    assert [nursery.wait(writer) for writer in writers] == [0] * len(parts), nursery.errors.read_text()
    if len(set(parts)) == 1:
        assert nursery.run(path, **what) == 0
    same_files(files_of(path), files_of(expected))


def test_one_of_two_writers_is_killed(nursery, many, tmp_path):
    """The other goes on undisturbed; the killed one's part is made good while the first still writes."""
    expected, whole = many
    path = tmp_path / "store"
    first = nursery.start(path, part=(1, 2), pause=0.004, **MANY)
    second = nursery.start(path, part=(2, 2), pause=0.001, **MANY)
    time.sleep(0.2)
    os.kill(second, signal.SIGKILL)
    assert nursery.wait(second) in (-9, 0)
    half_right(path, whole)
    again = nursery.start(path, part=(2, 2), **MANY)
    assert nursery.wait(again) == 0, nursery.errors.read_text()
    assert nursery.wait(first) == 0, nursery.errors.read_text()
    same_files(files_of(path), files_of(expected))


def test_what_killed_writers_of_parts_left_is_swept(nursery, few, tmp_path):
    """Both are killed inside of a write and both are run again at once, either beginning last."""
    expected, _ = few
    for order in ((2, 1), (1, 2)):
        path = tmp_path / str(order)
        for number in (1, 2):
            assert nursery.run(path, part=(number, 2), longest_file=1500, **FEW) == -signal.SIGXFSZ
        assert sum(name.endswith(".partial") for name in files_of(path)) >= 2
        writers = [
            nursery.start(path, part=(number, 2), pause=0.01 * place, **FEW)
            for place, number in enumerate(order)
        ]
        assert [nursery.wait(writer) for writer in writers] == [0, 0]
        same_files(files_of(path), files_of(expected))


def test_files_come_and_go_while_they_are_listed(tmp_path):
    """By other writers, whose files are beside their places for a moment."""
    storage, stop = Storage(tmp_path), threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            storage.write(f"receipts/{number % 7:06d}.json", b"x" * 10)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            assert set(storage.sizes("receipts").values()) <= {10}
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_files_are_swept_away_from_under_a_writer(tmp_path):
    """Another run of the same part begins: it takes what is half written for what a killed one left."""
    storage, stop = Storage(tmp_path), threading.Event()

    def sweep():
        while not stop.is_set():
            Storage(tmp_path).sweep()
            time.sleep(0.03)

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        for number in range(200):
            storage.write(f"z/c/{number % 5}", bytes([number]) * 5000)
            assert storage.read(f"z/c/{number % 5}") == bytes([number]) * 5000
    finally:
        stop.set()
        thread.join()
    assert len(files_of(tmp_path)) == 5


# A power cut


def test_what_is_named_is_on_the_disk(tmp_path, monkeypatch):
    """A file is brought to the disk before it gets its name, its folder after; receipts come after shards."""
    small_shards(monkeypatch, 8)
    synced, named, closed = set(), [], []  # a folder is brought to the disk again for a folder made in it
    fsync, replace = os.fsync, os.replace

    def on_disk(handle):
        synced.add(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)
        whose = os.readlink(f"/proc/self/fd/{handle}")
        if len(closed) < len(named) and str(named[-1].parent) == whose:
            closed.append(named[-1].relative_to(tmp_path).as_posix())

    def rename(source, target):
        assert str(source) in synced
        assert closed == [path.relative_to(tmp_path).as_posix() for path in named]
        replace(source, target)
        named.append(Path(target))

    monkeypatch.setattr(os, "fsync", on_disk)
    monkeypatch.setattr(os, "replace", rename)
    encode_dataset(float32_encoder(), TinyImages(20), tmp_path)
    assert len(closed) == len(files_of(tmp_path))
    assert closed[0] == "manifest.json"
    for shard in range(3):
        receipt = closed.index(f"receipts/{shard:06d}.json")
        files = [place for place, name in enumerate(closed) if f"/c/{shard}" in name and place >= 16]
        assert len(files) == 6
        assert max(files) < receipt


# Ends that aren't kills


@pytest.mark.parametrize(
    ("error", "seen", "workers"),
    [(KeyboardInterrupt, KeyboardInterrupt, 0), (MemoryError, UnreadableImageError, 2)],
)
def test_whatever_ends_a_run_keeps_whole_shards(tmp_path, monkeypatch, error, seen, workers):
    small_shards(monkeypatch, 4)
    dataset = TinyImages(30)
    encode_dataset(float32_encoder(), dataset, tmp_path / "whole", batch_size=2)

    class Ending(TinyImages):
        def load(self, index):
            if index == 22:
                raise error("enough")
            return super().load(index)

    with pytest.raises(seen, match="enough"):
        encode_dataset(float32_encoder(), Ending(30), tmp_path / "store", batch_size=2, workers=workers)
    store = ResidualStore.open(tmp_path / "store", cut_off=True)
    assert store.sample_ids == dataset.sample_ids[: len(store)]
    assert len(store) in (16, 20)
    assert store.verify() == []
    encode_dataset(float32_encoder(), dataset, tmp_path / "store", batch_size=2)
    same_files(files_of(tmp_path / "store"), files_of(tmp_path / "whole"))


def test_an_error_of_progress_ends_the_run_cleanly(tmp_path, monkeypatch):
    small_shards(monkeypatch, 4)

    def progress(_, done, total):
        if done >= 10:
            raise KeyboardInterrupt("stop")

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt, match="stop"):
        encode_dataset(float32_encoder(), TinyImages(30), tmp_path / "store", batch_size=2, progress=progress)
    assert len(ResidualStore.open(tmp_path / "store", cut_off=True)) == 8
    started = set(threading.enumerate()) - before  # zarr keeps those of its own
    ours = [thread for thread in started if thread.name.startswith("residual")]
    for thread in ours:  # nothing waits for a batch that is being read (`ahead`); it ends by itself
        thread.join(30)
    assert not [thread for thread in ours if thread.is_alive()]
    assert not [name for name in files_of(tmp_path / "store") if "partial" in name]
