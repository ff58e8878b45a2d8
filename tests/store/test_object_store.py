"""Stores in a bucket of a real S3 server: requests are few, fail and are asked again, and processes die."""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from here import Here
from kills import Nursery
from PIL import Image
from s3_server import BROKEN, BUSY, DROPPED, FORBIDDEN, KEYS, Bucket, counts, forget, serving
from store_files import files_of, same_coordinates, same_encoder, same_files, small_shards
from tiny import TinyImages

import residual
from residual.errors import DamagedStoreError, NoStoreError, ResidualError, UnreachableAddressError
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.store.storage import Storage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and killed")

N, ROWS = 20, 8
SHARDS, ARRAYS = 3, 6
STORE = "s3://bucket/kept"


@pytest.fixture(scope="module")
def served():
    with serving() as (proxy, bucket):
        yield proxy, bucket


@pytest.fixture
def proxy(served):
    yield served[0]
    served[0].fault = None


@pytest.fixture
def bucket(served) -> Bucket:
    return served[1]


@pytest.fixture(scope="module", autouse=True)  # it starts while others are at work
def nursery(served, tmp_path_factory):
    made = Nursery(Path(__file__).with_name("s3_nursery.py"), tmp_path_factory.mktemp("s3") / "errors.txt")
    yield made
    made.close()


