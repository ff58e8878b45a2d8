"""A store on disk gives back what went in, by any slice, and refuses whatever isn't its own."""

from __future__ import annotations

import json
import secrets
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from families import CASES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_files import (
    NamedImages,
    files_at,
    files_of,
    float32_encoder,
    same_coordinates,
    same_files,
    small_shards,
)
from tiny import TinyImages, random_pixels, tiny_encoder

from residual.data import PixelDataset
from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError, UnreadableImageError
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.tracing.decompose import decompose
from residual.tracing.trace import trace

N = 21
HALF = {"rtol": 2**-11, "atol": 2**-25}  # what rounding to float16 does to a number: half of its last place


@pytest.fixture(scope="module")
def memory():
    return encode_dataset(float32_encoder(), TinyImages(N), batch_size=8)


@pytest.fixture(scope="module", params=["float16", "float32"])
def disk(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch)
        path = tmp_path_factory.mktemp("store") / request.param
        return encode_dataset(float32_encoder(), TinyImages(N), path, dtype=request.param, batch_size=8)


@pytest.fixture
def address():
    """An address in memory that nobody else has."""
    return f"memory://{secrets.token_hex(8)}/store"


def pixel_dataset(n: int = 11, dtype: torch.dtype = torch.float32) -> PixelDataset:
    return PixelDataset(random_pixels(n, dtype=dtype), np.arange(n) % 3, ["a", "b", "c"])


# What is read


def test_coordinates_are_those_in_memory(disk, memory):
    kept = disk.layout.arrays["z"].dtype
    got = disk.read()
    assert {str(value.dtype) for value in (got.z, got.mlp, got.emb)} == {f"torch.{kept}"}
    assert {got.mean.dtype, got.std.dtype} == {torch.float32}
    same_coordinates(got, memory.coordinates, **(HALF if kept == "float16" else {"rtol": 0, "atol": 0}))
    for exact in ("mean", "std"):
        assert torch.equal(getattr(got, exact), getattr(memory.coordinates, exact))
    rounded = memory.coordinates.to(dtype=getattr(torch, kept))
    same_coordinates(got, replace(rounded, mean=got.mean, std=got.std))


def test_contributions_are_those_of_decompose(disk):
    encoder, dataset = float32_encoder(), TinyImages(N)
    whole = decompose(encoder, encoder.pixels([dataset[index][0] for index in range(N)]))
    size = whole.contributions.abs().max().item()
    near = {"rtol": 0, "atol": (1e-3 if disk.layout.arrays["z"].dtype == "float16" else 1e-6) * size}
    torch.testing.assert_close(disk.contributions(), whole.contributions[:, 0], **near)
    torch.testing.assert_close(disk.output(), whole.output[:, 0], rtol=0, atol=10 * near["atol"])
    assert disk.units.equals(whole.units)


def test_float16_is_really_narrower(disk, memory):
    miss = (disk.contributions() - memory.contributions()).abs().max().item()
    assert (miss > 0) == (disk.layout.arrays["z"].dtype == "float16")


def test_what_it_is_of(disk, memory):
    for name in ("sample_ids", "class_names", "dataset", "encoder_name", "fingerprint", "pooling", "kinds"):
        assert getattr(disk, name) == getattr(memory, name), name
    assert disk.labels.dtype == np.int64
    assert disk.labels.tolist() == memory.labels.tolist()
    assert disk.centering == memory.centering == "shared"
    assert (disk.skipped, disk.reasons, disk.groups) == ((), {}, None)
    dataset = TinyImages(N)
    assert disk.digests.tolist() == [dataset.load_with_digest(index)[1] for index in range(N)]
    assert (len(disk), disk.complete, disk.layout.shards) == (N, True, 3)
    assert repr(disk).endswith("tiny/train by tiny, 21 samples>")


def test_load_is_the_store_in_memory(disk, memory):
    loaded = disk.load()
    assert loaded.coordinates.z.dtype == torch.float32
    same_coordinates(loaded.coordinates, disk.read())
    torch.testing.assert_close(loaded.contributions(), disk.contributions(), rtol=0, atol=0)
    torch.testing.assert_close(loaded.output(), disk.output())
    assert loaded.labels.tolist() == memory.labels.tolist()
    assert (loaded.sample_ids, loaded.dataset) == (memory.sample_ids, memory.dataset)
    assert loaded.units.equals(memory.units)


