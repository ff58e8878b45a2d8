"""Stores that others made, or mixed up: what isn't a store's is refused in a sentence, before any work."""

from __future__ import annotations

import os
import shutil
import warnings

import numpy as np
import pytest
from store_files import NamedImages, files_of, float32_encoder, same_coordinates, same_encoder, small_shards

from residual.errors import DamagedStoreError, ResidualError
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.store.layout import whole_array
from residual.store.manifest import read_signed, signed

N, ROWS = 19, 4
FOREIGN = "isn't the file that was written, but one like it"


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store of five shards, and one of the same samples whose images are others."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch, ROWS)
        for name, seed in (("whole", 0), ("other", 5)):
            dataset = NamedImages(N, groups=True, seed=seed)
            dataset.labels = NamedImages(N).labels
            encode_dataset(same_encoder(), dataset, folder / name, batch_size=8)
    return folder


@pytest.fixture
def copy(stores, tmp_path):
    shutil.copytree(stores / "whole", tmp_path / "store")
    return tmp_path / "store"


def rewritten(path, change) -> None:
    """A signed file of JSON with a change."""
    content = read_signed(path.read_bytes(), str(path))
    path.write_bytes(signed(change(content) or content))


def without_chunks(receipt):
    del receipt["chunks"]


@pytest.mark.parametrize("old", [False, True])
def test_reading_refuses_files_of_another_place_array_or_store(copy, stores, old):
    """Each is whole and of the right size; receipts of version 0.1 list no chunks."""
    receipts = sorted(copy.glob("receipts/*"))
    for receipt in receipts if old else ():
        rewritten(receipt, without_chunks)
    right = ResidualStore.open(stores / "whole")
    for file, source in (
        ("z/c/1/0/0/0", stores / "whole/z/c/2/0/0/0"),
        ("mean/c/2", stores / "whole/std/c/2"),
        ("mlp/c/0/0/0", stores / "other/mlp/c/0/0/0"),
        ("digest/c/3", stores / "whole/digest/c/1"),
    ):
        good, shard = (copy / file).read_bytes(), int(file.split("/")[2])
        assert len(good) == source.stat().st_size
        shutil.copyfile(source, copy / file)
        store = ResidualStore.open(copy)
        with pytest.raises(DamagedStoreError, match=f"{file} {FOREIGN}.*Remove that file"):
            store.digests if file.startswith("digest") else store.read([shard * ROWS + 1])
        found = store.verify()
        assert {damage.file for damage in found} == {file}
        assert FOREIGN in str(found[0])
        rest = [place for place in range(N) if place // ROWS != shard]
        same_coordinates(store.read(rest), right.read(rest))
        (copy / file).write_bytes(good)
    assert ResidualStore.open(copy).verify() == []
    if old:  # a changed byte spoils its chunk alone
        data = bytearray((copy / "mlp/c/0/0/0").read_bytes())
        data[3] ^= 1
        (copy / "mlp/c/0/0/0").write_bytes(data)
        with pytest.raises(DamagedStoreError, match="mlp/c/0/0/0 holds a changed byte"):
            ResidualStore.open(copy).read([0])


def test_an_index_that_leads_elsewhere(copy, stores):
    """Its checksum fits; places are outside of the file, or those of other chunks."""
    from google_crc32c import value

    path = copy / "z/c/1/0/0/0"
    good = path.read_bytes()
    store = ResidualStore.open(copy)
    for index in ([2**63, 8], [2**64 - 1] * 2, [0, 2**62], [len(good), 0]):
        entries = np.array(index, "<u8").tobytes()
        path.write_bytes(good[:-20] + entries + value(entries).to_bytes(4, "little"))
        with pytest.raises(DamagedStoreError, match="z/c/1/0/0/0 holds a changed byte"):
            store.read([5])


def test_lost_and_damaged_receipts_are_all_listed(copy, stores):
    (copy / "receipts/000001.json").unlink()
    missing = r"15 of 19 samples are there\. Some are missing in front of others, from number 4 to 7\."
    with pytest.warns(UserWarning, match=missing):
        store = ResidualStore.open(copy)
    [damage] = store.verify()
    assert str(damage) == (
        "receipts/000001.json is missing, its shard is there. Spoilt: 4 samples, 'tiny/4' to 'tiny/7'."
    )
    (copy / "receipts/000002.json").write_bytes(b"{}")
    (copy / "receipts/000000.json").write_bytes((copy / "receipts/000003.json").read_bytes())
    with pytest.raises(DamagedStoreError, match=r"receipts/000000\.json is of another shard"):
        ResidualStore.open(copy)
    shutil.copyfile(stores / "whole/z/c/0/0/0/0", copy / "z/c/3/0/0/0")
    lenient = ResidualStore.open(copy, cut_off=True, damaged=True)
    assert [damage.file for damage in lenient.verify()] == [
        *("receipts/000000.json", "receipts/000001.json", "receipts/000002.json", "z/c/3/0/0/0")
    ]
    shutil.rmtree(copy / "z/c/1")  # a part that isn't written yet looks so
    (copy / "receipts/000002.json").write_bytes((stores / "whole/receipts/000002.json").read_bytes())
    lenient = ResidualStore.open(copy, cut_off=True, damaged=True)
    assert "receipts/000001.json" not in {damage.file for damage in lenient.verify()}


def test_the_manifest_of_another_store(copy, stores):
    rewritten(copy / "manifest.json", lambda content: content["dataset"].update(split="test"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = ResidualStore.open(copy, damaged=True)
    assert len(store) == 0
    assert [damage.file for damage in store.verify()] == [f"receipts/{shard:06d}.json" for shard in range(5)]


def at(content, *names):
    for name in names[:-1]:
        content = content[name]
    return content, names[-1]


def put(value, *names):
    def change(content):
        held, last = at(content, *names)
        held[last] = value

    return change


def drop(*names):
    def change(content):
        held, last = at(content, *names)
        del held[last]

    return change


def as_many(count):
    def change(content):
        content["dataset"]["samples"] = content["layout"]["samples"] = count
        for about in content["layout"]["arrays"].values():
            about["shape"][0] = count

    return change


def about(*shape, chunk):
    return {"shape": list(shape), "dtype": "float32", "chunk": chunk}


ARRAY = ("layout", "arrays", "z")
MANIFESTS = [
    (as_many(10**12), "the number of samples isn't from 1 to"),
    (as_many(-3), "the number of samples isn't from 1 to"),
    (put(N + 1, "dataset", "samples"), "of different numbers of samples"),
    (put(True, "layout", "samples"), "'samples' is of another type"),
    (put(0, "layout", "samples_per_shard"), "the number of samples of a shard isn't from 1 to"),
    (put(10**9, "layout", "samples_per_shard"), "the number of samples of a shard isn't from 1 to"),
    (put(4.0, "layout", "samples_per_shard"), "'samples_per_shard' is of another type"),
    (put([N, 2**31, 2**31, 2**31], *ARRAY, "shape"), "the chunks of the array 'z' don't divide it"),
    (put(about(N, 2**62, 4, 8, chunk=[1, 2**62, 4, 8]), *ARRAY), "the size of a shard"),
    (put(about(N, 2**20, 4, 8, chunk=[1, 1, 4, 8]), *ARRAY), "the number of chunks"),
    (put([N, 3, -4, -8], *ARRAY, "shape"), "the array 'z' is of another shape"),
    (put([N], *ARRAY, "shape"), "the array 'z' is of another shape"),
    (put([], *ARRAY, "shape"), "the array 'z' is of another shape"),
    (put([3, 3, 4, 8], *ARRAY, "chunk"), "the chunks of the array 'z' don't divide it"),
    (put([0, 3, 4, 8], *ARRAY, "chunk"), "the array 'z' is of another shape"),
    (put("object", *ARRAY, "dtype"), "the array 'z' is of another dtype"),
    (put("float32", "layout", "arrays", "digest", "dtype"), "the array 'digest' is of another dtype"),
    (put(about(N, chunk=[4]), *ARRAY), "the array 'z' has other axes"),
    (put(about(N, chunk=[4]), "layout", "arrays", "../x"), r"no store has an array '\.\./x'"),
    (drop("layout", "arrays", "mean"), "no array 'mean'"),
    (drop("layout", "arrays", "emb"), "the kinds and the arrays differ"),
    (put(["emb", "mlp", "head", "x"], "settings", "kinds"), "the kinds and the arrays differ"),
    (drop("layout"), "the layout isn't an object"),
    (drop("encoder", "weights"), "has no 'weights'"),
    (drop("dataset"), "has no 'dataset'"),
    (put([1, 2], "dataset", "class_names"), "'class_names' is of another type"),
    (put("none", "dataset", "class_names"), "'class_names' isn't a list"),
    (put("0" * 64, "files", "../../etc/passwd"), "its files aren't those of a store"),
    (put("0" * 64, "files", "/dev/zero"), "its files aren't those of a store"),
    (drop("files", "label/c/0"), "its files aren't those of a store"),
    (put(7, "files", "label/c/0"), "'label/c/0' is of another type"),
    (put([], "versions"), "'versions' isn't an object"),
]  # fmt: skip


def test_manifests_of_no_store(copy):
    path = copy / "manifest.json"
    good = path.read_bytes()
    for change, message in MANIFESTS:
        rewritten(path, change)
        with pytest.raises(
            DamagedStoreError, match=f"manifest.json isn't the manifest of a store.*{message}"
        ):
            ResidualStore.open(copy)
        path.write_bytes(good)
    nested = b'{\n "format": ' + b"[" * 10**5 + b"]" * 10**5 + b"\n}"
    for text in (
        nested,
        b"[\n}",
        b"[]",
        b"",
        b"{",
        b"\xff" * 99,
        b'{\n "a": NaN\n}',
        b'{\n "a": 1' + b"0" * 5000 + b"\n}",
    ):
        for data in (text, signed_text(text)):
            path.write_bytes(data)
            with pytest.raises(ResidualError, match=r"manifest\.json is (damaged|of the format None)"):
                ResidualStore.open(copy)


def signed_text(text: bytes) -> bytes:
    """A text with the signature of JSON behind it."""
    from residual.hashing import sha256

    return text.removesuffix(b"\n}") + b',\n "checksum": "%s"\n}\n' % sha256(text).encode()


RECEIPTS = [
    (put(10**12, "shard"), "is of another shard"),
    (put("0", "shard"), "'shard' is of another type"),
    (put({"100": "cut off"}, "skipped"), "of a shard that is laid out so"),
    (put({"-1": "cut off"}, "skipped"), "of a shard that is laid out so"),
    (put({"x": "cut off"}, "skipped"), "of a shard that is laid out so"),
    (put([5], "skipped"), "'skipped' isn't an object"),
    (put(10**15, "sizes", "z"), "of a shard that is laid out so"),
    (drop("sizes", "mean"), "of a shard that is laid out so"),
    (drop("checksums", "mean"), "of a shard that is laid out so"),
    (put("00", "chunks", "z"), "of a shard that is laid out so"),
    (drop("chunks", "z"), "of a shard that is laid out so"),
    (put([], "chunks"), "list of chunks isn't an object"),
    (drop("versions"), "has no 'versions'"),
]


def test_receipts_of_no_shard(copy):
    path = copy / "receipts/000001.json"
    good = path.read_bytes()
    for change, message in RECEIPTS:
        rewritten(path, change)
        with pytest.raises(DamagedStoreError, match=f"receipts/000001.json .*{message}"):
            ResidualStore.open(copy)
        path.write_bytes(good)


@pytest.mark.skipif(os.name != "posix", reason="there are no pipes and devices among files")
def test_only_files_of_the_folder_are_read(copy, tmp_path):
    """Neither a pipe nor a device, nor what a link outside names; nor more of one than a store has."""
    elsewhere = tmp_path / "elsewhere"
    for name in ("manifest.json", "receipts/000001.json", "z/zarr.json", "label/c/0", "z/c/1/0/0/0"):
        path = copy / name
        good, size = path.read_bytes(), path.stat().st_size
        path.unlink()
        os.mkfifo(path)
        refuses(copy, name)
        path.unlink()
        elsewhere.write_bytes(good)
        for target in ("/dev/zero", elsewhere, path.name):
            path.symlink_to(target)
            refuses(copy, name)
            if name.startswith("z/c/"):
                assert [damage.file for damage in ResidualStore.open(copy).verify()] == [name]
            path.unlink()
        with path.open("wb") as file:
            file.truncate(2**40)  # a hole, that takes no room
        refuses(copy, name)
        path.write_bytes(good)
        assert path.stat().st_size == size
    assert ResidualStore.open(copy).verify() == []
    shutil.move(copy / "receipts", elsewhere.with_name("receipts"))
    (copy / "receipts").symlink_to("/")
    with pytest.raises(ResidualError, match=r"receipts leads out of the store's folder.*links followed"):
        ResidualStore.open(copy)


def test_a_store_in_a_cache_of_the_hub(copy, tmp_path):
    """Its files are links to blobs beside."""
    place, blobs = tmp_path / "models--me--store" / "snapshots" / "0a1b" / "store", "models--me--store/blobs"
    (tmp_path / blobs).mkdir(parents=True)
    for number, (name, data) in enumerate(files_of(copy).items()):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / blobs / str(number)).write_bytes(data)
        (place / name).symlink_to(tmp_path / blobs / str(number))
    assert ResidualStore.open(place).verify() == []
    read_all_of(place)


def read_all_of(path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = ResidualStore.open(path)
    store.labels  # noqa: B018
    store.read()


def refuses(path, name) -> None:
    expected = f"isn't complete|{name}" if name.startswith("receipts") else name
    with pytest.raises((ResidualError, UserWarning), match=expected):
        read_all_of(path)


def rewrite_whole(store, name, values) -> None:
    """Labels, groups or places of ids that are others, with all checksums that go with them."""
    from residual.hashing import sha256

    data = bytes(whole_array(name, len(values)).pack(np.array(values)))
    (store / f"{name}/c/0").write_bytes(data)
    rewritten(store / "manifest.json", put(sha256(data), "files", f"{name}/c/0"))


@pytest.mark.parametrize(
    ("name", "values", "read", "message"),
    [
        ("label", [0] * 18 + [4], "labels", "label holds 0 to 4, of 4 names"),
        ("label", [-1] + [0] * 18, "labels", "label holds -1 to 0, of 4 names"),
        ("label", [0] * 20, "labels", "label/c/0 holds no 19 numbers|has .* bytes"),
        ("group", [3] * 19, "groups", "group holds 3 to 3, of 3 names"),
        ("sample_id_end", [10**15] * 19, "sample_ids", "sample_id/c/0 "),
        ("sample_id_end", [5, 3] * 9 + [9], "sample_ids", "sample_id_end holds no places in a text"),
        ("sample_id_end", [-4] * 19, "sample_ids", "sample_id_end holds no places in a text"),
    ],
)
def test_labels_and_ids_that_no_dataset_has(copy, name, values, read, message):
    rewrite_whole(copy, name, values)
    with pytest.raises(DamagedStoreError, match=message):
        getattr(ResidualStore.open(copy), read)


def test_ids_without_their_bytes(copy):
    rewritten(copy / "manifest.json", drop("files", "sample_id/c/0"))
    with pytest.raises(DamagedStoreError, match=r"sample_id/c/0 is damaged: it holds no .* as written"):
        ResidualStore.open(copy).sample_ids  # noqa: B018


def test_a_linearization_of_another_encoder(copy):
    from residual.hashing import sha256
    from residual.tracing.linearization import Linearization

    other = Linearization.of(float32_encoder(layers=2))
    broken = Linearization.of(same_encoder())
    for made, message in ((other, "isn't of an encoder with such coordinates"), (broken, "NaN or infinity")):
        broken.state["norm_weight"][0] = float("nan")
        data = made.pack()
        (copy / "linearization.safetensors").write_bytes(data)
        rewritten(copy / "manifest.json", put(sha256(data), "files", "linearization.safetensors"))
        with pytest.raises(ResidualError, match=message):
            ResidualStore.open(copy).linearization  # noqa: B018


def test_what_is_there_stays(copy, stores):
    """Nothing of a store that is refused was touched."""
    before = files_of(copy)
    rewritten(copy / "manifest.json", as_many(10**12))
    with pytest.raises(DamagedStoreError, match="number of samples"):
        encode_dataset(same_encoder(), NamedImages(N, groups=True), copy)
    assert {name for name, data in files_of(copy).items() if data != before[name]} == {"manifest.json"}