def encode(path, n: int = N, **how) -> ResidualStore:
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch, ROWS)
        dataset = TinyImages(n, broken=(3, n // 2))
        return encode_dataset(same_encoder(), dataset, path, batch_size=16, on_error="skip", **how)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The same store on a disk."""
    path = tmp_path_factory.mktemp("disk") / "store"
    encode(path)
    return path


@pytest.fixture
def store(served, expected) -> str:
    """One that is whole, at an address."""
    if not served[1].names("kept"):
        for name, data in files_of(expected).items():
            served[1].put(f"kept/{name}", data)
    return STORE


# Requests


def test_a_store_is_written_and_read_in_few_requests(proxy, bucket, expected):
    """The table of docs/stores.md, for shards of one file an array."""
    with proxy.counted() as write:
        encode("s3://bucket/counted")
    same_files(bucket.files("counted"), files_of(expected))
    rest = len(bucket.names("counted")) - SHARDS * (ARRAYS + 1)  # what isn't of samples
    # looked for, written, opened
    assert counts(write) == {
        "HEAD": 1, "LIST": 3, "GET": 2 + SHARDS, "PUT": SHARDS * (ARRAYS + 1) + rest
    }  # fmt: skip
    with proxy.counted() as opened:
        store = ResidualStore.open("s3://bucket/counted")
    assert counts(opened) == {"LIST": 1, "GET": 1 + SHARDS}
    with proxy.counted() as first:
        read = store.read()
    assert counts(first) == {"GET": (ARRAYS - 1) * (SHARDS + 1) + 1}  # all but digests; the descriptions once
    with proxy.counted() as again:
        store.read()
    assert counts(again) == {"GET": (ARRAYS - 1) * SHARDS}
    same_coordinates(read, ResidualStore.open(expected).read())
    with proxy.counted() as resumed:
        encode("s3://bucket/counted")
    assert counts(resumed) == {"LIST": 2, "GET": 2 + 2 * SHARDS + 2 + SHARDS}
    with proxy.counted() as verified:
        assert store.verify() == []
    assert counts(verified) == {"GET": len(bucket.names("counted"))}


def test_of_a_shard_only_the_chunks_that_are_asked_for_are_fetched(proxy, bucket, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("residual.store.layout.CHUNK_BYTES", 1100)  # a layer of 16 samples
        made = encode_dataset(same_encoder(), TinyImages(64), "s3://bucket/ranges", batch_size=64)
    z = made.layout.arrays["z"]
    assert (z.chunk_rows, z.chunk_tail[0]) == (16, 1)
    made.linearization  # noqa: B018 (read once)
    made.contributions([0], ["1.2"])
    with proxy.counted() as seen:
        made.contributions(slice(20, 30), ["1.2", "1.3"])
    [of_z] = [request for request in seen if "/z/" in request.key]
    assert of_z.status == 206
    assert of_z.bytes == z.chunk_bytes + 4 < z.size_of(64) / 10
    assert counts(seen) == {"GET": 3}  # and of the mean and the standard deviation


# Writers


def test_a_folder_that_the_listing_names_is_no_file(bucket, proxy):
    """Consoles make folders as objects; and a folder that came to be while it was listed is listed itself."""
    bucket.put("made/", b"")
    assert Storage("s3://bucket/made").sizes() == {}
    encode_dataset(same_encoder(), TinyImages(4), "s3://bucket/made", batch_size=4)

    def meanwhile(request):
        if request.method == "LIST" and not bucket.names("late"):
            late.append(request)
        elif late:
            bucket.put("late/z/c/0", b"x")

    late: list = []
    proxy.fault = meanwhile
    sizes = Storage("s3://bucket/late").sizes()
    proxy.fault = None
    assert late
    assert bucket.names("late")
    assert sizes in ({}, {"z/c/0": 1})


def test_two_writers_at_once_and_what_each_sees_of_the_other(nursery, bucket, expected):
    how = {"n": N, "rows": ROWS}
    mine = Storage("s3://bucket/shared")
    assert mine.sizes() == {}
    writers = [nursery.start("s3://bucket/shared", part=[part, 2], **how) for part in (1, 2)]
    codes = [nursery.wait(writer) for writer in writers]
    assert codes == [0, 0], nursery.errors.read_text()
    same_files(bucket.files("shared"), files_of(expected))
    assert {name: len(data) for name, data in files_of(expected).items()} == mine.sizes()
    bucket.put("shared/label/c/0", b"x")
    assert (mine.size("label/c/0"), mine.read("label/c/0"), mine.sizes()["label/c/0"]) == (1, b"x", 1)


def killing(key: str, writers: list[int]):
    """Kill a process at its first upload of what is called so."""

    def wrong(request):
        if request.method == "PUT" and key in request.key:
            os.kill(writers[0], signal.SIGKILL)

    return wrong


def test_killed_at_uploads_again_and_again(nursery, proxy, bucket, expected):
    """The request comes to the server, its answer to nobody; some steps further each time."""
    how, reached = {"n": N, "rows": ROWS}, []
    for key in ("manifest", "mlp/c/0", "receipts/000001", "z/c/2"):
        proxy.fault = killing(key, writers := [])
        writers.append(nursery.start("s3://bucket/killed", **how))
        assert nursery.wait(writers[0]) == -9
        proxy.fault = None
        reached.append([name for name in bucket.names("killed") if name.startswith("receipts/")])
        if reached[-1]:
            with pytest.warns(UserWarning, match="isn't complete"):
                assert ResidualStore.open("s3://bucket/killed").verify() == []
    assert list(map(len, reached)) == [0, 0, 2, 2]  # the second one came to the server
    assert nursery.run("s3://bucket/killed", **how) == 0
    same_files(bucket.files("killed"), files_of(expected))


# Failing servers


def unreachable(said: str):
    return pytest.raises(UnreachableAddressError, match=said)


def failing(faults):
    """Answer some of the requests so, by their number."""
    seen = 0

    def wrong(request):
        nonlocal seen
        seen += 1
        return faults.get(seen)

    return wrong


def test_what_fails_now_and_then_is_asked_again(proxy, bucket, expected):
    forget()
    proxy.fault = failing({2: BROKEN, 20: BUSY, 40: DROPPED})
    with proxy.counted() as seen:
        encode("s3://bucket/again")
    assert [request.status for request in seen if request.status not in (200, 206, 404)] == [500, 503, 0]
    same_files(bucket.files("again"), files_of(expected))
    proxy.fault = failing({9: DROPPED})
    assert ResidualStore.open("s3://bucket/again").verify() == []


def test_a_server_that_never_comes_back_costs_nothing_that_is_whole(proxy, bucket, store, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    forget()
    busy = r"the server fails, asked several times \(SlowDown\)\."
    opened = ResidualStore.open(store)
    proxy.fault = lambda request: BUSY if "receipts/000001" in request.key else None
    with unreachable(
        rf"/gone' can't be written to: {busy} What is complete is kept\. Try the same again later"
    ):
        encode("s3://bucket/gone")
    proxy.fault = lambda request: BUSY
    for call in (opened.verify, lambda: encode("s3://bucket/gone")):
        with unreachable(rf"can't be (read|listed): {busy} Try the same again later\."):
            call()  # no damage, and nobody is told to remove anything
    proxy.fault = lambda request: DROPPED
    with unreachable(r"can't be read: the server can't be reached or breaks off, tried several times\. Try"):
        opened.read()
    proxy.fault = None
    with pytest.warns(UserWarning, match="isn't complete: 8 of 20 samples"):
        assert ResidualStore.open("s3://bucket/gone").verify() == []
    forget()


# What isn't as it was written


def test_changed_missing_and_foreign_objects_are_found(bucket, store, expected):
    good = files_of(expected)
    opened = ResidualStore.open(store)
    whole = opened.read()
    name = "z/c/1/0/0/0"
    changed = bytearray(good[name])
    changed[100] ^= 1
    for data, said in (
        (bytes(changed), "holds a changed byte"),
        (good["z/c/2/0/0/0"], "isn't the file that was written, but one like it"),
        (good[name][:-30], f"has {len(good[name]) - 30:,} bytes instead of {len(good[name]):,}"),
        (b"", f"has 0 bytes instead of {len(good[name]):,}"),
        (None, "is missing"),
        (good[name] + b"more", f"has {len(good[name]) + 4:,} bytes instead of"),
    ):
        bucket.delete(f"kept/{name}") if data is None else bucket.put(f"kept/{name}", data)
        [damage] = opened.verify()
        assert (damage.file, damage.samples[0]) == (name, "tiny/8")
        assert damage.reason.startswith(said)
        if len(data or b"") > len(good[name]):  # no chunk of it is another
            same_coordinates(opened.read(), whole)
            continue
        with pytest.raises(DamagedStoreError, match=rf"^{name} {said}.*'tiny/8'"):
            opened.read()
        same_coordinates(opened.read(slice(0, 7)), whole[:7])
    bucket.put(f"kept/{name}", good[name])
    for name, reason in (
        ("receipts/000001.json", "isn't what was written"),
        ("units.json", "isn't what was"),
    ):
        bucket.put(f"kept/{name}", good[name][:-9])
        [damage] = opened.verify()
        assert damage.file == name
        assert reason in damage.reason
        bucket.put(f"kept/{name}", good[name])
    assert opened.verify() == []


# Credentials and buckets


WAY = r"in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by AWS_PROFILE\. .* named by AWS_ENDPOINT_URL\."


def test_no_bucket_no_access_and_no_credentials_are_said(proxy, monkeypatch, tmp_path):
    for call in (ResidualStore.open, encode):
        with unreachable(r"can't be (read|listed): there is no bucket 'nowhere'\. Make it .* AWS_ENDPOINT"):
            call("s3://nowhere/store")
    with unreachable(r"'s3://N[^']*' can't be read: "):
        ResidualStore.open("s3://No bucket/b")
    with pytest.raises(NoStoreError, match="There is no store at 's3://bucket/empty'"):
        ResidualStore.open("s3://bucket/empty")
    proxy.fault = lambda request: FORBIDDEN if request.method == "PUT" else None
    with unreachable(rf"can't be written to: these credentials don't allow it \(AccessDenied\).*{WAY}"):
        encode("s3://bucket/store")
    proxy.fault = lambda request: (403, "InvalidAccessKeyId", f"{request.key} of {KEYS}")
    with unreachable(r"doesn't take these credentials \(InvalidAccessKeyId\)") as caught:
        ResidualStore.open("s3://bucket/store")
    assert not any(value in str(caught.value) for value in KEYS.values())
    proxy.fault = None
    with monkeypatch.context() as patch:
        for variable in KEYS:
            patch.delenv(variable)
        forget()
        with unreachable(rf"there are no credentials for it .*{WAY}"):
            ResidualStore.open("s3://bucket/empty")
        (tmp_path / "credentials").write_text(
            f"[work]\naws_access_key_id={KEYS['AWS_ACCESS_KEY_ID']}\naws_secret_access_key=any\n"
        )
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        patch.setenv("AWS_PROFILE", "work")
        with pytest.raises(NoStoreError, match="There is no store at 's3://bucket/empty'"):
            ResidualStore.open("s3://bucket/empty")  # in the same process
    forget()


def test_credentials_are_nowhere(bucket, store):
    for key in ("AKIA:hidden@", "AKIA:hid/den@"):
        with pytest.raises(ResidualError, match=r"^No user .* the bucket\. .* AWS_PROFILE") as caught:
            Storage(f"s3://{key}bucket/kept")
        assert "hid" not in str(caught.value)
    opened = ResidualStore.open(store)
    kept = [*bucket.files("kept").values(), repr(opened).encode(), pickle.dumps(opened)]
    assert not any(value.encode() in data for value in KEYS.values() for data in kept)


# Other servers


def test_a_server_that_gives_nothing_but_whole_files(monkeypatch, tmp_path):
    monkeypatch.setattr("residual.store.layout.CHUNK_BYTES", 1100)
    made = encode_dataset(same_encoder(), TinyImages(32), tmp_path / "store")
    with web_server(tmp_path) as address:
        store = ResidualStore.open(f"{address}/store")
        assert torch.equal(store.contributions([20], ["1.2"]), made.contributions([20], ["1.2"]))
        assert store.verify() == []
        with unreachable(r"/closed' can't be read: these credentials don't allow it\. Ask its owner"):
            ResidualStore.open(f"{address}/closed?key=hidden")


@contextmanager
def web_server(folder: Path):
    class Handler(SimpleHTTPRequestHandler):  # which heeds no range
        def send_head(self):
            return self.send_error(403) if "closed" in self.path else super().send_head()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


# Processes


def _mean_of(store: ResidualStore, number: int) -> torch.Tensor:
    return store.read([number]).mean


class Rows(torch.utils.data.Dataset):
    def __init__(self, store: ResidualStore):
        self.store = store

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> torch.Tensor:
        return _mean_of(self.store, number)


def test_an_open_store_may_be_forked_and_pickled(store):
    opened = ResidualStore.open(store)
    right = opened.read(range(4)).mean
    forked = torch.utils.data.DataLoader(
        Rows(opened), batch_size=2, num_workers=2, multiprocessing_context="fork"
    )
    assert torch.equal(torch.cat(list(forked))[:, 0], right)
    same_coordinates(pickle.loads(pickle.dumps(opened)).read(), opened.read())
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        assert torch.equal(pool.submit(_mean_of, opened, 2).result(60), right[2:3])


def test_tasks_of_an_executor_write_the_store(proxy, bucket, expected):
    """Each straight into the bucket; what one process writes."""
    encode("s3://bucket/parallel", executor=Here())
    same_files(bucket.files("parallel"), files_of(expected))


# Pictures


def test_tar_files_are_read_where_they_are(proxy, bucket, tmp_path):
    for number in range(2):
        bucket.put(f"tars/train/{number}.tar", tar_of(range(4 * number, 4 * number + 4)))
        for split in ("val", "test"):
            bucket.put(f"tars/{split}/{number}.tar", tar_of(range(2)))
    images = residual.load_dataset("wds:s3://bucket/tars", "train")
    assert images.labels.tolist() == [0, 1] * 4
    here = [np.asarray(images[number][0])[0, 0].tolist() for number in range(8)]
    assert here == [[30 * number] * 3 for number in range(8)]
    loader = torch.utils.data.DataLoader(
        Corners(images), 4, num_workers=2, multiprocessing_context="fork"
    )  # fmt: skip
    assert torch.cat(list(loader)).tolist() == [30 * number for number in range(8)]
    proxy.fault = failing({1: BUSY, 2: DROPPED})
    assert np.asarray(images[0][0])[0, 0].tolist() == [0] * 3
    proxy.fault = lambda request: FORBIDDEN
    with pytest.raises(ResidualError, match=r"can't be read: .*"):
        residual.load_dataset("wds:s3://bucket/tars", "train")


class Corners(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> int:
        return int(np.asarray(self.images[number][0])[0, 0, 0])


def tar_of(numbers) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in numbers:
            picture = io.BytesIO()
            Image.new("RGB", (8, 8), (30 * number,) * 3).save(picture, "PNG")
            for name, data in (
                (f"{number}.png", picture.getvalue()),
                (f"{number}.cls", b"%d" % (number % 2)),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