SELECTIONS = [
    slice(None),
    slice(3, 7),
    slice(7, 9),  # over the border of a shard
    slice(None, None, 5),
    slice(None, None, -1),
    slice(50, 60),
    slice(-4, None),
    [0],
    [20, 0, 13],
    [5, 5, 5, 2, 5],
    [-1, -21],
    (1, 17, 3),
    range(4, 18, 3),
    [],
    (),
    np.array([], np.int64),
    np.array([9, 8], np.int32),
    np.arange(N) % 4 == 1,
    [index in (2, 19) for index in range(N)],
    np.zeros(N, bool),
    np.ones(N, bool),
]


def test_any_selection_of_samples(disk):
    whole = disk.load()
    everything, contributions = disk.read(), whole.contributions()
    for samples in SELECTIONS:
        chosen = list(range(N))[samples] if isinstance(samples, slice) else list(samples)
        if chosen and isinstance(chosen[0], bool | np.bool_):
            chosen = [position for position, wanted in enumerate(chosen) if wanted]
        chosen = [int(position) % N for position in chosen]
        same_coordinates(disk.read(samples), everything[chosen])
        assert whole.subset(samples).sample_ids == tuple(disk.sample_ids[position] for position in chosen)
        if chosen:
            got = disk.contributions(samples)
            torch.testing.assert_close(got, contributions[chosen], rtol=0, atol=1e-5)
            torch.testing.assert_close(whole.contributions(samples), got, rtol=0, atol=1e-5)


def test_any_selection_of_units(disk):
    whole = disk.load().contributions()
    backwards, every = np.arange(16)[::-1], list(range(16))
    for units in ([0], [4], [15, 0, 3], [9, 9], [], [1, 2, 3], backwards, every, (8, 12)):
        for samples in (None, [20, 3, 3], slice(6, 10)):
            rows = np.arange(N) if samples is None else np.arange(N)[samples].astype(int)
            got = disk.contributions(samples, units)
            assert got.shape == (len(rows), len(units), 12)
            torch.testing.assert_close(got, whole[rows.tolist()][:, list(units)], rtol=0, atol=1e-5)


def test_what_isnt_there_is_refused(disk):
    with pytest.raises(ResidualError, match=r"Units are 0 to 15, got \[16\]"):
        disk.contributions(units=[16])
    with pytest.raises(ResidualError, match=r"Units are 0 to 15, got \[-1\]"):
        disk.contributions(units=[-1])
    with pytest.raises(IndexError, match="21 is out of bounds"):
        disk.read([21])
    with pytest.raises(ResidualError, match="Unknown kinds of unit: 'heads'"):
        disk.read(kinds=["heads"])
    with pytest.raises(ResidualError, match="Unknown kinds of unit: 'z'"):
        disk.batches(kinds=["z"])
    with pytest.raises(ResidualError, match="No kind of unit was given"):
        disk.read(kinds=[])


def test_batches_come_in_order(disk):
    whole = disk.read()
    for size in (1, 8, 20, 21, 1000):
        for prefetch in (0, 1, 3):
            parts = list(disk.batches(size, prefetch=prefetch))
            assert [len(part) for part in parts] == [min(size, N - start) for start in range(0, N, size)]
            for start, part in zip(range(0, N, size), parts, strict=True):
                same_coordinates(part, whole[start : start + size])


def test_batches_of_some_kinds_and_an_early_end(disk):
    for part in disk.batches(5, kinds="mlp"):
        assert part.z is None
        assert part.emb is None
        assert part.mlp.shape[1:] == (3, 32)
        break
    assert sum(len(part) for part in disk.batches(5, kinds=("head", "emb"))) == N


def test_batches_of_no_size_are_refused(disk, memory):
    for store in (disk, memory):
        with pytest.raises(ResidualError, match="size must be at least 1, got -5"):
            list(store.batches(-5))


def test_zarr_alone_reads_the_same(disk):
    group = zarr.open_group(Path(disk.storage.address), mode="r", zarr_format=3)
    for name in ("z", "mlp", "emb", "mean", "std"):
        np.testing.assert_array_equal(group[name][...], getattr(disk.read(), name).numpy())
        assert group[name].shards[0] == 8
    assert group["label"][...].tolist() == disk.labels.tolist()
    assert group["digest"][...].tolist() == disk.digests.tolist()
    text, ends = group["sample_id"][...].tobytes(), group["sample_id_end"][...].tolist()
    assert tuple(text[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)) == disk.sample_ids


