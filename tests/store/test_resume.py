"""A store that is gone on with is of the same images, and what couldn't be read is tried again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from store_files import NamedImages, files_of, same_encoder, same_files, small_shards
from tiny import random_pixels

from residual.data import PixelDataset
from residual.errors import OtherResultError, ResidualError, UnreadableImageError
from residual.hashing import row_sums
from residual.spectral import stream_moments
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.store.forward import Encoding
from residual.store.resume import spread
from residual.store.storage import Storage
from residual.tensor_files import load_tensors, save_tensors

N = 70


@pytest.fixture(autouse=True)
def shards(monkeypatch):
    small_shards(monkeypatch, 16)


def images(*replaced: int, broken: tuple[int, ...] = ()):
    made = NamedImages(N, broken=broken)
    made.images[list(replaced)] ^= 1
    return made


def encode(path, dataset, **how):
    return encode_dataset(same_encoder(), dataset, path, batch_size=16, **how)


def test_other_images_of_the_same_names_are_refused(tmp_path):
    """In a store that is complete and in one that isn't; some of them are looked at, or all."""
    for part in ((1, 1), (1, 2)):
        path = tmp_path / str(part[1])
        encode(path, images(), part=part)
        before = files_of(path)
        with pytest.raises(OtherResultError, match="'tiny/0' is another image than the one that was encoded"):
            encode(path, images(*range(N)))
        if part == (1, 1):
            unseen = min(set(range(N)) - set(spread(range(N)).tolist()))
            assert len(encode(path, images(unseen))) == N
            with pytest.raises(OtherResultError, match=f"'tiny/{unseen}' is another image"):
                encode(path, images(unseen), check="all")
        same_files(files_of(path), before)
        assert len(encode(path, images(), check="all")) == N
    same_files(files_of(tmp_path / "2"), files_of(tmp_path / "1"))
    with pytest.raises(ResidualError, match="check is 'some' or 'all', got 'none'"):
        encode(tmp_path / "1", images(), check="none")


def test_images_that_are_looked_at_are_spread_evenly():
    assert spread(range(1000)).tolist() == sorted(set(np.linspace(0, 999, 64).round().astype(int)))
    assert spread([5, 7, 9]).tolist() == [5, 7, 9]
    assert spread([]).tolist() == []


def test_other_pixels_are_refused(tmp_path):
    """Pixels have no file: their bits, as the encoder takes them, tell them apart."""
    pixels = random_pixels(20, dtype=torch.float32)

    def dataset(values):
        return PixelDataset(values, np.zeros(20, int), ["a"])

    store = encode(tmp_path / "a", dataset(pixels))
    assert store.digests.tolist() == row_sums(pixels).numpy().view(np.uint64).tolist()
    assert encode(tmp_path / "a", dataset(pixels.double())).digests.tolist() == store.digests.tolist()
    for change in (lambda x: x.neg(), lambda x: x.flip(3), lambda x: torch.cat([x[:19], x[:1]])):
        with pytest.raises(OtherResultError, match="is another image than the one that was encoded"):
            encode(tmp_path / "a", dataset(change(pixels)))
    for wrong in (np.nan, np.inf):
        pixels[7, 1, 3, 4] = wrong
        with pytest.raises(ResidualError, match="The pixels of '000007' hold NaN or infinity"):
            encode(None, dataset(pixels))


