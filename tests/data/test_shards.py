"""webdataset shards, written by webdataset itself: on disk, in memory and over a local web server."""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import pickle
import re
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from residual.addresses import check_address, file_system
from residual.data import shard_files
from residual.data.shards import ShardsDataset
from residual.errors import LeftOutWarning, ResidualError, UnreadableImageError
from residual.store.storage import Storage

SPLITS = ("train", "val", "test")
KINDS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(number: int, suffix: str = "png") -> bytes:
    image = Image.new("RGB", (6 + number % 5, 7), (number % 256, number // 256, 99))
    file = io.BytesIO()
    image.save(file, KINDS[suffix.rpartition(".")[2].lower()])
    return file.getvalue()


def sample(number: int, label: object, suffix: str = "png") -> dict:
    return {"__key__": f"{number:06d}", suffix: picture(number, suffix), "cls": label}


def write(path: Path, samples: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for one in samples:
            writer.write(one)
    return path


def write_set(folder: Path, n: int = 30, shards: int = 3, classes: int = 3, name: str = "{:03d}.tar") -> dict:
    """`n` samples in as many shards; their bytes and labels by id."""
    written = {}
    for number in range(shards):
        of_shard = range(number * n // shards, (number + 1) * n // shards)
        write(folder / name.format(number), [sample(i, i % classes) for i in of_shard])
        written |= {f"{name.format(number)}/{i:06d}": (picture(i), i % classes) for i in of_shard}
    return written


def write_benchmark(root: Path, splits=("train", "test"), n: int = 20, numbered: bool = True) -> None:
    """As CLIP_benchmark's mirrors are laid out."""
    for split in splits:
        write_set(root / split, n, 2, 2, "{}.tar")
        if numbered:
            (root / split / "nshards.txt").write_text("2\n")
    (root / "classnames.txt").write_text("red fox\ngrey owl\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\nthe {c}\n")


def read_all(address: object) -> dict:
    """Everything in all three splits, by id."""
    found = {}
    for split in SPLITS:
        data = ShardsDataset(str(address), split)
        for i in range(len(data)):
            assert data.sample_ids[i] not in found
            found[data.sample_ids[i]] = data.content(i), int(data.labels[i])
    return found


def to_memory(folder: Path, name: str) -> str:
    system = fsspec.filesystem("memory")
    for file in folder.rglob("*"):
        if file.is_file():
            system.pipe_file(f"/{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return f"memory://{name}"


class Quiet(SimpleHTTPRequestHandler):
    """A plain file server: it sends whole files and lists folders."""

    asked: ClassVar[list] = []

    def log_message(self, *_):
        pass


class Ranges(Quiet):
    """One that sends parts of files and, as many do, lists nothing."""

    def list_directory(self, path):
        self.send_error(404)

    def do_GET(self):
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not asked or not path.is_file():
            super().do_GET()
            return
        start, end = int(asked[1]), int(asked[2])
        content = path.read_bytes()
        part = content[start : end + 1]
        self.asked.append((self.path, start, len(part)))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


class Unmarked(Ranges):
    """One that doesn't say when a file was changed."""

    def send_header(self, keyword, value):
        if keyword != "Last-Modified":
            super().send_header(keyword, value)


@pytest.fixture
def serve():
    """Serves a folder; its address."""
    if not (find_spec("aiohttp") and find_spec("requests")):
        pytest.skip("fsspec reads http:// by aiohttp and requests, which aren't installed")
    running = []

    def start(folder: Path, handler: type[Quiet] = Ranges) -> str:
        handler.asked.clear()
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_was_written_is_read_and_split_60_20_20(tmp_path):
    written = write_set(tmp_path, 60)
    assert read_all(tmp_path / "{000..002}.tar") == written
    parts = [ShardsDataset(f"{tmp_path}/*.tar", split) for split in SPLITS]
    assert [np.bincount(part.labels).tolist() for part in parts] == [[12] * 3, [4] * 3, [4] * 3]
    again = [ShardsDataset(f"{tmp_path}/*.tar", split) for split in SPLITS]
    assert [part.sample_ids for part in parts] == [part.sample_ids for part in again]
    train = parts[0]
    assert train.name == f"wds:{tmp_path}/*.tar"
    assert train.where == "wds:*.tar"
    assert train.class_names == ("0", "1", "2")
    assert train.licence == "the user's own images; no licence known"
    image, label = train[3]
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (int(train.sample_ids[3][-6:]), 0, 99))
    assert label == train.labels[3]
    assert all(template.count("{}") == 1 for template in train.templates)


def test_ways_to_name_the_same_shards(tmp_path):
    written = write_set(tmp_path)
    lists, stars = ("{000,001,002}", "{00{0..1},002}", "{0,0}0{0..2}"), ("*", "00*")
    for form in ("{000..002}", "00{0..2}", "{002..000}", *lists, *stars):
        assert read_all(tmp_path / f"{form}.tar") == written, form


def test_one_shard_and_a_relative_address(tmp_path, monkeypatch):
    written = write_set(tmp_path / "a", shards=1)
    monkeypatch.chdir(tmp_path)
    assert read_all("a/000.tar") == written
    data = ShardsDataset("a/000.tar", "train")
    monkeypatch.chdir("/")
    assert data[0][0].mode == "RGB"


def test_shards_that_webdataset_splits_itself(tmp_path):
    with webdataset.ShardWriter(str(tmp_path / "part-%04d.tar"), maxcount=7, verbose=0) as writer:
        for i in range(24):
            writer.write(sample(i, i % 2))
    assert set(read_all(tmp_path / "part-{0000..0003}.tar")) == {
        f"part-{i // 7:04d}.tar/{i:06d}" for i in range(24)
    }


@pytest.mark.parametrize("form", ["{split}/*.tar", "{split}/{000..002}.tar", "{split}-*.tar"])
def test_an_address_with_split(tmp_path, form):
    for split, n in zip(SPLITS, (30, 9, 12), strict=True):
        name = f"{split}/{{:03d}}.tar" if "/" in form else f"{split}-{{:03d}}.tar"
        write_set(tmp_path, n, 3, 3, name)
    parts = [ShardsDataset(f"{tmp_path}/{form}", split) for split in SPLITS]
    assert [len(part) for part in parts] == [30, 9, 12]
    assert len({i for part in parts for i in part.sample_ids}) == 51
    assert parts[1].sample_ids[0] == ("val/000.tar/000000" if "/" in form else "val-000.tar/000000")


def test_val_is_a_fifth_of_train_where_there_is_none(tmp_path):
    for split in ("train", "test"):
        write_set(tmp_path / split, 30)
    train, val, test = (ShardsDataset(f"{tmp_path}/{{split}}/*.tar", split) for split in SPLITS)
    assert (len(train), len(val), len(test)) == (24, 6, 30)
    assert np.bincount(val.labels).tolist() == [2, 2, 2]
    assert not set(train.sample_ids) & set(val.sample_ids)


@pytest.mark.parametrize("form", ["{split}/*.tar", "{split}/{000..002}.tar", ""])
def test_train_and_test_must_be_there(tmp_path, form):
    write_set(tmp_path / "train")
    for split in SPLITS:
        with pytest.raises(ResidualError, match=r"no shards of 'test' at .*\. Name shards as in"):
            ShardsDataset(f"{tmp_path}/{form}", split)


@pytest.mark.parametrize("numbered", [True, False])
def test_the_layout_of_clip_benchmark(tmp_path, numbered):
    write_benchmark(tmp_path, numbered=numbered)
    train, val, test = (ShardsDataset(str(tmp_path), split) for split in SPLITS)
    assert (len(train), len(val), len(test)) == (16, 4, 20)
    assert test.class_names == ("red fox", "grey owl")
    assert test.templates == ("a photo of a {}.", "the {}")
    assert test.sample_ids[0] == "test/0.tar/000000"
    assert test.sample_ids == ShardsDataset(f"{tmp_path}/", "test").sample_ids
    assert len(ShardsDataset(f"{tmp_path}/{{split}}/*.tar", "test")) == 20
    assert ShardsDataset(f"{tmp_path}/{{split}}/{{0,1}}.tar", "val").class_names == ("red fox", "grey owl")


def test_numbered_shards_are_in_the_order_of_their_numbers_listed_or_not(tmp_path):
    for split in ("train", "test"):
        write_set(tmp_path / split, 24, 12, 2, "{}.tar")
    listed = ShardsDataset(str(tmp_path), "test").sample_ids
    (tmp_path / "test" / "nshards.txt").write_text("12")
    assert ShardsDataset(str(tmp_path), "test").sample_ids == listed
    assert listed[-1] == "test/11.tar/000023"


def test_what_nshards_says_must_be_there(tmp_path):
    write_benchmark(tmp_path)
    (tmp_path / "train" / "nshards.txt").write_text("3")
    with pytest.raises(ResidualError, match=r"Of the 3 shards .* this isn't there: '.*/train/2\.tar'"):
        ShardsDataset(str(tmp_path), "train")
    (tmp_path / "train" / "nshards.txt").write_text("many")
    with pytest.raises(ResidualError, match=r"nshards.txt' must say how many shards there are, got 'many'"):
        ShardsDataset(str(tmp_path), "train")
    (tmp_path / "train" / "nshards.txt").write_text("2")
    (tmp_path / "train" / "0.tar").unlink()
    (tmp_path / "train" / "1.tar").unlink()
    with pytest.raises(ResidualError, match=r"says 2, but there is no '.*/train/0\.tar'"):
        ShardsDataset(str(tmp_path), "train")


def test_through_memory(tmp_path):
    written = write_set(tmp_path / "plain")
    address = to_memory(tmp_path / "plain", "wds-plain")
    assert read_all(f"{address}/*.tar") == written
    assert read_all(f"{address}/{{000..002}}.tar") == written
    write_benchmark(tmp_path / "bench")
    address = to_memory(tmp_path / "bench", "wds-bench")
    assert read_all(address) == read_all(tmp_path / "bench")
    assert ShardsDataset(address, "val").class_names == ("red fox", "grey owl")
    assert ShardsDataset(address, "val")[0][0].mode == "RGB"


@pytest.mark.parametrize("handler", [Ranges, Quiet])
def test_over_http(tmp_path, serve, handler):
    written = write_set(tmp_path / "plain")
    write_benchmark(tmp_path / "bench")
    address = serve(tmp_path, handler)
    assert read_all(f"{address}/plain/{{000..002}}.tar") == written
    assert read_all(f"{address}/bench") == read_all(tmp_path / "bench")
    assert ShardsDataset(f"{address}/bench", "test").templates == ("a photo of a {}.", "the {}")
    if handler is Quiet:
        assert read_all(f"{address}/plain/*.tar") == written
    with pytest.raises(ResidualError, match=r"There are no shards at 'http://127.*nowhere\.tar'"):
        ShardsDataset(f"{address}/nowhere.tar", "train")


def test_a_stream_in_order_and_pieces_out_of_order(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(shard_files, "BLOCK", 20_000)
    written = write_set(tmp_path, 60, 1)
    size = (tmp_path / "000.tar").stat().st_size
    data = ShardsDataset(f"{serve(tmp_path)}/000.tar", "train")
    Ranges.asked.clear()
    assert [data.content(i) for i in range(len(data))] == [written[i][0] for i in data.sample_ids]
    assert len(Ranges.asked) <= size // 20_000 + 2
    Ranges.asked.clear()
    backwards = [data.content(i) for i in reversed(range(len(data)))]
    assert backwards[::-1] == [written[i][0] for i in data.sample_ids]
    assert sum(length for _, _, length in Ranges.asked) < size


def test_a_broken_connection_is_tried_again(tmp_path, monkeypatch):
    write_set(tmp_path)
    data = ShardsDataset(f"{to_memory(tmp_path, 'wds-flaky')}/*.tar", "train")
    monkeypatch.setattr(shard_files.time, "sleep", lambda _: None)
    system, fail = type(fsspec.filesystem("memory")), [2]
    real = system.cat_file

    def cat_file(*args, **kwargs):
        if fail[0]:
            fail[0] -= 1
            raise ConnectionResetError("connection reset")
        return real(*args, **kwargs)

    monkeypatch.setattr(system, "cat_file", cat_file)
    assert data[0][0].mode == "RGB"
    fail[0] = 99
    with pytest.raises(ResidualError, match=r"000\.tar' can't be read: connection reset") as caught:
        ShardsDataset.content(pickle.loads(pickle.dumps(data)), 0)
    assert not isinstance(caught.value, UnreadableImageError)  # the images are fine, so none is to be skipped


def test_images_by_their_suffix(tmp_path):
    for suffix in (*KINDS, "PNG", "Jpg", "image.png", "image.small.JPEG"):
        write(tmp_path / "0.tar", [sample(i, i % 2, suffix) for i in range(6)])
        expected = {f"0.tar/{i:06d}": (picture(i, suffix), i % 2) for i in range(6)}
        assert read_all(tmp_path / "0.tar") == expected, suffix


def test_a_mask_beside_the_image_is_left_alone_and_two_images_are_not(tmp_path):
    samples = [sample(i, i % 2, "jpg") | {"mask.png": picture(200)} for i in range(6)]
    write(tmp_path / "0.tar", samples)
    assert read_all(tmp_path / "0.tar")["0.tar/000003"] == (picture(3, "jpg"), 1)
    write(tmp_path / "1.tar", [one | {"png": picture(200)} for one in samples])
    with pytest.raises(ResidualError, match=r"'000000' of shard .*1\.tar' has two images, \.jpg and \.png"):
        ShardsDataset(f"{tmp_path}/1.tar", "train")


@pytest.mark.parametrize("key", ["label", "cls", "class", "class_id"])
@pytest.mark.parametrize("value", [1, "1", "grey owl"])
def test_labels_in_json(tmp_path, key, value):
    other = "red fox" if value == "grey owl" else 0
    samples = [
        {"__key__": f"{i}", "png": picture(i), "json": {key: value if i % 2 else other, "other": [1]}}
        for i in range(6)
    ]
    write(tmp_path / "0.tar", samples)
    data = ShardsDataset(f"{tmp_path}/0.tar", "train")
    assert data.class_names == (("grey owl", "red fox") if value == "grey owl" else ("0", "1"))
    numbers = [int(i.rsplit("/", 1)[1]) % 2 for i in data.sample_ids]
    assert data.labels.tolist() == ([1 - n for n in numbers] if value == "grey owl" else numbers)


def test_labels_that_are_texts(tmp_path):
    names = ("zebra", "big cat", "émeu")
    samples = [sample(i, names[i % 3].encode() + b"\n") for i in range(12)]
    write(tmp_path / "0.tar", samples)
    data = ShardsDataset(f"{tmp_path}/0.tar", "train")
    assert data.class_names == ("big cat", "zebra", "émeu")
    assert [data.class_names[label] for label in data.labels] == [
        names[int(i[-6:]) % 3] for i in data.sample_ids
    ]
    (tmp_path / "classes.txt").write_text("zebra\nbig cat\némeu\nunseen\n", encoding="utf-8")
    with pytest.warns(LeftOutWarning, match="no samples of 1 of its 4 classes: 'unseen'"):
        data = ShardsDataset(f"{tmp_path}/0.tar", "train")
    assert data.class_names == ("zebra", "big cat", "émeu", "unseen")
    assert data.labels.tolist() == [int(i[-6:]) % 3 for i in data.sample_ids]
    (tmp_path / "classes.txt").write_text("zebra\nbig cat\n", encoding="utf-8")
    with pytest.raises(ResidualError, match=r"'000002' of shard .* the label 'émeu', which is none of the 2"):
        ShardsDataset(f"{tmp_path}/0.tar", "train")


def test_class_numbers_beyond_the_names_and_beyond_train(tmp_path):
    write_set(tmp_path / "train", classes=2)
    write_set(tmp_path / "test", classes=3)
    with pytest.raises(
        ResidualError, match=r"'000002' of shard .* the label 2, which is none of the 2 classes"
    ):
        ShardsDataset(f"{tmp_path}/{{split}}/*.tar", "test")
    (tmp_path / "classnames.txt").write_text("a\nb\nc\n")
    assert ShardsDataset(f"{tmp_path}/{{split}}/*.tar", "test").class_names == ("a", "b", "c")
    (tmp_path / "classnames.txt").write_text("a\n\nc\n")
    with pytest.raises(ResidualError, match=r"classnames\.txt .* a class name on every line"):
        ShardsDataset(f"{tmp_path}/{{split}}/*.tar", "test")


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([0, 1, "cat"], "numbers in some samples and texts in others"),
        ([0, 10**7], "Label 10000000 .* too large"),
        ([0, -1], "the label -1, which is neither a class number nor a class name"),
        ([0, b"\xff\xfe\x00"], "label that can't be read"),
        ([0, b" "], "the label '', which is neither"),
        ([3], "too few images to split|only one class"),
        ([0], "only one class, '0'"),
        (
            [0, 0, 0, 1],
            r"Class '1' of .* too few images to split: \d, where train, val and test need at least 3",
        ),
    ],
)
def test_labels_that_do_not_do(tmp_path, labels, problem):
    n = 8 if len(labels) == 4 else 2 * len(labels)
    write(tmp_path / "0.tar", [sample(i, labels[i % len(labels)]) for i in range(n)])
    with pytest.raises(ResidualError, match=problem):
        ShardsDataset(f"{tmp_path}/0.tar", "train")


@pytest.mark.parametrize(
    "value",
    [
        {"label": 1.5},
        {"label": [1]},
        {"label": True},
        {"label": {}},
        [1],
        {"caption": "a cat"},
        {"label": None},
    ],
)
def test_json_without_a_label(tmp_path, value):
    write(tmp_path / "0.tar", [{"__key__": "a/b", "png": picture(1), "json": value}])
    with pytest.raises(ResidualError, match=r"Sample 'a/b' of shard '.*0\.tar' has (no|the) label"):
        ShardsDataset(f"{tmp_path}/0.tar", "train")


def test_samples_without_image_or_label_are_named(tmp_path):
    samples = [sample(i, i % 2) for i in range(6)]
    write(tmp_path / "0.tar", [*samples, {"__key__": "odd", "cls": 1}])
    with pytest.raises(ResidualError, match=r"Sample 'odd' of shard '.*0\.tar' has no image, only \.cls"):
        ShardsDataset(f"{tmp_path}/0.tar", "train")
    write(tmp_path / "1.tar", [{"__key__": "odd", "png": picture(0)}, *samples])
    with pytest.raises(ResidualError, match=r"Sample 'odd' of shard '.*1\.tar' has no label \(\.cls"):
        ShardsDataset(f"{tmp_path}/1.tar", "train")


def test_keys_that_are_there_twice(tmp_path):
    samples = [sample(i, i % 2) for i in range(6)]
    write(tmp_path / "0.tar", [*samples, sample(0, 0)])
    with pytest.raises(ResidualError, match=r"Sample '000000' of shard '.*0\.tar' is there twice"):
        ShardsDataset(f"{tmp_path}/0.tar", "train")
    write(tmp_path / "1.tar", [sample(0, 0), sample(0, 0)])
    with pytest.raises(ResidualError, match=r"Sample '000000' of shard '.*1\.tar' has two files \.png"):
        ShardsDataset(f"{tmp_path}/1.tar", "train")
    write(tmp_path / "2.tar", samples)
    write(tmp_path / "3.tar", samples)  # the same keys in another shard are other samples
    assert len(read_all(tmp_path / "{2,3}.tar")) == 12


def test_names_that_lead_out_of_the_shard_are_only_names(tmp_path):
    folder = tmp_path / "in" / "here"
    keys = ("../../x", "/etc/x", "a/../b", "a.d/x", "..x/y")
    with webdataset.TarWriter(str(write(folder / "0.tar", []))) as writer:
        for i, key in enumerate(keys * 2):
            writer.write(sample(i, i % 2) | {"__key__": f"{key}{i}"})
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    found = read_all(folder / "0.tar")
    assert found == {f"0.tar/{key}{i}": (picture(i), i % 2) for i, key in enumerate(keys * 2)}
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_links_devices_and_hidden_files_in_a_shard_are_no_samples(tmp_path):
    write(tmp_path / "0.tar", [sample(i, i % 2) for i in range(6)])
    with tarfile.open(tmp_path / "0.tar", "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo(f"odd{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        for name in (".DS_Store", "._000001.png", "README"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert len(read_all(tmp_path / "0.tar")) == 6


def test_long_names_and_every_kind_of_tar(tmp_path):
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        deep = "é" if kind != tarfile.USTAR_FORMAT else "e"
        keys = [f"{deep * 90}/{'k' * 90}{i}" for i in range(6)]
        with tarfile.open(tmp_path / f"{kind}.tar", "w", format=kind) as tar:
            for i, key in enumerate(keys):
                for suffix, content in ((".png", picture(i)), (".cls", b"%d" % (i % 2))):
                    member = tarfile.TarInfo(key + suffix)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        assert read_all(tmp_path / f"{kind}.tar") == {
            f"{kind}.tar/{key}": (picture(i), i % 2) for i, key in enumerate(keys)
        }


def test_a_name_that_is_no_text(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo("a\udcff.png")
        tar.addfile(member, io.BytesIO())
    with pytest.raises(ResidualError, match=r"Sample 'a\\udcff' of shard .* name that isn't UTF-8"):
        ShardsDataset(f"{tmp_path}/0.tar", "train")


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_shard_cut_off_anywhere_is_named(tmp_path, place):
    write_set(tmp_path, 12, 2)
    whole = (tmp_path / "001.tar").read_bytes()
    with tarfile.open(tmp_path / "001.tar") as tar:
        members = tar.getmembers()
    last = members[-1]
    end = last.offset_data + 512
    cuts = {0, 1, 300, 512, 700, members[3].offset, members[3].offset + 100, end - 1, end, end + 100}
    for cut in sorted(cuts):
        (tmp_path / "001.tar").write_bytes(whole[:cut])
        address = tmp_path if place == "disk" else to_memory(tmp_path, "wds-cut")
        with pytest.raises(ResidualError, match=r"Shard '.*001\.tar' is cut off, damaged or no tar file"):
            ShardsDataset(f"{address}/*.tar", "train")
    (tmp_path / "001.tar").write_bytes(whole[: end + 512])
    assert len(read_all(f"{tmp_path}/*.tar")) == 12


def test_a_damaged_header_and_a_file_that_is_no_tar(tmp_path):
    write_set(tmp_path, 12, 1)
    whole = bytearray((tmp_path / "000.tar").read_bytes())
    with tarfile.open(tmp_path / "000.tar") as tar:
        at = tar.getmembers()[4].offset
    whole[at + 10] ^= 1
    (tmp_path / "000.tar").write_bytes(whole)
    with pytest.raises(ResidualError, match=r"000\.tar' is cut off, damaged or no tar file"):
        ShardsDataset(f"{tmp_path}/000.tar", "train")
    (tmp_path / "000.tar").write_text("<html>Not found</html>" * 100)
    with pytest.raises(ResidualError, match=r"000\.tar' is cut off, damaged or no tar file"):
        ShardsDataset(f"{tmp_path}/000.tar", "train")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("name", ["0.tar", "0.tar.gz", "0.tgz"])
def test_packed_shards_are_refused(tmp_path, mode, name):
    with tarfile.open(tmp_path / name, mode) as tar:
        tar.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    for address in (name, "*"):
        with pytest.raises(
            ResidualError, match=r"is packed by (gzip|bzip2|xz), .* Unpack it to a plain \.tar"
        ):
            ShardsDataset(f"{tmp_path}/{address}", "train")


def test_a_broken_image_is_named_and_the_others_are_read(tmp_path):
    samples = [sample(i, i % 2) for i in range(10)]
    samples[4]["png"] = picture(4)[:30]
    samples[7]["png"] = b""
    write(tmp_path / "0.tar", samples)
    parts = [ShardsDataset(f"{tmp_path}/0.tar", split) for split in SPLITS]
    for part in parts:
        for i, name in enumerate(part.sample_ids):
            if name in ("0.tar/000004", "0.tar/000007"):
                with pytest.raises(UnreadableImageError, match=rf"{name}.*; wds:0\.tar"):
                    part[i]
            else:
                assert part[i][0].getpixel((0, 0)) == (int(name[-6:]), 0, 99)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_shard_that_changes_or_goes_while_it_is_read(tmp_path, place):
    write_set(tmp_path)
    system = fsspec.filesystem("memory")
    address = tmp_path if place == "disk" else to_memory(tmp_path, "wds-change")
    data = ShardsDataset(f"{address}/*.tar", "train")
    for content, problem in ((bytes(100), "has changed since"), (None, "can't be read")):
        for name in ("000.tar", "001.tar", "002.tar"):
            if place == "memory":
                system.pipe_file(f"{address}/{name}", content) if content else system.rm(f"{address}/{name}")
            else:
                (tmp_path / name).write_bytes(content) if content else (tmp_path / name).unlink()
        with pytest.raises(ResidualError, match=rf"000\.tar' {problem}"):
            data[0]


def test_another_shard_of_the_same_size_is_not_taken_for_the_one_that_was_listed(tmp_path):
    write_set(tmp_path)
    data = ShardsDataset(f"{tmp_path}/*.tar", "train")
    first, second = tmp_path / "000.tar", tmp_path / "001.tar"
    assert first.stat().st_size == second.stat().st_size
    second.replace(first)
    with pytest.raises(ResidualError, match=r"000\.tar' has changed since"):
        data[0]


def test_an_index_is_made_once_and_anew_for_a_changed_shard(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("RESIDUAL_CACHE", str(cache))
    write_set(tmp_path)
    made = read_all(tmp_path / "*.tar")
    assert len(list((cache / "shards").iterdir())) == 3
    opened = []
    real = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: opened.append(k["fileobj"].name) or real(*a, **k))
    assert read_all(tmp_path / "*.tar") == made
    assert opened == []
    write(tmp_path / "001.tar", [sample(i, i % 3) for i in range(40, 49)])
    opened.clear()
    changed = read_all(tmp_path / "{000..002}.tar")
    assert opened == [str(tmp_path / "001.tar")]
    assert "001.tar/000048" in changed
    assert "001.tar/000010" not in changed
    assert len(list((cache / "shards").iterdir())) == 3


def test_an_index_is_not_kept_where_nobody_tells_that_the_shard_changed(tmp_path, serve):
    write(tmp_path / "0.tar", [sample(i, i % 2) for i in range(6)])
    address = f"{serve(tmp_path, Unmarked)}/0.tar"
    before = {i: label for i, (_, label) in read_all(address).items()}
    write(tmp_path / "0.tar", [sample(i, 1 - i % 2) for i in range(6)])  # of the same size
    assert {i: label for i, (_, label) in read_all(address).items()} == {i: 1 - n for i, n in before.items()}


def test_a_damaged_index_is_made_anew(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("RESIDUAL_CACHE", str(cache))
    write_set(tmp_path, shards=1)
    made = read_all(tmp_path / "000.tar")
    (file,) = (cache / "shards").iterdir()
    good = file.read_text()
    held = json.loads(good)
    for damage in (
        "",
        good[:-40],
        "[" * 100_000,
        "null",
        "[]",
        json.dumps(held | {"keys": None}),
        json.dumps(held | {"offsets": [n + 512 for n in held["offsets"]]}),
        json.dumps({k: v for k, v in held.items() if k != "labels"}),
        json.dumps(held | {"format": "residual shard index 0"}),
    ):
        file.write_text(damage)
        assert read_all(tmp_path / "000.tar") == made
        assert file.read_text() == good
    file.write_bytes(b"\xff\x00")
    assert read_all(tmp_path / "000.tar") == made


def test_a_cache_that_cannot_be_written_to_is_no_matter(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "file"))
    assert read_all(tmp_path / "*.tar") if write_set(tmp_path) else None


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("", "'wds:' needs an address after it"),
        ("{0..a}.tar", r"'\{0\.\.a\}' in .* is no range"),
        ("{splits}.tar", r"'\{splits\}' in .* and not \{split\}"),
        ("{0..999999}.tar", "more than 100,000 shards"),
        ("{0..999}{0..999}.tar", "more than 100,000 shards"),
        ("nowhere.tar", r"no shards at .*nowhere\.tar'\. Name shards as in"),
        ("nowhere/*.tar", "no shards at"),
        ("{0..3}.tar", "no shards at"),
        ("nowhere", "no shards of 'train' and 'test' at"),
        ("folder.tar", "no shards of 'train' and 'test' at"),
        ("{folder,file}.tar", r"folder\.tar' is a folder, not a tar file"),
    ],
)
def test_addresses_that_lead_nowhere(tmp_path, address, problem):
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(ResidualError, match=problem):
        ShardsDataset(f"{tmp_path}/{address}" if address else "", "train")


def test_one_shard_of_several_is_missing(tmp_path):
    write_set(tmp_path)
    with pytest.raises(ResidualError, match=r"Of the 6 shards .* isn't there: '.*003\.tar' \(and 2 more\)"):
        ShardsDataset(f"{tmp_path}/{{000..005}}.tar", "train")


def test_protocols_without_their_library_and_those_that_are_not_read(tmp_path, monkeypatch):
    def missing(address):
        assert not refused, "fsspec saw it"
        library = {"s3": "s3fs", "https": "aiohttp", "gs": "gcsfs"}[address]
        raise ImportError(f"Install {library}") from ModuleNotFoundError(name=library)

    refused = False
    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    for protocol, install in (("s3", r"'residual-vit\[s3\]'"), ("https", r".*\[web\]'"), ("gs", "gcsfs")):
        for opened in (lambda address: ShardsDataset(address, "train"), Storage):
            with pytest.raises(
                ResidualError, match=rf"needs \w+, which isn't installed: pip install {install}\."
            ):
                opened(f"{protocol}://bucket/x.tar")
    refused = True
    for address in (
        "nope://x.tar",
        "reference://refs.json",
        "github://own:er@main/0.tar",
        "HTTP://host/0.tar",
        f"{tmp_path}/{{0,memory::reference://a}}.tar",
        "simplecache::http://host/0.tar",
        "http://host/?x::zip://0.tar",
        "file:///data/a::b",
    ):
        for opened in (lambda address: ShardsDataset(address, "train"), Storage):
            with pytest.raises(
                ResidualError, match=r"no address that is read\. Read are paths and .*https://"
            ):
                opened(address)


def test_colons_in_a_folder_s_name_and_in_a_host_chain_nothing(tmp_path):
    write_set(tmp_path / "a::b")
    assert len(ShardsDataset(f"{tmp_path}/a::b/{{000..002}}.tar", "train").labels)
    system, path = file_system("http://[::1]:8000/x.tar")
    assert (system.protocol, path) == (("http", "https"), "http://[::1]:8000/x.tar")
    assert check_address("abfss://files@host/x.tar") == "abfss"
    for address in ("http://[::1]::zip://x", "http://host/[::1]/x", "zip://a::/data/b"):
        with pytest.raises(ResidualError, match="is no address that is read"):
            check_address(address)


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    """Of a tar's member, whatever size it says."""
    buffer = bytearray(tarfile.TarInfo(name).tobuf())
    buffer[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    buffer[156:157] = kind
    buffer[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(buffer))[0]
    return bytes(buffer)


def pax(records: bytes, size: int | None = None) -> bytes:
    return header("x", size or len(records), b"x") + records.ljust(-(-len(records) // 512) * 512, b"\0")


def test_headers_that_lead_back_or_far_away_end_the_reading(tmp_path):
    whole = write(tmp_path / "0.tar", [sample(i, i % 2) for i in range(6)]).read_bytes()
    for first in (
        header("a.png", -512),
        header("a.png", 2**70),
        header("a.png", 40 * 10**9),
        header("a.png", 40 * 10**9, b"L"),
        header("a.png", -1, b"K"),
        pax(b"15 size=-99999\n") + header("a.png", 0),
        pax(b"19 size=9999999999\n") + header("a.png", 0),
        pax(b"", 2**40),
        pax(b"9 a=1234\n") * 3000,
        pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n") + header("a.png", 512) + bytes(512),
    ):
        for content in (first + whole, whole[:-10240] + first + bytes(1024)):
            (tmp_path / "0.tar").write_bytes(content)
            with pytest.raises(ResidualError, match=r"0\.tar' is cut off, damaged or no tar file"):
                ShardsDataset(f"{tmp_path}/0.tar", "train")


def test_pipes_devices_and_what_is_too_large_for_a_picture_or_a_text(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "0.tar")
    (tmp_path / "1.tar").symlink_to("/dev/zero")
    for address in ("0.tar", "1.tar", "*.tar"):
        with pytest.raises(ResidualError, match="is a pipe or a device, not a tar file"):
            ShardsDataset(f"{tmp_path}/{address}", "train")
    (tmp_path / "0.tar").unlink()
    write(tmp_path / "0.tar", [sample(i, i % 2) for i in range(6)])
    data = ShardsDataset(f"{tmp_path}/0.tar", "train")
    monkeypatch.setattr("residual.data.shards.MOST_BYTES", 10)
    with pytest.raises(UnreadableImageError, match=r"bytes, at most 10 are read; wds:0\.tar"):
        data[0]
    for text, sentence in (("", "a class name on every line"), ("x" * 2**24 + "x", "bytes")):
        (tmp_path / "classnames.txt").write_text(text)
        for address in (tmp_path, to_memory(tmp_path, "wds-texts")):
            with pytest.raises(ResidualError, match=f"classnames.txt.*{sentence}"):
                ShardsDataset(f"{address}/0.tar", "train")
    (tmp_path / "classnames.txt").unlink()
    os.mkfifo(tmp_path / "classnames.txt")
    with pytest.raises(ResidualError, match=r"classnames\.txt' is no regular file"):
        ShardsDataset(f"{tmp_path}/0.tar", "train")


def test_shards_without_samples(tmp_path):
    write(tmp_path / "0.tar", [])
    with pytest.raises(ResidualError, match="have no samples"):
        ShardsDataset(f"{tmp_path}/0.tar", "train")
    (tmp_path / "classes.txt").write_text("a\nb")
    with pytest.raises(ResidualError, match="have no samples"):
        ShardsDataset(f"{tmp_path}/0.tar", "train")
    write(tmp_path / "1.tar", [sample(i, i % 2) for i in range(6)])
    assert len(read_all(tmp_path / "*.tar")) == 6


def test_templates_and_names_that_cannot_be_read(tmp_path):
    write_benchmark(tmp_path)
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo\n")
    with pytest.raises(ResidualError, match=r"must have one \{c\}: 'a photo'"):
        ShardsDataset(str(tmp_path), "test")
    (tmp_path / "classnames.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ResidualError, match=r"classnames.txt' isn't text in UTF-8"):
        ShardsDataset(str(tmp_path), "test")


def contents(data: ShardsDataset, indices: list[int]) -> list[bytes]:
    return [data.content(i) for i in indices]


@pytest.mark.parametrize(("method", "place"), [("fork", "http"), ("spawn", "disk")])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python's, of any process that has threads
def test_two_worker_processes(tmp_path, request, method, place):
    written = write_set(tmp_path)
    address = tmp_path if place == "disk" else request.getfixturevalue("serve")(tmp_path)
    data = ShardsDataset(f"{address}/{{000..002}}.tar", "train")
    expected = [written[i][0] for i in data.sample_ids]
    assert contents(data, [0, 1]) == expected[:2]  # so that there is something open to inherit
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap(ShardsDataset.content, [(data, i) for i in range(len(data))], chunksize=3)
        pool.close()
        pool.join()
    assert found == expected
    assert contents(data, list(range(len(data)))) == expected


@pytest.mark.parametrize("place", ["disk", "memory", "http"])
def test_eight_threads(tmp_path, request, place):
    written = write_set(tmp_path)
    if place == "http":
        address = request.getfixturevalue("serve")(tmp_path)
    else:
        address = tmp_path if place == "disk" else to_memory(tmp_path, "wds-threads")
    data = ShardsDataset(f"{address}/{{000..002}}.tar", "train")
    order = list(range(len(data))) * 8
    np.random.default_rng(0).shuffle(order)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(data.content, order))
    assert found == [written[data.sample_ids[i]][0] for i in order]


def test_a_pickled_copy_reads_the_same(tmp_path):
    write_set(tmp_path)
    for address in (tmp_path, to_memory(tmp_path, "wds-pickle")):
        data = ShardsDataset(f"{address}/*.tar", "train")
        data.content(0)
        small = len(pickle.dumps(data))
        copy = pickle.loads(pickle.dumps(data))
        assert contents(copy, list(range(len(data)))) == contents(data, list(range(len(data))))
        assert len(pickle.dumps(data)) == small  # nothing that was read goes along


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(6, 40),
    shards=st.integers(1, 5),
    classes=st.integers(2, 4),
    suffix=st.sampled_from(["png", "jpg", "webp", "x.bmp", "image.GIF"]),
    as_text=st.booleans(),
    remote=st.booleans(),
    block=st.sampled_from([1, 700, 4000, 2**20]),
)
def test_any_shape(tmp_path_factory, n, shards, classes, suffix, as_text, remote, block):
    n = max(n, 3 * classes)
    folder = tmp_path_factory.mktemp("any")
    written = {}
    for number in range(shards):
        rows = range(number * n // shards, (number + 1) * n // shards)
        labels = {i: "abcd"[i % classes] if as_text else i % classes for i in rows}
        write(folder / f"{number}.tar", [sample(i, labels[i], suffix) for i in rows])
        written |= {f"{number}.tar/{i:06d}": (picture(i, suffix), i % classes) for i in rows}
    address = to_memory(folder, folder.name) if remote else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_files, "BLOCK", block)
        assert read_all(f"{address}/{{0..{shards - 1}}}.tar") == written


def test_a_key_in_an_address_is_not_written_down():
    from residual.data.shards import without_query

    assert without_query("https://host/a/{split}.tar?key=secret&x=1") == "https://host/a/{split}.tar"
    assert without_query("https://host/a/000.tar") == "https://host/a/000.tar"
    assert without_query("what?/000.tar") == "what?/000.tar"