def test_every_chunk_has_its_checksum(disk):
    root = Path(disk.storage.address)
    for about in root.glob("*/zarr.json"):
        [sharding] = json.loads(about.read_text())["codecs"]
        assert sharding["name"] == "sharding_indexed"
        for codecs in ("codecs", "index_codecs"):
            assert sharding["configuration"][codecs][-1]["name"] == "crc32c"


# Families and poolings


FAMILIES = [
    ("clip", "own"),
    ("clip", "all"),
    ("clip", "patches"),
    ("clip", "avg"),
    ("clip", "token:2"),
    ("open_clip average", "own"),
    ("open_clip norm after average", "own"),
    ("siglip", "own"),
    ("siglip", "all"),
    ("timm attention pool past a class token", "own"),
    ("timm attention pool past a class token", "patches"),
    ("timm average of normed", "own"),
    ("dinov2 registers", "cls"),
    ("dinov2 registers", "patches"),
    ("dinov2 registers", "avg:all"),
    ("aimv2", "own"),
    ("timm deit classifiers", "own"),
]


@pytest.mark.parametrize(
    ("name", "pooling", "centering"),
    [(*case, ("shared", "own")[place % 2]) for place, case in enumerate(FAMILIES)],
)
def test_every_family_and_pooling(tmp_path, monkeypatch, name, pooling, centering):
    small_shards(monkeypatch, 4)
    encoder, dataset = wrap_encoder(CASES[name].make(), centering, name=name), pixel_dataset()
    how = {"pooling": pooling, "batch_size": 4}
    memory = encode_dataset(encoder, dataset, **how)
    exact = encode_dataset(encoder, dataset, tmp_path / "exact", dtype="float32", **how)
    narrow = encode_dataset(encoder, dataset, tmp_path / "narrow", **how)
    same_coordinates(exact.read(), memory.coordinates)
    same_coordinates(narrow.read(), memory.coordinates, **HALF)
    pixels = dataset.pixels
    expected = decompose(encoder, pixels, pooling).contributions
    if not pooling.startswith(("all", "patches")):
        expected = expected[:, 0]
    size = expected.abs().max().item()
    for store, miss in ((exact, 2e-6), (narrow, 3e-3)):
        torch.testing.assert_close(store.contributions(), expected, rtol=0, atol=miss * size)
        torch.testing.assert_close(
            store.output(), trace(encoder, pixels, pooling=pooling)[1], rtol=0, atol=10 * miss * size
        )
        assert store.verify() == []
    last = len(exact.units) - 1
    for units in ([0], [2], [3], [last, 1, 3], [0, last]):
        got = exact.contributions([10, 2, 2], units)
        torch.testing.assert_close(
            got, exact.contributions()[[10, 2, 2]][..., units, :], rtol=0, atol=1e-6 * size
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_encoders_in_other_precisions(tmp_path, dtype):
    encoder, dataset = tiny_encoder(dtype=dtype), TinyImages(9)
    memory = encode_dataset(encoder, dataset)
    store = encode_dataset(encoder, dataset, tmp_path / "store", dtype="float32")
    same_coordinates(store.read(), memory.coordinates.to(dtype=torch.float32))
    assert store.contributions().dtype == torch.float32
    narrow = encode_dataset(encoder, dataset, tmp_path / "narrow")
    same_coordinates(narrow.read(), memory.coordinates, **HALF)
    assert store.manifest.identity["encoder"]["precision"] == str(dtype).removeprefix("torch.")


# Kinds


@pytest.mark.parametrize(
    "kinds", [("emb",), ("mlp",), ("head",), ("emb", "mlp"), ("head", "mlp"), ("emb", "mlp", "head")]
)
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_only_some_kinds_are_kept(tmp_path, kinds, name):
    encoder, dataset = wrap_encoder(CASES[name].make(), name=name), pixel_dataset(5)
    store = encode_dataset(encoder, dataset, tmp_path / "store", kinds=kinds, dtype="float32")
    memory = encode_dataset(encoder, dataset)
    same_coordinates(store.read(), memory.coordinates.only(kinds))
    same_coordinates(next(store.batches(3)), memory.coordinates.only(kinds)[:3])
    assert sorted(store.kinds) == sorted(kinds)
    assert len(store.units) == len(memory.units)
    whole = memory.contributions()
    for kind in ("emb", "mlp", "head"):
        units = store.units["unit"][store.units["kind"] == kind].tolist()
        if kind in kinds:
            torch.testing.assert_close(store.contributions(units=units), whole[:, units])
            continue
        with pytest.raises(ResidualError, match=f"no units of kind '{kind}'"):
            store.contributions(units=units)
        with pytest.raises(ResidualError, match=f"without units of kind {kind}; it keeps {store.kinds[0]}"):
            store.batches(kinds=[kind])
        with pytest.raises(ResidualError, match=f"without units of kind {kind}; it keeps {store.kinds[0]}"):
            store.read(kinds=kind)
    if len(kinds) < 3:
        with pytest.raises(ResidualError, match="kept without"):
            store.contributions()
        with pytest.raises(ResidualError, match="kept without"):
            store.output()
    names = {path.name for path in (tmp_path / "store").iterdir()}
    for array, kind in (("emb", "emb"), ("mlp", "mlp"), ("z", "head")):
        assert (array in names) == (kind in kinds)


def test_the_order_of_kinds_doesnt_matter(tmp_path):
    encoder, dataset = float32_encoder(), TinyImages(5)
    encode_dataset(encoder, dataset, tmp_path / "a", kinds=("mlp", "head"))
    before = files_of(tmp_path / "a")
    store = encode_dataset(encoder, dataset, tmp_path / "a", kinds=("head", "mlp"))
    assert len(store) == 5
    encode_dataset(encoder, dataset, tmp_path / "b", kinds=["head", "mlp", "head"])
    same_files(files_of(tmp_path / "a"), before)
    same_files(files_of(tmp_path / "b"), before)


# Samples


@settings(max_examples=9, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_sizes_and_broken_images(tmp_path, monkeypatch, data):
    n = data.draw(st.integers(1, 40), "n")
    batch = data.draw(st.integers(1, 50), "batch_size")
    monkeypatch.setattr("residual.store.layout.MOST_ROWS", data.draw(st.integers(1, 40), "rows"))
    monkeypatch.setattr("residual.store.layout.SHARD_BYTES", data.draw(st.sampled_from([1, 3000, 2**26])))
    monkeypatch.setattr("residual.store.layout.CHUNK_BYTES", data.draw(st.sampled_from([1, 100, 2**20])))
    broken = tuple(sorted(data.draw(st.sets(st.integers(0, n - 1), max_size=n - 1), "broken")))
    dataset = TinyImages(n, broken=broken)
    encoder = float32_encoder(layers=2, heads=2, head_width=4)
    memory = encode_dataset(encoder, dataset, batch_size=batch, on_error="skip")
    path = tmp_path / secrets.token_hex(8)
    store = encode_dataset(encoder, dataset, path, dtype="float32", batch_size=batch, on_error="skip")
    assert store.complete
    assert store.verify() == []
    assert store.sample_ids == memory.sample_ids
    assert store.labels.tolist() == memory.labels.tolist()
    assert store.skipped == memory.skipped
    assert store.reasons == {f"tiny/{index}": "cut off" for index in broken}
    good = [index for index in range(n) if index not in broken]
    assert store.digests.tolist() == [dataset.load_with_digest(index)[1] for index in good]
    same_coordinates(store.read(), memory.coordinates, rtol=1e-5, atol=1e-5)
    rows = data.draw(st.lists(st.integers(-len(good), len(good) - 1), min_size=1, max_size=8), "samples")
    units = data.draw(st.lists(st.integers(0, 6), max_size=4), "units")
    torch.testing.assert_close(
        store.contributions(rows, units), memory.contributions()[rows][:, units], rtol=0, atol=1e-4
    )
    before = files_of(path)
    assert len(ResidualStore.open(path)) == len(good)
    encode_dataset(encoder, dataset, path, dtype="float32", batch_size=batch, on_error="skip")
    same_files(files_of(path), before)


def test_an_unreadable_image_stops_the_run_and_skipping_goes_on(tmp_path, monkeypatch):
    small_shards(monkeypatch, 4)
    dataset, encoder = TinyImages(19, broken=(9,)), float32_encoder()
    with pytest.raises(UnreadableImageError, match="Image 'tiny/9' can't be read"):
        encode_dataset(encoder, dataset, tmp_path / "store", batch_size=2)
    part = ResidualStore.open(tmp_path / "store", cut_off=True)
    assert len(part) in (4, 8)  # whole shards ahead of it; what the encoder is at is lost
    assert part.sample_ids == dataset.sample_ids[: len(part)]
    encode_dataset(encoder, dataset, tmp_path / "store", batch_size=2, on_error="skip")
    encode_dataset(encoder, dataset, tmp_path / "at once", batch_size=2, on_error="skip")
    same_files(files_of(tmp_path / "store"), files_of(tmp_path / "at once"))


def test_nothing_that_can_be_read(tmp_path):
    with pytest.raises(ResidualError, match="None of the 3 images of tiny/train can be read"):
        encode_dataset(float32_encoder(), TinyImages(3, broken=(0, 1, 2)), tmp_path / "a", on_error="skip")
    with pytest.raises(ResidualError, match="Dataset tiny/train has no samples"):
        encode_dataset(float32_encoder(), TinyImages(0), tmp_path / "b")
    assert not (tmp_path / "b").exists()
    store = ResidualStore.open(tmp_path / "a")
    assert (len(store), store.skipped) == (0, ("tiny/0", "tiny/1", "tiny/2"))
    assert store.read().z.shape == (0, 3, 4, 8)
    assert list(store.batches()) == []
    assert store.verify() == []


IDS = [
    "",
    " ",
    "a/b.png",
    "Größe/日本語/🌻.png",
    "nul\0nul",
    "line\nline",
    "x" * 100_000,
    "e\u0301",
    "\u00e9",
    "un\udcffencodable",
    '"quotes\\"',
    "",
]


@pytest.mark.parametrize("ids", [IDS, ["", ""], [""], ["\udcff"]], ids=["many", "empty", "one empty", "byte"])
def test_ids_of_any_kind(tmp_path, ids):
    dataset = NamedImages(len(ids), ids)
    store = encode_dataset(float32_encoder(), dataset, tmp_path / "store")
    assert store.sample_ids == tuple(ids)
    again = ResidualStore.open(tmp_path / "store")
    assert again.sample_ids == tuple(ids)
    assert again.verify() == []


def test_groups_are_kept_and_read(tmp_path):
    dataset = NamedImages(10, groups=True, broken=(4,))
    store = encode_dataset(float32_encoder(), dataset, tmp_path / "store", on_error="skip")
    good = [index for index in range(10) if index != 4]
    assert store.groups.tolist() == dataset.groups[good].tolist()
    assert store.group_names == ("one", "two", "three")


def test_pixels_in_memory(tmp_path):
    encoder, dataset = float32_encoder(), pixel_dataset()
    store = encode_dataset(encoder, dataset, tmp_path / "store", dtype="float32", batch_size=4)
    torch.testing.assert_close(store.contributions(), decompose(encoder, dataset.pixels).contributions[:, 0])
    assert len(set(store.digests.tolist())) == 11
    assert store.sample_ids[:2] == ("000000", "000001")


def test_a_number_too_large_for_float16_names_its_sample(tmp_path, monkeypatch):
    small_shards(monkeypatch, 4)
    encoder, dataset = wrap_encoder(CASES["vit"].make(), name="vit"), pixel_dataset()
    dataset.pixels[6] *= 1e6
    how = {"pooling": "avg", "batch_size": 4}
    with pytest.raises(ResidualError, match=r"coordinates of '000006' aren't finite.*keep them in float32"):
        encode_dataset(encoder, dataset, tmp_path / "narrow", **how)
    assert len(ResidualStore.open(tmp_path / "narrow", cut_off=True)) == 4
    wide = encode_dataset(encoder, dataset, tmp_path / "wide", dtype="float32", **how)
    assert wide.read().emb[6].abs().max() > 65504


# Where


def test_paths_of_every_form_hold_the_same(tmp_path, address, monkeypatch):
    small_shards(monkeypatch)
    encoder, dataset = float32_encoder(), TinyImages(N)
    expected = None
    for place in (tmp_path / "path", str(tmp_path / "text"), f"file://{tmp_path}/file", address):
        made = encode_dataset(encoder, dataset, place)
        store = ResidualStore.open(place)
        assert store.complete
        assert store.verify() == []
        assert store.sample_ids == dataset.sample_ids
        torch.testing.assert_close(store.contributions(), made.contributions(), rtol=0, atol=0)
        got = files_at(address) if place == address else files_of(str(place).removeprefix("file://"))
        expected = expected or got
        same_files(got, expected)
    assert len(expected) == 16 + 3 * 7  # what isn't of samples; receipts and six arrays


def test_nested_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encode_dataset(float32_encoder(), TinyImages(3), "not/there/yet")
    assert len(ResidualStore.open(tmp_path / "not" / "there" / "yet")) == 3
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(ResidualStore.open("~/not/there/yet")) == 3
    (tmp_path / "with [brackets] * and ?").mkdir()
    store = encode_dataset(float32_encoder(), TinyImages(3), tmp_path / "with [brackets] * and ?")
    assert store.verify() == []


def test_no_store_there(tmp_path, address):
    with pytest.raises(ResidualError, match=r"There is no store at .*holds no manifest\.json"):
        ResidualStore.open(tmp_path)
    with pytest.raises(ResidualError, match=r"There is no store at 'memory://"):
        ResidualStore.open(address)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResidualError, match="There is no store at"):
        ResidualStore.open(tmp_path / "file")
    with pytest.raises(ResidualError, match="There is no store at"):
        ResidualStore.open(tmp_path / "file" / "below")
    with pytest.raises(ResidualError, match="'nowhere://x' is no address that is read"):
        ResidualStore.open("nowhere://x")


def test_a_folder_with_foreign_files_is_refused(tmp_path, address):
    encoder, dataset = float32_encoder(), TinyImages(3)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "dog.png").write_bytes(b"x")
    with pytest.raises(ResidualError, match=r"isn't empty and no store, 'pictures/dog.png' is in it"):
        encode_dataset(encoder, dataset, tmp_path)
    assert files_of(tmp_path) == {"pictures/dog.png": b"x"}
    import fsspec

    fsspec.filesystem("memory").pipe_file(f"{address.removeprefix('memory:/')}/notes.txt", b"x")
    with pytest.raises(ResidualError, match=r"isn't empty and no store, 'notes.txt' is in it"):
        encode_dataset(encoder, dataset, address)


