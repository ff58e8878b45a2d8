"""`residual datasets`: the list, one dataset looked into, and its manifest."""

import json

import hubs
import numpy as np
import pytest
from datasets import ClassLabel, DatasetDict
from PIL import Image

from residual.data import Manifest, dataset_names, hub_dataset_names, load_dataset
from residual.data.hub import hub_entries


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    hubs.serve(monkeypatch, tmp_path / "hub", tmp_path / "kept")
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))


def test_lists_every_dataset_with_its_sizes_and_licence(residual, tmp_path):
    code, shown, _ = residual("datasets", "--json", tmp_path / "all.json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "all.json").read_text())}
    assert tuple(rows) == ("mixed", *dataset_names(), *hub_dataset_names(), "random")
    lines = {line.split()[0]: line.split() for line in shown.splitlines()[1 : 1 + len(rows)]}
    for name, row in rows.items():
        assert lines[name][1:] == [f"{n:,}" for n in (*row["sizes"].values(), row["classes"])]
        assert f"{row['source']} ({row['licence']})" in shown
        assert row["about"]
    for name in ("mixed", "flags", "random"):
        sizes = {split: len(load_dataset(name, split)) for split in ("train", "val", "test")}
        assert rows[name]["sizes"] == sizes
    assert rows["dtd"]["source"] == "hub: tanganke/dtd"
    for form in ("folder:PATH", "disk:PATH", "hf:REPO", "wds:SHARDS", "residual-vit[datasets]", "mnist-full"):
        assert form in shown


def test_looks_into_one_of_the_suite(residual, tmp_path):
    code, shown, _ = residual("datasets", "flags", "--json", tmp_path / "one.json")
    assert code == 0
    facts = json.loads((tmp_path / "one.json").read_text())
    assert {split: held["images"] for split, held in facts["splits"].items()} == {
        "train": 2000, "val": 500, "test": 1000
    }  # fmt: skip
    checksum = Manifest.of(load_dataset("flags", "val")).checksum
    assert facts["splits"]["val"]["checksum"] == checksum
    assert checksum[:16] in shown
    assert len(facts["classes"]) == 50
    assert "(50 in all)" in shown
    assert "10 a class" in shown


def test_looks_into_one_of_the_hub(residual, tmp_path):
    hubs.write_entry(tmp_path / "hub" / "grodino" / "waterbirds", hub_entries()["waterbirds"])
    code, shown, _ = residual("datasets", "waterbirds", "--json", tmp_path / "one.json")
    assert code == 0
    facts = json.loads((tmp_path / "one.json").read_text())
    assert facts["groups"][1] == "landbird on water"
    assert sum(facts["splits"]["test"]["groups"]) == facts["splits"]["test"]["images"] == 4
    assert "hub: grodino/waterbirds" in shown
    assert "landbird on water" in shown


def test_writes_a_manifest_with_the_images(residual, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(5):
            Image.new("RGB", (4, 4), (index, 0, 0)).save(tmp_path / "pets" / name / f"{index}.png")
    dataset, path = f"folder:{tmp_path / 'pets'}", tmp_path / "pets" / "manifest-test.json"
    code, _, told = residual(
        "datasets", dataset, "--split", "test", "--manifest", path, "--json", tmp_path / "j"
    )
    assert code == 0
    assert "The manifest of 2 images" in told
    written = Manifest.load(path)
    assert (written.name, written.digests is None) == ("folder:pets", False)
    assert list(written.sample_ids) == list(load_dataset(dataset, "test", manifest=path).sample_ids)
    held = json.loads((tmp_path / "j").read_text())["splits"]
    assert list(held) == ["test"]
    assert held["test"]["contents_checksum"] == written.contents_checksum


def test_columns_are_given(residual, tmp_path):
    kinds = {"one": ClassLabel(names=["x", "y"]), "other": ClassLabel(names=["p", "q", "r"])}
    table = hubs.table(np.arange(30) % 2, kinds, label="one")
    DatasetDict({"train": table}).save_to_disk(str(tmp_path / "saved"))
    name = f"disk:{tmp_path / 'saved'}"
    code, _, told = residual("datasets", name)
    assert code == 2
    assert "several columns of labels ('one', 'other')" in told
    code, shown, _ = residual("datasets", name, "--label-column", "other", "--image-column", "image")
    assert code == 0
    assert "p, q, r" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("flagz",), "Unknown dataset 'flagz'. Did you mean 'flags'"),
        (("flags", "--manifest", "x.json"), "A manifest is of one split"),
        (("flags", "--split", "tests"), "Unknown split 'tests'. Did you mean 'test'"),
        (("--split", "test"), "are for one dataset: name it"),
        (("dtd",), "dtd: 'tanganke/dtd' can't be had from the hub"),
        (("flags", "--label-column", "x"), "Only hf: and disk: have columns"),
    ],
)
def test_mistakes_are_one_sentence(residual, words, message):
    code, _, told = residual("datasets", *words)
    assert code == 2
    assert message in told
    assert told.count("\n") == 1
