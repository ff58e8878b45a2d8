"""Stores of many shards and samples: what is read of them is by its plain definition, and a sample of shards
says what it looked at.
"""

from __future__ import annotations

import itertools
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_files import same_encoder, small_shards
from tiny import TinyImages

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import large_store
import scale

from residual.errors import DamagedStoreError, ResidualError
from residual.store import ResidualStore, encode_dataset
from residual.store.layout import pack_ids, whole_array, zarr_files
from residual.store.manifest import MANIFEST, Receipt, StoreManifest, read_signed, signed
from residual.store.positions import Positions, positions_of
from residual.store.resume import spread
from residual.store.sample_ids import SampleIds

SHARDS, ROWS = 300, 512
SAMPLES = SHARDS * ROWS - 100
MISSING = frozenset({0, 7, 8, 299})


def skipped(samples: range) -> dict[int, str]:
    """Of every third shard the first, two in the middle and the last."""
    if samples.start // ROWS % 3:
        return {}
    places = (0, 100, 101, len(samples) - 1)
    return {samples[place]: f"reason {samples[place]}" for place in places}


def readable() -> list[int]:
    shards = [range(k * ROWS, min((k + 1) * ROWS, SAMPLES)) for k in range(SHARDS) if k not in MISSING]
    return [position for shard in shards for position in shard if position not in skipped(shard)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("many") / "store"
    large_store.make_store(path, SAMPLES, ROWS, skipped, MISSING)
    return path


@pytest.fixture
def store(folder) -> ResidualStore:
    return ResidualStore.open(folder, cut_off=True)


def test_samples_are_those_of_the_plain_definition(store):
    positions = readable()
    assert len(store) == len(positions)
    assert store.labels.tolist() == large_store.label_of(np.array(positions)).tolist()
    assert store.sample_ids == tuple(map(large_store.id_of, positions))
    left_out = {position: reason for k in range(SHARDS) for position, reason in _skipped_of(k).items()}
    assert store.reasons == {large_store.id_of(position): reason for position, reason in left_out.items()}
    np.testing.assert_array_equal(store.digests, np.array(positions, np.uint64) + 1)
    chosen = [70_000, 3, 3, -1, 0]
    got = store.read(samples=chosen).field("z")
    array = store.layout.arrays["z"]
    whole = large_store.values_of("z", array, range(ROWS))
    expected = [whole[positions[place] % ROWS] for place in chosen]
    np.testing.assert_array_equal(got.numpy(), np.array(expected))


def _skipped_of(shard: int) -> dict[int, str]:
    if shard in MISSING:
        return {}
    return skipped(range(shard * ROWS, min((shard + 1) * ROWS, SAMPLES)))


def test_ids_that_are_read_as_they_are_asked_for_are_the_tuple(store):
    ids, held = store.sample_ids, SampleIds(store._arrays.ids, store._arrays.positions)
    assert isinstance(ids, tuple)
    assert held == ids
    assert ids == held
    assert hash(held) == hash(ids)
    for other in (ids[:-1], list(ids), (*ids[:-1], "other")):
        assert held != other
    assert [held[place] for place in (0, -1, 70_000)] == [ids[place] for place in (0, -1, 70_000)]
    assert held[65_000:131_200:77] == ids[65_000:131_200:77]
    assert held[::-1][:3] == ids[::-1][:3]
    assert (held.index(ids[5]), ids[9] in held, "none" in held) == (5, True, False)
    assert (held + held)[-len(ids) :] == (ids + held)[: len(ids)] == ids
    assert pickle.loads(pickle.dumps(held)) == ids
    assert repr(held) == f"<{len(ids):,} sample ids: {ids[0]!r}, {ids[1]!r}, …>"
    with pytest.raises(IndexError, match="out of bounds"):
        held[len(ids)]


def test_a_store_of_many_samples_gives_ids_that_are_read_as_they_are_asked_for(folder, monkeypatch):
    monkeypatch.setattr("residual.store.disk.MOST_IN_MEMORY", 1000)
    store = ResidualStore.open(folder, cut_off=True)
    assert isinstance(store.sample_ids, SampleIds)
    memory = store.load()
    assert memory.sample_ids == store.sample_ids
    assert memory.subset([2, 0]).sample_ids == (store.sample_ids[2], store.sample_ids[0])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_positions_are_the_list_of_them(data):
    cuts = data.draw(st.lists(st.integers(0, 30), min_size=2, max_size=8, unique=True), "cuts")
    cuts = list(itertools.pairwise(sorted(cuts)))
    taken = data.draw(st.lists(st.booleans(), min_size=len(cuts), max_size=len(cuts)), "taken")
    runs = [range(*ends) for ends, held in zip(cuts, taken, strict=True) if held]
    every = [position for run in runs for position in run]
    without = data.draw(st.sets(st.sampled_from(every)) if every else st.just(set()), "without")
    plain = np.array([position for position in every if position not in without], np.int64)
    positions = Positions(runs, without)
    assert len(positions) == len(plain)
    np.testing.assert_array_equal(positions[:], plain)
    np.testing.assert_array_equal(spread(positions, 5), spread(plain, 5))
    part = range(data.draw(st.integers(0, 31), "from"), 31)
    np.testing.assert_array_equal(positions.within(part), plain[np.isin(plain, part)])
    step = data.draw(st.sampled_from([None, 1, 2, -1, -3]), "step")
    np.testing.assert_array_equal(positions[3:17:step], plain[3:17:step])
    mask = np.arange(len(plain)) % 2 == 0
    np.testing.assert_array_equal(positions[mask], plain[mask])
    places = data.draw(
        st.lists(st.integers(-len(plain), len(plain) - 1)) if len(plain) else st.just([]), "places"
    )
    np.testing.assert_array_equal(positions[places], plain[np.array(places, np.int64)])


def test_places_of_no_sample():
    for places in ([5], [-6], [0, 7]):
        with pytest.raises(IndexError, match="out of bounds for axis 0 with size 5"):
            positions_of(places, 5)


@pytest.mark.parametrize("n", [1, 2**16, 2**16 + 1, 200_000])
def test_whole_arrays_are_packed_as_zarr_packs_them(n):
    import zarr
    from zarr.storage import MemoryStore

    values = pack_ids([f"é{number}" for number in range(n)])
    files = zarr_files(large_store.tiny_layout(n, 128), values)
    held = {name: zarr.core.buffer.cpu.Buffer.from_bytes(bytes(data)) for name, data in files.items()}
    group = zarr.open_group(MemoryStore(held), mode="r")
    for name, expected in values.items():
        np.testing.assert_array_equal(group[name][...], expected)
        assert len(files[f"{name}/c/0"]) == whole_array(name, len(expected)).size_of(len(expected))


def test_a_sample_of_shards_says_what_it_looked_at_and_what_that_shows(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    store = ResidualStore.open(copy, cut_off=True)
    clean = store.verify(sample=100, seed=3)
    assert (clean, len(clean.shards), clean.of, clean.bad) == ([], 100, SHARDS - len(MISSING), ())
    assert sorted(set(clean.shards)) == list(clean.shards)
    assert not set(clean.shards) & MISSING
    assert clean.shown == (
        "100 of 296 shards were read, chosen at random, and all that isn't of coordinates. None of them is "
        "damaged: with 95 % certainty fewer than 3 % of all are (the rule of three, 3 / 100)."
    )
    assert store.verify(sample=100, seed=4).shards != clean.shards
    assert "says nothing of so many others" in store.verify(sample=2).shown
    assert (store.verify(sample=10**6).shown, len(store.verify(sample=10**6).shards)) == ("", 296)
    inside, outside = (
        clean.shards[40],
        next(k for k in range(1, SHARDS) if k not in {*clean.shards, *MISSING}),
    )
    for shard in (inside, outside):
        file = copy / store.layout.file("mlp", shard)
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    found = store.verify(sample=100, seed=3)
    assert [damage.file for damage in found] == [store.layout.file("mlp", inside)]
    assert found.bad == (inside,)
    assert "1 of them are damaged; the others of the store may be, too" in found.shown
    with pytest.raises(ResidualError, match="A sample has one shard or more, got 0"):
        store.verify(sample=0)


@pytest.mark.parametrize("listed", [True, False])
def test_a_changed_byte_of_labels_or_ids(folder, tmp_path, listed):
    """In stores of version 0.1 the manifest lists no chunks: the SHA-256 stands in for them."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("receipts", "label", "sample_id", "sample_id_end", "zarr.json", MANIFEST):
        (shutil.copytree if (folder / name).is_dir() else shutil.copy)(folder / name, copy / name)
    manifest = StoreManifest.unpack((copy / MANIFEST).read_bytes(), MANIFEST)
    assert manifest.chunks.keys() == {"label", "sample_id", "sample_id_end"}
    if not listed:
        bare = StoreManifest(manifest.identity, manifest.layout, manifest.versions, manifest.files)
        assert bare.mark == manifest.mark
        (copy / MANIFEST).write_bytes(bare.pack())
    store = ResidualStore.open(copy, cut_off=True)
    assert store.sample_ids[-1] == large_store.id_of(readable()[-1])
    for name, read in (("label", "labels"), ("sample_id", "sample_ids")):
        file = copy / name / "c/0"
        data = bytearray(file.read_bytes())
        data[100] ^= 1
        file.write_bytes(data)
        with pytest.raises(DamagedStoreError, match=f"{name}/c/0 is damaged"):
            getattr(ResidualStore.open(copy, cut_off=True), read)


def test_what_receipts_skip_is_of_their_shard(folder):
    manifest = StoreManifest.unpack((folder / MANIFEST).read_bytes(), MANIFEST)
    receipt = manifest.receipt(3, (folder / Receipt.file(3)).read_bytes(), "receipt")
    assert list(receipt.skipped) == list(skipped(range(3 * ROWS, 4 * ROWS)))
    for position in ("1535", "2048", "-1536", "01536", "١", "1e3", "9" * 5000):
        content = {**read_signed(receipt.pack(), "receipt"), "skipped": {position: "why"}}
        with pytest.raises(DamagedStoreError, match="isn't a receipt of a shard that is laid out so"):
            manifest.receipt(3, signed(content), "receipt")


def test_larger_shards_of_new_stores(tmp_path, monkeypatch):
    for size, rows in ((64, 512), (256, 2048), (1024, 8192)):
        assert scale.layout_of("ViT-L/14", 10**7, size * 2**20).rows == rows
    small_shards(monkeypatch, 8)
    encoder, images = same_encoder(), TinyImages(40)
    store = encode_dataset(encoder, images, tmp_path / "store", shard_mb=128, batch_size=20)
    assert (store.layout.rows, len(store), store.verify()) == (16, 40, [])
    again = encode_dataset(encoder, images, tmp_path / "store")  # goes on as it was cut
    assert (again.layout.rows, again.complete) == (16, True)
    for size in (0, 1025):
        with pytest.raises(ResidualError, match=r"A shard has 1 to 1,024 MB of coordinates"):
            encode_dataset(encoder, images, tmp_path / "other", shard_mb=size)