def test_no_clock_and_no_place_in_the_files(tmp_path, monkeypatch):
    small_shards(monkeypatch)
    encoder, dataset = float32_encoder(), TinyImages(N, broken=(3, 12))
    encode_dataset(encoder, dataset, tmp_path / "a", on_error="skip")
    for clock in ("time.time", "time.monotonic", "time.perf_counter"):
        monkeypatch.setattr(clock, lambda: 2e9)
    encode_dataset(float32_encoder(), TinyImages(N, broken=(3, 12)), tmp_path / "b/c", on_error="skip")
    same_files(files_of(tmp_path / "b" / "c"), files_of(tmp_path / "a"))


def test_size_is_that_of_the_coordinates(tmp_path):
    encoder = float32_encoder(layers=4, heads=8, head_width=32, output=64)
    store = encode_dataset(encoder, TinyImages(1270), tmp_path / "store", batch_size=100)
    files = {name: len(data) for name, data in files_of(tmp_path / "store").items()}
    coordinates = store.read()
    small = sum(2 * getattr(coordinates, name).numel() for name in ("z", "mlp", "emb", "mean", "std"))
    assert small == 2 * 1270 * (2 * 4 * 256 + 256 + 2)
    assert sum(files.values()) <= 1.02 * small + files["linearization.safetensors"]


