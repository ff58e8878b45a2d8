"""Whatever happens to a file of a store is said, by its name; and what the message advises mends it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_files import NamedImages, files_of, same_coordinates, same_encoder, same_files

from residual.errors import DamagedStoreError, ResidualError
from residual.store.arrays import Damage
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset

N, ROWS, CHUNK = 19, 8, 4  # the last chunk is behind the last sample
BROKEN = 10
OF_SAMPLES = {"z": 3, "mlp": 2, "emb": 1, "mean": 0, "std": 0, "digest": 0}  # and axes behind the samples
SHARDS = [f"{name}/c/{shard}" + "/0" * axes for name, axes in OF_SAMPLES.items() for shard in range(3)]
RECEIPTS = [f"receipts/{shard:06d}.json" for shard in range(3)]
SINGLE = ["label", "sample_id", "sample_id_end", "group"]
OTHERS = [
    *("manifest.json", "units.json", "linearization.safetensors", "zarr.json"),
    *(f"{name}/zarr.json" for name in [*OF_SAMPLES, *SINGLE]),
    *(f"{name}/c/0" for name in SINGLE),
]
ONE_OF_A_KIND = [
    *("z/c/1/0/0/0", "mlp/c/0/0/0", "emb/c/2/0", "mean/c/2", "digest/c/1"),
    *("receipts/000000.json", "receipts/000002.json", *OTHERS[:4]),
    *("z/zarr.json", "label/zarr.json", *OTHERS[-4:]),
]


def dataset(seed: int = 0):
    return NamedImages(N, groups=True, broken=(BROKEN,), seed=seed)


def encode(path, seed: int = 0, images: int = 0, **how):
    """Shards of two chunks of samples each, a layer a chunk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("residual.store.layout.MOST_ROWS", ROWS)
        patch.setattr("residual.store.layout.MOST_CHUNK_ROWS", CHUNK)
        patch.setattr("residual.store.layout.CHUNK_BYTES", 300)
        return encode_dataset(same_encoder(seed), dataset(images), path, on_error="skip", **how)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store of three shards; the last isn't full."""
    path = tmp_path_factory.mktemp("damage") / "whole"
    encode(path)
    return path


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A store of other weights, and one of the same weights and other images: of the same layout."""
    folder = tmp_path_factory.mktemp("damage")
    encode(folder / "weights", seed=1)
    encode(folder / "images", images=5)
    return folder / "weights", folder / "images"


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "store")
    return tmp_path / "store"


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def said(path: Path, expected: Path | None) -> str:
    """All that opening, verifying and reading everything say; numbers that are given are the right ones."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            store = ResidualStore.open(path)
    except ResidualError as error:
        return str(error)
    right = None if expected is None else ResidualStore.open(expected)
    texts = [str(warning.message) for warning in caught] + [str(damage) for damage in store.verify()]
    at = None
    if right is not None and not store.complete:
        at = [position for position in range(N) if position // ROWS in store._arrays.receipts]
        at = [position - (position > BROKEN) for position in at if position != BROKEN]
    for name in ("labels", "groups", "digests", "sample_ids"):
        try:
            got = getattr(store, name)
        except ResidualError as error:
            texts.append(str(error))
            continue
        if right is not None:
            wanted = np.array(getattr(right, name))
            np.testing.assert_array_equal(np.array(got), wanted if at is None else wanted[at])
    for kind in ("emb", "mlp", "head"):
        try:
            got = store.read(kinds=kind)
        except ResidualError as error:
            texts.append(str(error))
            continue
        if right is not None:
            same_coordinates(got, right.read(at, kinds=kind))
    try:
        got = store.linearization
    except ResidualError as error:
        texts.append(str(error))
    else:
        assert right is None or got.pack() == right.linearization.pack()
    return "\n".join(texts)


def mends(path: Path, whole: Path, name: str) -> None:
    """Remove that file and encode again."""
    (path / name).unlink(missing_ok=True)
    assert encode(path).verify() == []
    same_files(files_of(path), files_of(whole))


def test_these_are_all_files(whole):
    assert sorted([*SHARDS, *RECEIPTS, *OTHERS]) == sorted(files_of(whole))
    assert said(whole, whole) == ""
    z, mean = (ResidualStore.open(whole).layout.arrays[name] for name in ("z", "mean"))
    assert (z.chunk_rows, mean.chunk_rows, z.chunk_tail) == (CHUNK, CHUNK, (1, 4, 8))


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_any_damage_of_a_file_is_named_and_mended(copy, whole, name):
    """Changed bits, a file that isn't whole, or is that of another store or shard, and then none."""
    path, data, random = copy / name, (copy / name).read_bytes(), np.random.default_rng(len(name))

    def names_it(text: str) -> None:
        # a shard without its receipt isn't whole yet
        assert name in text or (name in RECEIPTS and "isn't complete" in text)

    for position in {0, len(data) - 1, len(data) // 2, *random.integers(0, len(data), 3).tolist()}:
        flip(path, position, int(random.integers(0, 8)))
        assert name in said(copy, whole), position
        if name not in [*SHARDS, *RECEIPTS, "manifest.json"]:  # what describes an array spoils no samples
            assert ResidualStore.open(copy).verify() == [Damage(name, (), "isn't what was written")]
        path.write_bytes(data)
    assert said(copy, whole) == ""
    for spoilt in (data[: len(data) // 2], b"", data + b"\0", bytes(len(data))):
        path.write_bytes(spoilt)
        names_it(said(copy, whole))
    path.unlink()
    path.mkdir()
    names_it(said(copy, whole))
    path.rmdir()
    names_it(said(copy, whole))
    mends(copy, whole, name)
    shard = next((number for number in "012" if f"/c/{number}" in name or f"00{number}." in name), "")
    if name in SHARDS or name in RECEIPTS:
        other = name.replace(f"/c/{shard}", f"/c/{(int(shard) + 1) % 3}").replace(
            f"00{shard}.", f"00{(int(shard) + 1) % 3}."
        )
        path.write_bytes((whole / other).read_bytes())
        names_it(said(copy, None))


SAME = ("zarr.json", "units.json", "sample_id/c/0", "sample_id_end/c/0", "group/c/0")  # in all three stores


def test_files_of_another_store(copy, whole, others):
    for name in ONE_OF_A_KIND:
        data = (whole / name).read_bytes()
        different = {(other / name).read_bytes() for other in others} - {data}
        assert bool(different) == (not name.endswith(SAME))
        for other in different:
            (copy / name).write_bytes(other)
            if name == "manifest.json":  # it is the rest that isn't of this store, then
                with pytest.raises(DamagedStoreError, match=r"receipts/000000\.json is of another store"):
                    ResidualStore.open(copy)
                with pytest.raises(ResidualError, match="holds something else"):
                    encode(copy)
            else:
                assert name in said(copy, None)
            (copy / name).write_bytes(data)


def test_files_that_change_while_a_store_is_open(copy, whole):
    store = ResidualStore.open(copy)
    before = store.read()
    (copy / "mlp/c/1/0/0").unlink()
    with pytest.raises(ResidualError, match="mlp/c/1/0/0 is missing"):
        store.read()
    same_coordinates(store.read(slice(0, 8)), before[:8])
    flip(copy / "emb/c/0/0", 3)
    with pytest.raises(ResidualError, match="emb/c/0/0 holds a changed byte"):
        store.read([2], kinds="emb")
    (copy / "manifest.json").unlink()
    (copy / "receipts/000002.json").unlink()
    assert {damage.file for damage in store.verify()} == {
        "manifest.json",
        "receipts/000002.json",
        "mlp/c/1/0/0",
        "emb/c/0/0",
    }


def chunks_of(data: bytes, name: str) -> list[tuple[range, int]]:
    """Where in a shard's file each chunk is, from the index at its end, and which row of chunks it is in."""
    layers = 3 if name.startswith(("z/", "mlp/")) else 1
    count = ROWS // CHUNK * layers
    index = np.frombuffer(data[-16 * count - 4 : -4], "<u8").reshape(-1, 2).tolist()
    return [
        (range(start, start + length), place // layers)
        for place, (start, length) in enumerate(index)
        if start < len(data)  # else there is none, behind the last sample
    ]


def ids_of(shard: int, row: int | None = None, each: int = CHUNK) -> set[str]:
    start = shard * ROWS + (0 if row is None else row * each)
    stop = (shard + 1) * ROWS if row is None else start + each
    return {f"tiny/{index}" for index in range(start, min(stop, N)) if index != BROKEN}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_exactly_the_samples_of_bad_chunks_are_named(copy, whole, data):
    name = data.draw(st.sampled_from([name for name in SHARDS if not name.startswith("digest")]), "file")
    shard = int(name.split("/")[2])
    good = (whole / name).read_bytes()
    chunks = chunks_of(good, name)
    assert {row for _, row in chunks} == ({0} if shard == 2 else {0, 1})
    spoilt = data.draw(st.lists(st.sampled_from(chunks), min_size=1, max_size=3), "chunks")
    places = {where[data.draw(st.integers(0, len(where) - 1))] for where in {where for where, _ in spoilt}}
    bits = [(place, data.draw(st.integers(0, 7))) for place in places]
    try:  # all is drawn by now: an example that ends early must not leave a changed byte to the next
        for place, bit in bits:
            flip(copy / name, place, bit)
        store = ResidualStore.open(copy)
        found = store.verify()
        assert {damage.file for damage in found} == {name}
        expected = set().union(*(ids_of(shard, row) for _, row in spoilt))
        assert set().union(*(damage.samples for damage in found)) == expected
        assert {damage.reason for damage in found} == {"holds a changed byte"}
        right = ResidualStore.open(whole)
        bad = [place for place, sample in enumerate(right.sample_ids) if sample in expected]
        rest = [place for place in range(N - 1) if place not in bad]
        same_coordinates(store.read(rest), right.read(rest))
        for place in bad:
            with pytest.raises(ResidualError, match=f"{name} holds a changed byte.*Remove that file"):
                store.read([place])
    finally:
        (copy / name).write_bytes(good)


def test_every_single_byte_of_a_shard(copy):
    """Of the index, and of chunks behind the last sample, too."""
    name = "mean/c/2"
    good = (copy / name).read_bytes()
    store = ResidualStore.open(copy)
    for position in range(len(good)):
        flip(copy / name, position, position % 8)
        assert {damage.file for damage in store.verify()} == {name}, position
        (copy / name).write_bytes(good)
    assert store.verify() == []


def test_a_bad_index_spoils_the_shard(copy):
    flip(copy / "z/c/1/0/0/0", -6)
    [*found] = ResidualStore.open(copy).verify()
    assert {sample for damage in found for sample in damage.samples} == ids_of(1)
    (copy / "z/c/1/0/0/0").unlink()
    [damage] = ResidualStore.open(copy).verify()
    assert set(damage.samples) == ids_of(1)
    assert str(damage) == "z/c/1/0/0/0 is missing. Spoilt: 7 samples, 'tiny/8' to 'tiny/15'."


def test_a_bad_description_of_one_array_leaves_the_others(copy, whole):
    flip(copy / "mlp/zarr.json", 20)
    store = ResidualStore.open(copy)
    assert store.labels.tolist() == ResidualStore.open(whole).labels.tolist()
    same_coordinates(store.read(kinds="head"), ResidualStore.open(whole).read(kinds="head"))
    with pytest.raises(ResidualError, match=r"mlp/zarr\.json is damaged"):
        store.read()


def test_damaged_ids_dont_hide_damage(copy):
    flip(copy / "sample_id/c/0", 5)
    flip(copy / "emb/c/2/0", 5)
    found = {damage.file: damage.samples for damage in ResidualStore.open(copy).verify()}
    assert found == {"sample_id/c/0": (), "emb/c/2/0": tuple(f"number {index}" for index in range(16, 19))}


def test_several_damages_at_once_are_mended_at_once(copy, whole):
    names = ["z/c/0/0/0/0", "mean/c/2", "label/c/0", "linearization.safetensors", "emb/zarr.json"]
    for name in names:
        flip(copy / name, 7)
    assert {damage.file for damage in ResidualStore.open(copy).verify()} == set(names)
    for name in names:
        (copy / name).unlink()
    mends(copy, whole, "receipts/000001.json")


def test_a_damaged_receipt_is_encoded_again_without_being_removed(copy, whole):
    for position in (3, 50):
        flip(copy / "receipts/000001.json", position)
    encode(copy)
    same_files(files_of(copy), files_of(whole))


def test_a_file_that_was_cut_off_is_encoded_again_without_being_removed(copy, whole):
    for name in ("z/c/1/0/0/0", "digest/c/1", "emb/c/2/0"):
        path = copy / name
        path.write_bytes(path.read_bytes()[:-1])
    encode(copy)
    same_files(files_of(copy), files_of(whole))


def test_progress_of_verify(whole):
    seen = []
    assert ResidualStore.open(whole).verify(lambda _, done, total: seen.append((done, total))) == []
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_store_of_a_later_format_is_refused(copy):
    from residual.store.manifest import read_signed, signed

    held = read_signed((copy / "manifest.json").read_bytes(), "it")
    (copy / "manifest.json").write_bytes(signed(held | {"format": "residual store 9"}))
    for call in (lambda: ResidualStore.open(copy), lambda: encode(copy)):
        with pytest.raises(ResidualError, match=r"of the format 'residual store 9'; this version .* reads"):
            call()
