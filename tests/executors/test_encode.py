"""A store that several processes write: byte for byte the one of a single process, whatever happens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from store_files import NamedImages, files_of, same_encoder, same_files, small_shards
from tiny import TinyImages, random_pixels
from watched_images import GoneImages, WatchedImages

from residual.data import PixelDataset, load_dataset
from residual.encoders.load import load_encoder
from residual.errors import ResidualError, TooManySkippedError, WorkerDiedError
from residual.executors import opened
from residual.spectral.fit import fit_bases, stream_moments
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.store.encoding import Allowance, Encoding
from residual.store.job import cut


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    small_shards(monkeypatch)


@pytest.fixture
def pictures(tmp_path):
    """A folder of image files, two of which can't be read."""
    images = TinyImages(60)
    for number in range(60):
        for split in ("train", "test")[: 1 + (number < 8)]:
            place = tmp_path / "pictures" / split / f"class {number % 2}" / f"{number:03d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            images[number][0].save(place)
            if number in (11, 41) and split == "train":
                place.write_bytes(place.read_bytes()[:90])
    return f"folder:{tmp_path / 'pictures'}"


def same_as_plain(folder: Path, encoder, dataset, executor, **how) -> ResidualStore:
    plain = encode_dataset(encoder, dataset, folder / "plain", batch_size=4, **how)
    told: list[tuple[int, int]] = []
    store = encode_dataset(
        encoder, dataset, folder / "elsewhere", batch_size=4, executor=executor,
        progress=lambda _, done, total: told.append((done, total)), **how,
    )  # fmt: skip
    same_files(files_of(folder / "elsewhere"), files_of(folder / "plain"))
    assert told == sorted(told)
    assert (told[0][0], told[-1]) == (0, (len(dataset), len(dataset)))
    assert store.reasons == plain.reasons
    return store


def test_files_with_some_that_cannot_be_read(processes, pictures, tmp_path, monkeypatch):
    processes.workers()  # which begin in another folder
    monkeypatch.chdir(tmp_path)
    dataset = load_dataset("folder:pictures", "train")
    store = same_as_plain(Path(), load_encoder("picto", "cpu"), dataset, processes, on_error="skip")
    assert len(store.skipped) == 2


def test_left_out_may_be_so_many_over_all_tasks(here, tmp_path):
    few = {"on_error": "skip", "allowance": Allowance(number=1), "batch_size": 4, "executor": here}
    with pytest.raises(TooManySkippedError, match=r"2 images of .* can't be read"):
        encode_dataset(same_encoder(), TinyImages(40, broken=(3, 35)), tmp_path / "few", **few)
    assert len(ResidualStore.open(tmp_path / "few", cut_off=True)) > 0


def test_pixels_in_memory_and_a_part_of_a_store(processes, here, tmp_path):
    pixels = random_pixels(90, dtype=torch.float32)
    dataset = PixelDataset(pixels, [0, 1] * 45, ["one", "other"])
    same_as_plain(tmp_path, same_encoder(), dataset, processes)
    for number in (2, 1):
        how = {"part": (number, 2), "batch_size": 4, "executor": here}
        store = encode_dataset(same_encoder(), dataset, tmp_path / "parts", **how)
    assert store.complete
    same_files(files_of(tmp_path / "parts"), files_of(tmp_path / "plain"))


def test_a_worker_that_is_killed_loses_nothing(processes, tmp_path):
    dataset = WatchedImages(64, tmp_path, pause=0.02, deadly=60)
    with opened("processes:1") as alone, pytest.raises(WorkerDiedError, match="ended in the middle of its"):
        encode_dataset(same_encoder(), dataset, tmp_path / "elsewhere", batch_size=4, executor=alone)
    kept = ResidualStore.open(tmp_path / "elsewhere", cut_off=True)
    assert 0 < len(kept) < 64
    encode_dataset(same_encoder(), dataset, tmp_path / "elsewhere", batch_size=4, executor=processes)
    encode_dataset(same_encoder(), dataset, tmp_path / "plain", batch_size=4)
    same_files(files_of(tmp_path / "elsewhere"), files_of(tmp_path / "plain"))


def test_a_picture_that_can_be_read_again_comes_in(here, tmp_path):
    broken, mended = NamedImages(40, groups=True), NamedImages(40, groups=True)
    broken.broken = (13,)
    how = {"on_error": "skip", "batch_size": 4}
    encode_dataset(same_encoder(), broken, tmp_path / "elsewhere", **how)
    encode_dataset(same_encoder(), mended, tmp_path / "elsewhere", executor=here, **how)
    encode_dataset(same_encoder(), mended, tmp_path / "plain", **how)
    same_files(files_of(tmp_path / "elsewhere"), files_of(tmp_path / "plain"))


def test_files_that_a_worker_does_not_see_are_named(here, tmp_path):
    with pytest.raises(ResidualError, match=r"there is no 'tiny/0' of tiny/train .*must see the same files"):
        encode_dataset(same_encoder(), GoneImages(20), tmp_path / "store", executor=here, on_error="skip")


def test_bases_are_merged_from_tasks(here, tmp_path):
    dataset = TinyImages(50, broken=(21,))
    how = {"on_error": "skip", "batch_size": 4}
    stores = [encode_dataset(same_encoder(), dataset, tmp_path / "one", **how)]
    stores += [encode_dataset(same_encoder(), TinyImages(30, seed=1), **how)]
    told: list[tuple[int, int]] = []
    got = fit_bases(stores, executor=here, progress=lambda _, *how: told.append(how))
    close(got, fit_bases(stores))
    assert told[-1] == (79, 79)
    settings = Encoding(kinds=("head",), **how)
    moments = stream_moments(same_encoder(), dataset, settings, executor=here)
    alone = stream_moments(same_encoder(), dataset, settings)
    close(moments.compute(), alone.compute())
    assert moments.progress == alone.progress


def close(got, expected):
    assert got.origin == expected.origin
    for one, other in zip(got.eigenvalues, expected.eigenvalues, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_an_executor_needs_a_place(here):
    with pytest.raises(ResidualError, match="place that all of them reach"):
        encode_dataset(same_encoder(), TinyImages(8), executor=here)


def test_work_is_cut_evenly():
    assert [len(part) for part in cut(range(100), 100_000, 8)] == [12, 13, 12, 13] * 2
    assert len(cut(range(1000), 1_000_000, 8)) == 32
    assert cut(range(3), 3_000, 8) == [range(0, 1), range(1, 2), range(2, 3)]