# Nothing but what is asked for


def test_only_the_files_of_what_is_asked_for_are_needed(tmp_path, monkeypatch):
    small_shards(monkeypatch)
    path = tmp_path / "store"
    encoder, dataset = float32_encoder(), TinyImages(N)
    whole = encode_dataset(encoder, dataset, path).load()
    kept = {f"{name}/c/1" + "/0" * axes for name, axes in (("z", 3), ("mean", 0), ("std", 0))}
    for file in path.rglob("c/*"):
        for below in [file, *file.rglob("*")]:
            name = below.relative_to(path).as_posix()
            if below.is_file() and name not in kept and not name.startswith(("label", "sample_id")):
                below.unlink()
    store = ResidualStore.open(path)
    heads = store.units["unit"][store.units["kind"] == "head"].tolist()
    rows = [14, 8, 15]
    torch.testing.assert_close(store.contributions(rows, heads), whole.contributions(rows, heads))
    same_coordinates(
        store.read(slice(8, 16), "head").to(dtype=torch.float32), whole.coordinates.only(["head"])[8:16]
    )
    assert store.sample_ids == whole.sample_ids
    for samples, units, file in (
        ([7], heads, "mean/c/0"),
        ([8, 16], heads, "mean/c/2"),
        ([9], [0], "emb/c/1/0"),
        ([9], [1], "mlp/c/1/0/0"),
    ):
        with pytest.raises(ResidualError, match=f"{file} is missing"):
            store.contributions(samples, units)
    with pytest.raises(ResidualError, match="digest/c/0 is missing"):
        _ = store.digests


