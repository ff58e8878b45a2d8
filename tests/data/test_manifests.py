"""What is in a split is written down when it is first built, and compared from then on."""

import io
import json
import os
import subprocess
import sys
import tarfile

import hubs
import numpy as np
import pytest
from datasets import ClassLabel, DatasetDict
from PIL import Image

from residual.data import Manifest, hold_out, hub_dataset_names, load_dataset
from residual.errors import ResidualError


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "manifests"


def pictures(folder, count=5):
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.new("RGB", (4, 4), (index, 0, 0)).save(folder / name / f"{index}.png")
    return f"folder:{folder}"


def tables(n=20, names=("a", "b")):
    kinds = {"label": ClassLabel(names=list(names))}
    return {source: hubs.table(np.arange(n) % 2, kinds) for source in ("train", "test")}


def test_a_suite_split_is_written_once_and_compared(cache):
    data = load_dataset("flags", "val")
    path = cache / "flags-val.json"
    assert Manifest.load(path).checksum == Manifest.of(data).checksum
    before = path.stat().st_mtime_ns
    load_dataset("flags", "val")
    assert path.stat().st_mtime_ns == before
    assert sorted(file.name for file in cache.iterdir()) == ["flags-val.json"]


@pytest.mark.parametrize("change", ["class", "label", "sample", "id"])
def test_another_split_than_before_is_refused(cache, change):
    data = load_dataset("flags", "val")
    kept = Manifest.of(data)
    ids, labels, names = list(kept.sample_ids), kept.labels.copy(), list(kept.class_names)
    if change == "class":
        names[3] = "atlantis"
    elif change == "label":
        labels[7] = (labels[7] + 1) % 50
    elif change == "id":
        ids[7] = "other"
    else:
        ids, labels = ids[:-1], labels[:-1]
    Manifest(kept.name, kept.split, tuple(names), tuple(ids), labels).keep(cache / "flags-val.json")
    with pytest.raises(
        ResidualError,
        match=r"flags val isn't what the manifest of when it was first built \(delete '.*flags-val.json'",
    ):
        load_dataset("flags", "val")
    (cache / "flags-val.json").unlink()
    assert len(load_dataset("flags", "val")) == 500


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "other"}', b"\xff\xfe", b"[]"])
def test_a_kept_file_that_is_no_manifest_is_written_anew(cache, content):
    cache.mkdir(parents=True)
    (cache / "flags-val.json").write_bytes(content)
    data = load_dataset("flags", "val")
    assert Manifest.load(cache / "flags-val.json").checksum == Manifest.of(data).checksum


def test_a_closed_cache_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "file"))
    assert len(load_dataset("flags", "val")) == 500
    assert (tmp_path / "file").read_text() == "in the way"


def test_processes_may_build_it_at_once(cache):
    code = "from residual.data import load_dataset; print(len(load_dataset('letters', 'test')))"
    many = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)]
    assert {process.communicate()[0].strip() for process in many} == {b"1014"}
    assert [file.name for file in cache.iterdir()] == ["letters-test.json"]
    assert len(Manifest.load(cache / "letters-test.json").sample_ids) == 1014


def test_a_repository_that_changed_is_refused(cache, tmp_path, monkeypatch):
    hubs.serve(monkeypatch, tmp_path / "hub", tmp_path / "kept")
    hubs.write_repository(tmp_path / "hub" / "me" / "birds", tables())
    for name in ("hf:me/birds", "hf:me/birds:default"):
        load_dataset(name, "test")
    load_dataset("hf:me/birds", "test", label_column="label")
    assert len(list(cache.iterdir())) == 3
    (tmp_path / "hub" / "me" / "birds").rename(tmp_path / "before")
    hubs.write_repository(tmp_path / "hub" / "me" / "birds", tables(22))
    with pytest.raises(
        ResidualError, match="22 samples here, 20 there; 2 of them in one only, such as 'test/00020'"
    ):
        load_dataset("hf:me/birds", "test")


def test_a_file_beside_the_data_is_compared(tmp_path, cache):
    name = pictures(tmp_path / "pets", 10)
    data = load_dataset(name, "test")
    assert not cache.exists()
    Manifest.of(data, contents=True).save(tmp_path / "pets" / "manifest-test.json")
    assert load_dataset(name, "test").sample_ids == data.sample_ids
    pictures(tmp_path / "pets", 12)
    load_dataset(name, "train")
    with pytest.raises(
        ResidualError, match=r"folder:.* test isn't what the manifest '.*manifest-test.json' .delete it"
    ):
        load_dataset(name, "test")


def test_a_saved_table_has_one_beside_it_too(tmp_path):
    DatasetDict(tables()).save_to_disk(str(tmp_path / "saved"))
    name = f"disk:{tmp_path / 'saved'}"
    Manifest.of(load_dataset(name, "val")).save(tmp_path / "saved" / "manifest-val.json")
    load_dataset(name, "val")
    Manifest.of(load_dataset(name, "test")).save(tmp_path / "saved" / "manifest-val.json", overwrite=True)
    with pytest.raises(ResidualError, match=r"val isn't what the manifest '.*manifest-val.json' .delete it"):
        load_dataset(name, "val")


