"""Nothing that a store says of its samples is lost on any way: all public fields are compared."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import torch
from store_files import float32_encoder, small_shards
from tiny import TinyImages

from residual.data import PixelDataset
from residual.spectral import fit_bases
from residual.store import MemoryStore, ResidualStore, Store, encode_dataset

FIELDS = [each.name for each in dataclasses.fields(Store) if each.name != "linearization"]


def grouped(n: int = 13, broken: tuple[int, ...] = (2, 9)) -> TinyImages:
    dataset = TinyImages(n, broken=broken, name="birds", split="test")
    dataset.groups, dataset.group_names = np.arange(n) % 3, ("x", "y", "z")
    return dataset


def about(store: Store) -> dict[str, Any]:
    """All that can be compared by ==."""
    values = {name: getattr(store, name) for name in [*FIELDS, "centering", "skipped"]}
    values["units"] = store.units.to_dict("list")
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()
    }


def same(got: Store, expected: Store) -> None:
    told, wanted = about(got), about(expected)
    assert [name for name in wanted if told[name] != wanted[name] and name != "units"] == []
    units = expected.linearization.units.positions(expected.kinds)
    mine, theirs = (store.contributions(units=units).float() for store in (got, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_every_way_keeps_every_field(tmp_path, monkeypatch):
    small_shards(monkeypatch, 4)
    encoder, dataset = float32_encoder(), grouped()
    how: dict[str, Any] = {"on_error": "skip", "pooling": "patches", "kinds": ("head", "mlp")}
    store = encode_dataset(encoder, dataset, tmp_path / "a", dtype="float32", **how)
    assert all(len(value) for value in about(store).values())  # none is what it is by default
    assert (store.groups.tolist()[:4], len(store)) == ([0, 1, 0, 1], 11)
    memory = encode_dataset(encoder, dataset, **how)
    same(memory, store)
    for part in (2, 1, 3):
        parts = encode_dataset(encoder, dataset, tmp_path / "b", dtype="float32", part=(part, 3), **how)
    same(parts, store)
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()
    next((tmp_path / "b/receipts").glob("*1.json")).unlink()
    same(encode_dataset(encoder, dataset, tmp_path / "b", dtype="float32", **how), store)
    for again in (
        ResidualStore.open(tmp_path / "a"),
        store.load(),
        pickle.loads(pickle.dumps(store)),
        copy.deepcopy(store.load()),
        store.load().subset(slice(None)),
        MemoryStore.of(store, memory.coordinates),
    ):
        same(again, store)
    chosen = store.load().subset([5, 0])
    assert chosen.groups.tolist() == store.groups[[5, 0]].tolist()
    assert {name: value for name, value in about(chosen).items() if name in ("reasons", "group_names")} == {
        name: value for name, value in about(store).items() if name in ("reasons", "group_names")
    }
    origin = fit_bases(store, ("head",)).origin
    assert type(origin).of_json(origin.to_json(), "a") == origin
    assert (origin.pooling, origin.fingerprint) == ("patches", encoder.fingerprint)


def test_subsets_of_datasets_keep_every_field():
    groups = {"groups": np.arange(4) % 2, "group_names": ["x", "y"]}
    about = {"name": "n", "split": "val", "templates": ["a {}"], **groups}
    pixels = PixelDataset(torch.zeros(4, 3, 8, 8), np.arange(4) % 2, ["a", "b"], **about)
    for dataset in (grouped(broken=()), pixels):
        some = dataset.subset([3, 1])
        own = {name: value for name, value in vars(dataset).items() if not name.startswith("_")}
        lost = [
            name for name in own if name not in ("pixels", "images", "broken") and not hasattr(some, name)
        ]
        assert lost == []
        for name in ("name", "split", "class_names", "templates", "group_names", "licence"):
            assert getattr(some, name) == getattr(dataset, name), name
        for name in ("labels", "groups", "sample_ids"):
            assert list(getattr(some, name)) == [getattr(dataset, name)[index] for index in (3, 1)], name