def test_labels_alone_need_no_coordinates(tmp_path):
    path = tmp_path / "store"
    encode_dataset(float32_encoder(), TinyImages(9), path)
    for name in ("z", "mlp", "emb", "mean", "std", "digest"):
        shutil.rmtree(path / name / "c")
    store = ResidualStore.open(path)
    assert store.labels.tolist() == TinyImages(9).labels.tolist()
    assert store.linearization.output_dim == 12


# Going on, and what isn't gone on with


def test_parts_make_the_whole(tmp_path, monkeypatch):
    small_shards(monkeypatch, 4)
    encoder, dataset = float32_encoder(), TinyImages(N)
    encode_dataset(encoder, dataset, tmp_path / "whole")
    seen = []
    for number in (3, 1, 2):
        store = encode_dataset(
            encoder,
            dataset,
            tmp_path / "parts",
            part=(number, 3),
            progress=lambda _, done, total: seen.append((done, total)),
        )
        assert store.complete == (number == 2)
        assert store.verify() == []
    same_files(files_of(tmp_path / "parts"), files_of(tmp_path / "whole"))
    assert seen == [(0, 5), (4, 5), (5, 5), (0, 8), (4, 8), (8, 8), (0, 8), (4, 8), (8, 8)]
    for number in range(1, 21):  # more parts than shards
        encode_dataset(encoder, dataset, tmp_path / "many", part=(number, 20))
    same_files(files_of(tmp_path / "many"), files_of(tmp_path / "whole"))