def test_shards_have_one_beside_them_too(tmp_path):
    for split, count in (("train", 10), ("test", 4)):
        (tmp_path / split).mkdir()
        with tarfile.open(tmp_path / split / "0.tar", "w") as shard:
            for index in range(count):
                for kind, content in (("png", hubs.picture(index)), ("cls", str(index % 2).encode())):
                    member = tarfile.TarInfo(f"{index:03d}.{kind}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    data = load_dataset(f"wds:{tmp_path}", "test")
    assert data.labels.tolist() == [0, 1, 0, 1]
    Manifest.of(data).save(tmp_path / "manifest-val.json")
    load_dataset(f"wds:{tmp_path}", "test")
    with pytest.raises(ResidualError, match=r"val isn't what the manifest '.*manifest-val.json' .delete it"):
        load_dataset(f"wds:{tmp_path}", "val")


@pytest.mark.parametrize("name", ["random", "flags", "folder"])
def test_a_given_manifest_is_compared(tmp_path, name):
    name = pictures(tmp_path / "pets") if name == "folder" else name
    path = tmp_path / "mine.json"
    Manifest.of(load_dataset(name, "val")).save(path)
    load_dataset(name, "val", manifest=path)
    with pytest.raises(ResidualError, match=r"test isn't what the manifest '.*mine.json' says"):
        load_dataset(name, "test", manifest=path)
    held = json.loads(path.read_text())
    held["samples"][0][1] += 1
    path.write_text(json.dumps(held))
    with pytest.raises(ResidualError, match="was changed: its checksum"):
        load_dataset(name, "val", manifest=path)
    os.unlink(path)
    with pytest.raises(ResidualError, match=r"mine.json' can't be read: No such file"):
        load_dataset(name, "val", manifest=path)


def test_a_fourth_cell_names_groups_the_same_in_all_splits(tmp_path):
    """Written in by hand; what is told there is what is held out, and what a store and a manifest keep."""
    name, styles = pictures(tmp_path / "pets", 10), {"train": ("ink", "wood"), "val": ("wood",)}
    for split in ("train", "val", "test"):
        path = tmp_path / "pets" / f"manifest-{split}.json"
        Manifest.of(load_dataset(name, split)).save(path)
        fields = json.loads(path.read_text())
        for number, cells in enumerate(fields["samples"]):
            cells += [own[number % len(own)]] if (own := styles.get(split)) else []
        path.write_text(json.dumps(fields))
    data = {split: load_dataset(name, split) for split in ("train", "val", "test")}
    assert [data[split].group_names for split in data] == [("ink", "wood"), ("ink", "wood"), ()]
    assert data["train"].groups.tolist() == [0, 1] * 6
    assert data["val"].groups.tolist() == [1] * 4
    assert data["test"].groups is None
    assert len(hold_out(data, ["wood"])["val"]) == 6 + 4
    again = tmp_path / "again.json"
    Manifest.of(data["train"]).save(again)
    assert Manifest.load(again).groups == ("ink", "wood") * 6
    again.write_text(again.read_text().replace('"ink"', '"clay"', 1))
    with pytest.raises(ResidualError, match=r"0.png' is of the group 'ink' here, 'clay' there"):
        load_dataset(name, "train", manifest=again)
    with pytest.raises(ResidualError, match=r"'wood' is a group of folder.*/val, but folder.*/test doesn't"):
        hold_out(data | {"train": data["test"]}, ["wood"])


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ([], "is missing"),
        ([""], "is empty"),
        ([" "], "is empty"),
        ([None], "is no text"),
        (["a", "b"], "is no text"),
        (["a\n"], "has control characters"),
    ],
)
def test_every_sample_has_a_group_where_one_has(tmp_path, cells, why):
    name, path = pictures(tmp_path / "pets"), tmp_path / "mine.json"
    Manifest.of(load_dataset(name, "val")).save(path)
    fields = json.loads(path.read_text())
    fields["samples"] = [
        [*sample, *(cells if not at else ["a"])] for at, sample in enumerate(fields["samples"])
    ]
    path.write_text(json.dumps(fields))
    with pytest.raises(
        ResidualError, match=rf"no manifest of a split \(the group of 'cats/\d.png' {why}.*\)\."
    ):
        load_dataset(name, "val", manifest=path)


def test_files_that_are_no_manifests_are_refused(tmp_path):
    path = tmp_path / "digits.json"
    Manifest.of(load_dataset("digits", "test")).save(path)
    fields = json.loads(path.read_text())
    odd = [[["a", label, None]] for label in (99, -1, 1.5, True, 2**70, "0", None)]
    for text in (
        *(json.dumps(fields | {"samples": samples}) for samples in (*odd, [[7, 1, None]], 5, [[]])),
        json.dumps(fields | {"class_names": [0, 1]}),
        "[" * 100_000,
        '{"format": NaN}',
        "[]",
    ):
        path.write_text(text)
        with pytest.raises(ResidualError, match=r"digits\.json' is no manifest of a split"):
            Manifest.load(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ResidualError, match=r"is no manifest of a split .*no regular file"):
        load_dataset("digits", "test", manifest=path)


def test_contents_tell_images_apart(tmp_path):
    name = pictures(tmp_path / "pets")
    data = load_dataset(name, "test")
    before = Manifest.of(data, contents=True)
    Image.new("RGB", (4, 4), "white").save(tmp_path / "pets" / data.sample_ids[1])
    after = Manifest.of(load_dataset(name, "test"), contents=True)
    assert before.checksum == after.checksum
    assert before.contents_checksum != after.contents_checksum
    with pytest.raises(ResidualError, match=f"'{data.sample_ids[1]}' is another image"):
        after.check(before, "x")
    path = tmp_path / "test.json"
    after.save(path)
    held = json.loads(path.read_text())
    held["samples"][1][2] = f"{before.digests[1]:016x}"
    path.write_text(json.dumps(held))
    with pytest.raises(ResidualError, match="was changed: its checksum"):
        Manifest.load(path)


def test_names_of_kept_files_are_apart():
    assert len({name.lower() for name in hub_dataset_names()}) == len(hub_dataset_names())
