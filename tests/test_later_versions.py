"""Files that a later version wrote: read if understood whole, else told as that, and left as they are."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import TinyImages, tiny_encoder

from residual import AdaptedEncoder, ResidualStore, SpectralBases, encode_dataset, fit_bases, load_encoder
from residual.adapters.fine_tuning import checkpoints
from residual.data import Manifest, load_dataset
from residual.errors import LaterVersionError, LeftOutWarning, ResidualError, UnknownFieldsError
from residual.experiments.results import Results, write_table
from residual.libraries import version_of
from residual.spectral import UnitMoments
from residual.store.manifest import read_signed, signed
from residual.tensor_files import load_tensors, save_tensors
from residual.text.embedding import embed_texts

VERSION = {"versions": {"residual-vit": "9.1.0"}}
LATER = r"was written by residual-vit 9\.1\.0, a later version .* pip install 'residual-vit>=9\.1\.0'"


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(dtype=torch.float32)


@contextmanager
def version_9_1():
    """Whatever is written here is written by that version."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("residual.libraries.version", lambda _: "9.1.0")
        version_of.cache_clear()
        yield
    version_of.cache_clear()


def test_tensors_splits_and_tables(tmp_path, encoder):
    data = TinyImages(9)
    store = encode_dataset(encoder, data)
    bases, moments = tmp_path / "bases.safetensors", tmp_path / "moments"
    split, results = tmp_path / "split.json", Results(tmp_path / "results")
    note = {"cell": "c", "reference": "c", "encoder": {"name": "e"}, "settings": {}, "datasets": {}}
    table, cell = pd.DataFrame({"unit": [1]}), results.path("e", "c")

    with version_9_1():
        fit_bases(store).save(bases)
        UnitMoments.of_store(store, ("head",)).save(moments)
        Manifest.of(data).save(split)
        write_table(cell, note, table)
    readers = {
        bases: lambda: SpectralBases.load(bases),
        moments: lambda: UnitMoments.load(moments),
        split: lambda: Manifest.load(split),
        cell: lambda: results.read("e", "c", note),
    }
    for path, read in readers.items():
        assert b"9.1.0" in path.read_bytes()
        assert read() is not None  # nothing in it is new
        whole = path.read_bytes()
        path.write_bytes(whole[:-9])
        with pytest.raises(LaterVersionError, match=LATER):
            read()
        path.write_bytes(whole)
    for path, kind in ((bases, "bases"), (moments, "moments")):
        tensors, told = load_tensors(path, kind)
        save_tensors(path, kind, tensors, {**told, "whitened": True, **VERSION})
        with pytest.raises(LaterVersionError, match=LATER):
            readers[path]()
    split.write_text(split.read_text().replace('"format"', '"weights": [1],\n "format"'))
    with pytest.raises(LaterVersionError, match=LATER):
        Manifest.load(split)
    split.write_text(split.read_text().replace("9.1.0", version_of("residual-vit")))
    with pytest.raises(UnknownFieldsError, match=r"split.json has 'weights', .* doesn't know.* remove that"):
        Manifest.load(split)
    split.write_text(split.read_text().replace('"versions"', '"checks"'))
    with pytest.raises(
        LaterVersionError, match=r"'checks', 'weights', .* Remove that; or if a later version"
    ):
        Manifest.load(split)
    with pytest.raises(LaterVersionError, match=LATER):
        results.read("e", "c", {**note, "reference": "d"})