def test_row_sums_see_every_bit_and_every_exchange():
    for dtype, width in ((torch.float32, 7), (torch.bfloat16, 3), (torch.float64, 4), (torch.uint8, 5)):
        rows = (100 * torch.rand(1, width, generator=torch.Generator().manual_seed(0))).to(dtype)
        bits = rows.view(torch.uint8).clone()
        changed = [bits.clone() for _ in range(8 * bits.numel())]
        for number, each in enumerate(changed):
            each[0, number // 8] ^= 1 << number % 8
        whole = torch.cat([bits, *changed]).view(dtype)
        assert len(set(row_sums(whole).tolist())) == len(whole)
        assert row_sums(whole[3:4]).tolist() == row_sums(whole).tolist()[3:4]
        assert 0 not in row_sums(torch.zeros_like(rows)).tolist()
        assert row_sums(rows.flip(1)).item() != row_sums(rows).item()


def test_what_could_not_be_read_is_tried_again(tmp_path):
    """Shards of samples that can be read now are made again; with "raise" one that still can't be stops."""
    path, whole = tmp_path / "store", tmp_path / "whole"
    encode(path, images(broken=(3, 40, 41)), on_error="skip")
    before = files_of(path)
    with pytest.raises(UnreadableImageError, match="Image 'tiny/3' can't be read"):
        encode(path, images(broken=(3, 40)))
    assert len(encode(path, images(broken=(3, 40, 41)), on_error="skip")) == N - 3
    same_files(files_of(path), before)
    store = encode(path, images(broken=(3, 40)), on_error="skip")
    assert store.skipped == ("tiny/3", "tiny/40")
    after = files_of(path)
    changed = [name for name in after if after[name] != before[name] and "/c/" in name]
    assert {name.split("/c/")[1][0] for name in changed} == {"2"}
    encode(whole, images(broken=(3, 40)), on_error="skip")
    same_files(files_of(path), files_of(whole))
    assert len(encode(path, images())) == N
    assert ResidualStore.open(path).verify() == []


def test_a_shard_that_is_made_again_has_no_receipt_while_it_is(tmp_path, monkeypatch):
    path = tmp_path / "store"
    encode(path, images(broken=(20,)), on_error="skip")
    real, left = Storage.write, [3]

    def failing(self, name, data):
        left[0] -= 1
        if not left[0]:
            raise ResidualError("enough")
        real(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", failing)
        with pytest.raises(ResidualError, match="enough"):
            encode(path, images())
    store = ResidualStore.open(path, cut_off=True)
    assert len(store) == N - 16
    assert [damage.file for damage in store.verify()] == ["receipts/000001.json"]
    assert len(encode(path, images())) == N


def test_an_image_that_is_gone(tmp_path):
    encode(tmp_path / "store", images())
    with pytest.raises(UnreadableImageError, match="Image 'tiny/0' can't be read"):
        encode(tmp_path / "store", images(broken=(0,)))
    assert len(encode(tmp_path / "store", images(broken=(0,)), on_error="skip")) == N


def test_no_path_of_this_machine_is_in_a_store(tmp_path):
    """Nor in what is made of it; a store that has one, as of version 0.1, is gone on with."""

    def named(name):
        dataset = images()
        dataset.name = name
        return dataset

    path = tmp_path / "store"
    store = encode(path, named("folder:/data/me/pics"), part=(1, 2))
    memory = encode(None, named("folder:/data/me/pics"))
    assert store.dataset == memory.dataset == "folder:pics/train"
    assert not [name for name, data in files_of(path).items() if b"/data/me" in data]
    with pytest.raises(OtherResultError, match="dataset folder:pics/train, not folder:other/train"):
        encode(path, named("folder:/data/me/other"))
    identity = store.manifest.identity
    identity["dataset"]["name"] = "folder:/data/me/pics"  # as it was written until now
    for receipt in (path / "receipts").iterdir():
        receipt.unlink()
    (path / "manifest.json").write_bytes(replace(store.manifest, identity=identity).pack())
    assert ResidualStore.open(path, cut_off=True).dataset == "folder:pics/train"
    assert len(encode(path, named("folder:/mnt/pics"))) == N
    assert ResidualStore.open(path).manifest.identity["dataset"]["name"] == "folder:/data/me/pics"
    moments = stream_moments(same_encoder(), named("folder:/data/me/pics"), Encoding())
    assert moments.origin.datasets == ("folder:pics/train",)


def test_moments_go_on_with_the_same_images_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("residual.spectral.fit.SECONDS_BETWEEN", -1)

    def moments(dataset, stop=N, on_error="skip"):
        def progress(_, done, total):
            if done >= stop:
                raise KeyboardInterrupt

        settings = Encoding(batch_size=16, on_error=on_error)
        return stream_moments(
            same_encoder(), dataset, settings, checkpoint=tmp_path / "kept", progress=progress
        )

    with pytest.raises(KeyboardInterrupt):
        moments(images(broken=(3, 9)), stop=40)
    kept, note = load_tensors(tmp_path / "kept", "moments")
    for change, message in (
        ({"done": -4}, "number of images that are done isn't from 0 to 70"),
        ({"done": 10**9}, "number of images that are done isn't from 0 to 70"),
        ({"done": 16}, "moments of another number of images"),
        ({"done": "x"}, "'done' is of another type"),
        ({"digests": [[1]]}, "digests of none of its images"),
        ({"digests": [[69, 1]]}, "digests of none of its images"),
        ({"digests": [[1, -1]]}, "digests of none of its images"),
    ):
        save_tensors(tmp_path / "kept", "moments", kept, {**note, "progress": note["progress"] | change})
        with pytest.raises(ResidualError, match=message):
            moments(images(broken=(3, 9)))
    save_tensors(tmp_path / "kept", "moments", kept, note)
    with pytest.raises(OtherResultError, match="kept' holds something else: 'tiny/0' is another image"):
        moments(images(*range(N)))
    with pytest.raises(UnreadableImageError, match="Image 'tiny/3' can't be read"):
        moments(images(broken=(3, 9)), on_error="raise")
    done = moments(images(broken=(9,)), stop=N + 1)
    assert done.origin.samples == N - 1
    assert done.progress["skipped"] == {"tiny/9": "cut off"}
