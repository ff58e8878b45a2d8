"""A dataset through an encoder: the same numbers as in one go, whatever the batch; bad images are named."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from store_files import NamedImages, float32_encoder
from tiny import TinyImages, random_pixels, tiny_encoder

from residual.data import PixelDataset
from residual.errors import ResidualError, UnreadableImageError
from residual.store.base import Store
from residual.store.encode import encode_dataset
from residual.tracing.decompose import decompose


def test_store_holds_what_decompose_gives():
    encoder, dataset = tiny_encoder(), TinyImages(n=21)
    store = encode_dataset(encoder, dataset, batch_size=8)
    pixels = encoder.pixels([dataset[index][0] for index in range(21)])
    whole = decompose(encoder, pixels)
    torch.testing.assert_close(store.contributions(), whole.contributions[:, 0])
    torch.testing.assert_close(store.output(), whole.output[:, 0])
    torch.testing.assert_close(store.contributions([3, 1], [5, 0]), whole.contributions[[3, 1], 0][:, [5, 0]])
    torch.testing.assert_close(store.contributions(slice(2, 4)), whole.contributions[2:4, 0])
    assert len(store) == 21
    assert store.labels.tolist() == dataset.labels.tolist()
    assert store.sample_ids == dataset.sample_ids
    assert store.class_names == dataset.class_names
    assert store.units.equals(whole.units)
    assert (store.encoder_name, store.fingerprint) == ("tiny", encoder.fingerprint)
    assert store.dataset == "tiny/train"
    assert [len(batch) for batch in store.batches(10)] == [10, 10, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_coordinates_are_kept_in_float32(dtype):
    store = encode_dataset(tiny_encoder(dtype=dtype), TinyImages(n=5))
    assert store.coordinates.z.dtype == torch.float32
    assert store.coordinates.std.dtype == torch.float32


def test_labels_and_groups_that_no_dataset_has_are_refused():
    """In the constructor; and where they are set afterwards, before anything is encoded."""
    pixels, ids = random_pixels(20), [str(index) for index in range(25)]
    good, names = np.arange(20) % 4, ["a", "b", "c", "d"]
    for labels, more, message in (
        (good[:15], {"sample_ids": ids[:15]}, r"has 15 labels but pixels of the shape \(20, 3, 32, 32\)"),
        (np.arange(25) % 4, {"sample_ids": ids}, "has 25 labels but pixels of the shape"),
        (good[:15], {}, "has 15 labels but pixels of the shape"),
        (good + 0.7, {}, r"needs labels that are whole numbers, one a sample; got float64"),
        (good[:, None], {}, r"got int64 of the shape \(20, 1\)"),
        (np.array(1), {}, r"got int64 of the shape \(\)"),
        (np.array([*good[:19], 2.5], object), {}, "got object of the shape"),
        (np.where(good == 2, -3, good), {}, "the label of '000002' is -3; there are names for 0 to 3"),
        (good + 96, {}, "the label of '000000' is 96; there are names for 0 to 3"),
        (
            good,
            {"groups": good, "group_names": ["x", "y"]},
            "the group of '000002' is 2; there are names for 0 ",
        ),
        (good, {"groups": good[:4]}, "has 20 labels but 4 groups"),
        (good, {"groups": good * 0.5, "group_names": names}, "needs groups that are whole numbers"),
    ):
        with pytest.raises(ResidualError, match=message):
            PixelDataset(pixels, labels, names, **more)
    for narrow in (good.astype(np.uint8), good.tolist(), torch.from_numpy(good), good.astype(object)):
        assert PixelDataset(pixels, narrow, names).labels.dtype == np.int64
    dataset = TinyImages(4)
    dataset.labels = dataset.labels + 3
    with pytest.raises(ResidualError, match="there are names for 0 to 3"):
        encode_dataset(tiny_encoder(), dataset)


def test_subset_keeps_samples_with_their_labels():
    store = encode_dataset(tiny_encoder(), TinyImages(n=12))
    part = store.subset([7, 2])
    torch.testing.assert_close(part.contributions(), store.contributions([7, 2]))
    assert part.labels.tolist() == store.labels[[7, 2]].tolist()
    assert part.sample_ids == ("tiny/7", "tiny/2")
    assert len(store.subset(np.arange(12) < 5)) == 5


def test_unreadable_images_stop_the_run_or_are_skipped_and_listed():
    dataset = TinyImages(n=20, broken=(0, 3, 4, 5, 19))
    with pytest.raises(UnreadableImageError, match="Image 'tiny/0' can't be read"):
        encode_dataset(tiny_encoder(), dataset, batch_size=3)
    store = encode_dataset(tiny_encoder(), dataset, batch_size=3, on_error="skip")
    assert store.skipped == ("tiny/0", "tiny/3", "tiny/4", "tiny/5", "tiny/19")
    good = [index for index in range(20) if index not in dataset.broken]
    assert store.labels.tolist() == dataset.labels[good].tolist()
    whole = encode_dataset(tiny_encoder(), TinyImages(n=20))
    torch.testing.assert_close(store.output(), whole.output()[good])


def test_what_is_kept_can_be_differentiated():
    store = encode_dataset(tiny_encoder(), TinyImages(n=6))
    z = store.coordinates.z.requires_grad_()
    store.contributions().sum().backward()
    assert z.grad.abs().sum() > 0


def test_progress_counts_samples():
    seen = []
    encode_dataset(
        tiny_encoder(),
        TinyImages(n=10),
        batch_size=4,
        progress=lambda _, done, total: seen.append((done, total)),
    )
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_bad_requests_are_refused():
    encoder = tiny_encoder()
    with pytest.raises(ResidualError, match="on_error is 'raise' or 'skip', got 'ignore'"):
        encode_dataset(encoder, TinyImages(), on_error="ignore")
    with pytest.raises(ResidualError, match="batch_size must be at least 1, got 0"):
        encode_dataset(encoder, TinyImages(), batch_size=0)
    with pytest.raises(ResidualError, match="Dataset tiny/train has no samples"):
        encode_dataset(encoder, TinyImages(n=0))
    with pytest.raises(ResidualError, match="None of the 3 images of tiny/train can be read"):
        encode_dataset(encoder, TinyImages(n=3, broken=(0, 1, 2)), on_error="skip")


def test_the_sum_is_checked_on_the_first_batch():
    encoder = tiny_encoder()
    encoder.module.vision_model.encoder.layers[0].register_forward_hook(
        lambda module, args, output: 2 * output
    )
    with pytest.raises(ResidualError, match="tiny: the sum of units misses"):
        encode_dataset(encoder, TinyImages())


def test_no_samples_have_no_contributions():
    store = encode_dataset(tiny_encoder(), TinyImages(n=4))
    assert store.contributions([]).shape == (0, len(store.units), 12)


def test_everything_that_a_store_says_is_the_same_in_memory_and_on_disk(tmp_path):
    """Encoded in memory, loaded from the disk, and parts of either: no field is lost on the way."""
    encoder, dataset = float32_encoder(), NamedImages(20, groups=True, broken=(4, 11))
    disk = encode_dataset(encoder, dataset, tmp_path / "store", dtype="float32", on_error="skip")
    memory = encode_dataset(encoder, dataset, on_error="skip")
    rows = [17, 3, 0]
    for one, other, at in (
        (memory, disk, range(18)),
        (disk.load(), disk, range(18)),
        (memory.subset(rows), disk, rows),
        (disk.load().subset(rows).subset([2, 0]), disk, [0, 17]),
    ):
        for field in fields(Store):
            got, expected = getattr(one, field.name), getattr(other, field.name)
            if field.name == "linearization":
                assert got.pack() == expected.pack()
            elif field.name in ("labels", "groups", "digests", "sample_ids"):
                assert list(got) == [expected[position] for position in at], field.name
                assert len(got) == len(at)
            else:
                assert got == expected, field.name
        assert (one.skipped, one.centering) == (("tiny/4", "tiny/11"), "shared")
        assert one.units.equals(other.units)
    assert disk.groups.tolist() == np.delete(dataset.groups, [4, 11]).tolist()
    assert set(disk.reasons.values()) == {"cut off"}
    assert 0 not in disk.digests