def test_stores_are_neither_opened_nor_gone_on_with(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr("residual.store.layout.MOST_ROWS", 4)
    path, data = tmp_path / "store", TinyImages(9)
    with version_9_1():
        encode_dataset(encoder, data, path)
    assert ResidualStore.open(path).verify() == []
    for name, change in (
        ("manifest.json", {"format": "residual store 2"}),
        ("manifest.json", {"tokens": 3}),
        ("receipts/000001.json", {"more": 1, **VERSION}),
    ):
        file, whole = path / name, (path / name).read_bytes()
        file.write_bytes(signed(read_signed(whole, "") | change))
        before = {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}
        with pytest.raises(LaterVersionError, match=LATER):
            ResidualStore.open(path, damaged=True)
        with pytest.raises(LaterVersionError, match=LATER):
            encode_dataset(encoder, data, path)
        assert {each: each.read_bytes() for each in path.rglob("*") if each.is_file()} == before
        file.write_bytes(whole)


def test_adapters(tmp_path, encoder):
    with version_9_1():
        AdaptedEncoder(encoder).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    assert AdaptedEncoder.from_pretrained(tmp_path, encoder=encoder).encoder.name == "tiny"
    told = json.loads(path.read_text())
    for change in (
        {"encoder": told["encoder"] | {"revision": "main"}},
        {"format": 2},
        {"method": "magic"},
        {"sha256": "0" * 64, "merged": True},
    ):
        path.write_text(json.dumps(told | change))
        with pytest.raises(LaterVersionError, match=LATER):
            AdaptedEncoder.from_pretrained(tmp_path, encoder=encoder)


def test_checkpoints_are_not_said_to_be_of_another_training(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    for note in (
        {"identity": {"weights": "x", "schedule": "cosine"}},
        {"identity": {"weights": "x"}, "ema": 1},
    ):
        save_tensors(path, "checkpoint", {}, note | VERSION)
        with pytest.raises(LaterVersionError, match=LATER):
            checkpoints.read(path, {"weights": "x"})


def test_kept_texts_of_a_later_version_stay(tmp_path, monkeypatch):
    encoder = load_encoder("picto", "cpu")
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path))
    expected = embed_texts(encoder, ["a"])
    (path,) = (tmp_path / "texts").iterdir()
    tensors, note = load_tensors(path, "texts")
    save_tensors(path, "texts", tensors, {**note, **VERSION, "more": 1})
    before = path.read_bytes()
    assert torch.equal(embed_texts(encoder, ["a"]), expected)
    assert path.read_bytes() == before


def test_only_what_is_noted_of_versions_is_one(tmp_path):
    path, names = tmp_path / "split.json", ('"residual-vit": "9.9"', 'versions: "residual-vit": "9.9"')
    Manifest("flags", "val", names, ("a",), np.zeros(1, np.int64)).save(path)
    path.write_text(path.read_text().replace('"a"', '"b"'))
    with pytest.raises(ResidualError, match="was changed: its checksum") as caught:
        Manifest.load(path)
    assert not isinstance(caught.value, LaterVersionError)


def test_what_a_split_was_is_not_left_out_silently(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path))
    now, path = Manifest.of(load_dataset("flags", "val")), tmp_path / "manifests" / "flags-val.json"
    for version, told in (
        ("9.1.0", pytest.warns(LeftOutWarning, match=f"flags/val isn't compared with .* {LATER}")),
        (version_of("residual-vit"), pytest.raises(UnknownFieldsError, match="has 'comment'")),
    ):
        Manifest("flags", "val", now.class_names, ("a",), np.zeros(1, np.int64)).keep(path)
        kept = path.read_text().replace(version_of("residual-vit"), version)
        path.write_text(kept.replace('"format"', '"comment": "ours",\n "format"'))
        before = path.read_bytes()
        with told:
            load_dataset("flags", "val")
        assert path.read_bytes() == before


def test_fields_of_an_origin_are_told_with_the_file(tmp_path, encoder):
    path = tmp_path / "bases.safetensors"
    fit_bases(encode_dataset(encoder, TinyImages(9))).save(path)
    tensors, note = load_tensors(path, "bases")
    save_tensors(path, "bases", tensors, {"origin": note["origin"] | {"more": 1}, "versions": {}})
    with pytest.raises(LaterVersionError, match=r"bases\.safetensors has 'more' in the origin"):
        SpectralBases.load(path)
