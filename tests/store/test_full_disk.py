"""A disk that is full, closed or no folder at all stops a run with its reason, and nothing whole is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from store_files import files_of, same_encoder, same_files, small_shards
from tiny import TinyImages

from residual.errors import ResidualError
from residual.spectral import fit_bases, stream_moments
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.store.forward import Encoding

N, ROWS, PAGE = 42, 8, 4096
FULL = r"The disk of '.*store' is full\. What is complete is kept: make room and run the same again"


@pytest.fixture(autouse=True)
def shards(monkeypatch):
    small_shards(monkeypatch, ROWS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch, ROWS)
        path = tmp_path_factory.mktemp("whole")
        encode(path)
    return files_of(path)


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own; `mount(options)` changes it."""
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("only root can make a small disk")
    path = tmp_path / "disk"
    path.mkdir()

    def mount(options):
        remount = "remount," if os.path.ismount(path) else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", remount + options, "tmpfs", str(path)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"a disk can't be made here: {done.stderr.strip()}")
        return path

    yield mount
    if os.path.ismount(path):
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def encode(path, **how):
    return encode_dataset(same_encoder(), TinyImages(N), path, batch_size=4, **how)


def pages(files: dict[str, bytes]) -> int:
    return sum(-(-len(data) // PAGE) for data in files.values())


def free(path: Path) -> int:
    return os.statvfs(path).f_bavail


def is_kept(path: Path, whole: dict[str, bytes]) -> int:
    """Whole shards are right, whatever else is there is whole, nothing is half written; how many shards."""
    there = files_of(path)
    assert not [name for name in there if name.endswith(".partial")]
    assert {name: data for name, data in there.items() if whole[name] != data} == {}
    if "manifest.json" not in there:
        return 0
    store = ResidualStore.open(path, cut_off=True)
    if len(store):
        assert store.verify() == []
        assert store.sample_ids == TinyImages(N).sample_ids[: len(store)]
    return len(store)


def test_a_disk_that_is_full_at_every_file(disk, whole):
    """Room is made a page at a time, so that it is full at each file in turn."""
    root = disk("size=1m")
    ballast = [root / f"ballast {number}" for number in range(free(root))]
    for file in ballast:
        file.write_bytes(bytes(PAGE))
    assert free(root) == 0
    reached, stops = [], 0
    while not (root / "store" / "receipts" / "000005.json").exists():
        try:
            encode(root / "store")
        except ResidualError as error:
            message = str(error)
        else:
            break
        assert re.match(FULL, message)
        stops += 1
        reached.append(is_kept(root / "store", whole))
        ballast.pop().unlink()
    assert reached == sorted(reached)
    assert set(reached) == {0, 8, 16, 24, 32, 40}
    assert stops > len(whole)
    same_files(files_of(root / "store"), whole)


@pytest.mark.parametrize("part", [0.2, 0.9])
def test_a_larger_disk_goes_on(disk, whole, part):
    size = int(part * pages(whole)) + 1
    root = disk(f"size={size * PAGE}")
    with pytest.raises(ResidualError, match=FULL):
        encode(root / "store")
    kept = is_kept(root / "store", whole)
    assert (kept > 0) == (part >= 0.5)
    with pytest.raises(ResidualError, match=FULL):  # again, with no room made
        encode(root / "store")
    assert is_kept(root / "store", whole) == kept
    disk("size=4m")
    assert len(encode(root / "store")) == N
    same_files(files_of(root / "store"), whole)


def test_no_room_for_more_files(disk, whole):
    root = disk("size=4m,nr_inodes=90")
    with pytest.raises(ResidualError, match=FULL):
        encode(root / "store")
    is_kept(root / "store", whole)
    disk("size=4m,nr_inodes=1000")
    encode(root / "store")
    same_files(files_of(root / "store"), whole)


def test_a_disk_that_fills_up_under_two_writers(disk, whole):
    root = disk(f"size={pages(whole) * PAGE * 2 // 3}")
    encode(root / "store", part=(1, 2))
    with pytest.raises(ResidualError, match=FULL):
        encode(root / "store", part=(2, 2))
    assert is_kept(root / "store", whole) >= 24
    disk("size=4m")
    encode(root / "store", part=(2, 2))
    same_files(files_of(root / "store"), whole)


def test_bases_on_a_disk_that_is_full(disk, tmp_path):
    """Theirs, and what is kept on the way: what was there stays whole, and nothing is left beside it."""
    root, images = disk("size=200k"), TinyImages(N)
    bases = fit_bases(encode_dataset(same_encoder(), images))
    bases.save(root / "bases")
    before = (root / "bases").read_bytes()
    (root / "ballast").write_bytes(bytes(free(root) * PAGE))
    settings = Encoding(batch_size=8)
    message = r"can't be written: the disk is full\. Make room and run the same"
    with pytest.raises(ResidualError, match=f"bases' {message}"):
        bases.save(root / "bases", overwrite=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("residual.spectral.fit.SECONDS_BETWEEN", -1)
        with pytest.raises(ResidualError, match=f"unfinished' {message}"):
            stream_moments(same_encoder(), images, settings, checkpoint=root / "unfinished")
    assert sorted(files_of(root)) == ["ballast", "bases"]
    assert (root / "bases").read_bytes() == before


def test_a_disk_that_is_read_only(disk, whole):
    root = disk("size=4m")
    encode(root / "store", part=(1, 2))
    disk("ro")
    with pytest.raises(ResidualError, match=r"can't be written to \(Read-only file system\)"):
        encode(root / "store")
    with pytest.raises(ResidualError, match=r"can't be written to \(Read-only file system\)"):
        encode(root / "other")
    assert is_kept(root / "store", whole) == 24
    disk("rw")
    encode(root / "store")
    disk("ro")
    assert len(encode(root / "store")) == N  # there is nothing to do
    assert ResidualStore.open(root / "store").verify() == []
    same_files(files_of(root / "store"), whole)


def test_a_folder_that_is_closed(tmp_path):
    if os.name != "posix" or not os.geteuid():
        pytest.skip("nothing is closed to root")
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(ResidualError, match=r"can't be written to \(Permission denied\)"):
        encode(tmp_path / "closed" / "store")


def test_a_path_that_leads_through_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    for path in (tmp_path / "file", tmp_path / "file" / "store", tmp_path / "file" / "a" / "b"):
        with pytest.raises(ResidualError, match=r"can't be written to \((File exists|Not a directory)\)"):
            encode(path)
    assert files_of(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize(
    ("number", "message", "call"),
    [(28, FULL, "fsync"), (122, FULL, "replace"), (5, r"can't be written to \(Inp", "fsync")],
)
def test_errors_of_the_disk_at_any_step(tmp_path, monkeypatch, whole, number, message, call):
    """ENOSPC, EDQUOT and EIO, each at some call: quotas and network disks say it as late as at `fsync`."""
    real, seen = getattr(os, call), 0

    def failing(*args):
        nonlocal seen
        seen += 1
        if seen > 40:
            raise OSError(number, os.strerror(number))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(ResidualError, match=message):
            encode(tmp_path / "store")
    is_kept(tmp_path / "store", whole)
    encode(tmp_path / "store")
    same_files(files_of(tmp_path / "store"), whole)