def test_parts_that_are_none(tmp_path):
    for part in ((0, 1), (2, 1), (-1, 3), (1, 0)):
        with pytest.raises(ResidualError, match=r"A part is \(number, of\)"):
            encode_dataset(float32_encoder(), TinyImages(3), tmp_path / "store", part=part)


def test_a_finished_store_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "store"
    encoder, dataset = float32_encoder(), TinyImages(9)
    encode_dataset(encoder, dataset, path)
    times = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    monkeypatch.setattr("residual.store.encode.encode_batches", None)  # can't be called
    small_shards(monkeypatch, 2)  # its own layout counts
    seen = []
    store = encode_dataset(encoder, dataset, path, progress=lambda _, done, total: seen.append((done, total)))
    assert len(store) == 9
    assert seen == [(9, 9)]
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == times


def test_a_store_goes_on_in_its_own_layout(tmp_path, monkeypatch):
    small_shards(monkeypatch, 4)
    encoder, dataset = float32_encoder(), TinyImages(N)
    encode_dataset(encoder, dataset, tmp_path / "whole")
    encode_dataset(encoder, dataset, tmp_path / "store", part=(1, 2))
    small_shards(monkeypatch, 16)
    encode_dataset(encoder, dataset, tmp_path / "store")
    same_files(files_of(tmp_path / "store"), files_of(tmp_path / "whole"))


def relabelled(dataset):
    dataset.labels = dataset.labels.copy()
    dataset.labels[4] ^= 1
    return dataset


def regrouped(dataset):
    dataset.groups = dataset.groups.copy()
    dataset.groups[4] = (dataset.groups[4] + 1) % 3
    return dataset


def preprocessed(encoder):
    encoder.preprocess = replace(encoder.preprocess, mean=(0.5, 0.5, 0.5))
    return encoder


DATA = {"groups": True}
OTHERS = {
    "weights": (lambda: float32_encoder(seed=1), None, {}, "encoder weights [0-9a-f]{16}, not [0-9a-f]{16}"),
    "precision": (lambda: tiny_encoder(dtype=torch.float64), None, {}, "precision float32, not float64"),
    "split": (
        lambda: float32_encoder(centering="own"),
        None,
        {},
        "centering of the last norm 'shared', not 'own'",
    ),
    "preprocessing": (lambda: preprocessed(float32_encoder()), None, {}, "preprocessing .*not .*0.5"),
    "dataset": (None, lambda: NamedImages(9, name="other", **DATA), {}, "tiny/train, not other/train"),
    "part of it": (None, lambda: NamedImages(9, split="test", **DATA), {}, "tiny/train, not tiny/test"),
    "labels": (None, lambda: relabelled(NamedImages(9, **DATA)), {}, r"samples and labels \(checksum\)"),
    "ids": (None, lambda: NamedImages(9, "abcdefghi", **DATA), {}, r"samples and labels \(checksum\)"),
    "order": (
        None,
        lambda: NamedImages(9, **DATA).subset(range(8, -1, -1)),
        {},
        r"samples and labels \(checksum\)",
    ),
    "number": (None, lambda: NamedImages(8, **DATA), {}, "number of samples 9, not 8"),
    "groups": (None, lambda: regrouped(NamedImages(9, **DATA)), {}, "groups"),
    "no groups": (None, lambda: NamedImages(9), {}, "groups"),
    "pooling": (None, None, {"pooling": "avg"}, "pooling 'own', not 'avg'"),
    "kinds": (None, None, {"kinds": ("emb", "head")}, "kinds emb, mlp, head, not emb, head"),
    "dtype": (None, None, {"dtype": "float32"}, "dtype float16, not float32"),
}


@pytest.mark.parametrize("finished", [True, False])
def test_whatever_is_another_is_refused_by_name(tmp_path, monkeypatch, finished):
    small_shards(monkeypatch, 4)
    path = tmp_path / "store"
    encode_dataset(float32_encoder(), NamedImages(9, **DATA), path, part=(1, 1 if finished else 2))
    before = files_of(path)
    for what, (encoder, dataset, how, message) in OTHERS.items():
        with pytest.raises(
            ResidualError, match=f"holds something else: .*{message}.*Choose another folder"
        ) as caught:
            encode_dataset(
                float32_encoder() if encoder is None else encoder(),
                NamedImages(9, **DATA) if dataset is None else dataset(),
                path,
                **how,
            )
        assert "encoder weights" not in str(caught.value) or what == "weights"
        same_files(files_of(path), before)
    assert len(encode_dataset(float32_encoder(), NamedImages(9, **DATA), path)) == 9


def test_all_that_differs_is_named(tmp_path):
    encode_dataset(float32_encoder(), TinyImages(9), tmp_path / "store")
    with pytest.raises(ResidualError, match=r"encoder weights.*number of samples 9, not 5.*dtype float16"):
        encode_dataset(float32_encoder(3), TinyImages(5), tmp_path / "store", dtype="float32")


def test_bad_requests_leave_nothing(tmp_path):
    encoder, dataset = float32_encoder(), TinyImages(3)
    for how, message in (
        ({"dtype": "float64"}, "dtype is 'float16' or 'float32', got 'float64'"),
        ({"kinds": ("heads",)}, "Kinds of unit are one or more of emb, mlp, head; got heads"),
        ({"kinds": ()}, "Kinds of unit are one or more of emb, mlp, head; got none"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"on_error": "ignore"}, "on_error is 'raise' or 'skip', got 'ignore'"),
        ({"pooling": "mean"}, "Unknown pooling 'mean'"),
    ):
        with pytest.raises(ResidualError, match=message):
            encode_dataset(encoder, dataset, tmp_path / "store", **how)
    for workers in (-1, 100_000):
        with pytest.raises(ResidualError, match=f"workers is from 0 to 256, got {workers}"):
            encode_dataset(encoder, dataset, tmp_path / "other", workers=workers)
    assert not (tmp_path / "store").exists()


def test_a_store_that_was_cut_off_says_so(tmp_path, monkeypatch):
    small_shards(monkeypatch, 4)
    encode_dataset(float32_encoder(), TinyImages(N), tmp_path / "store", part=(2, 3))
    with pytest.warns(
        UserWarning,
        match=r"isn't complete: 8 of 21 samples are there\. Some .* in front of others, from number 0 to 7",
    ):
        store = ResidualStore.open(tmp_path / "store")
    assert not store.complete
    assert store.sample_ids == TinyImages(N).sample_ids[8:16]
    assert store.labels.tolist() == TinyImages(N).labels[8:16].tolist()
    assert "8 of 21 samples" in repr(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ResidualStore.open(tmp_path / "store", cut_off=True)) == 8


def test_libraries_of_another_version_are_noted_and_go_on(tmp_path, monkeypatch):
    small_shards(monkeypatch, 4)
    path = tmp_path / "store"
    encode_dataset(float32_encoder(), TinyImages(N), path, part=(1, 2))
    held = ResidualStore.open(path, cut_off=True).manifest
    monkeypatch.setattr("residual.store.writer.versions", lambda: {**held.versions, "torch": "99.0"})
    store = encode_dataset(float32_encoder(), TinyImages(N), path)
    assert store.manifest.versions == held.versions
    noted = [json.loads(file.read_text())["versions"] for file in sorted((path / "receipts").iterdir())]
    assert noted == [{}] * 3 + [{"torch": "99.0"}] * 3
    assert store.verify() == []
