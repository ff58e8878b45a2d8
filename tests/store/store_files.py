"""What the tests of stores on disk share: their files as bytes, small shards, datasets of any shape."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import fsspec
import numpy as np
import torch
from tiny import TinyImages, tiny_encoder

from residual.encoders.encoder import Encoder
from residual.store.base import Store
from residual.tracing.coordinates import Coordinates

FIELDS = ("z", "mlp", "emb", "mean", "std", "pool_mlp")


def files_of(folder: str | Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    root = Path(folder)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def files_at(address: str) -> dict[str, bytes]:
    """The same of an fsspec address."""
    system, root = fsspec.core.url_to_fs(address)
    return {name.removeprefix(root).lstrip("/"): system.cat_file(name) for name in sorted(system.find(root))}


def same_files(got: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """The same names with the same bytes; says which differ."""
    assert sorted(got) == sorted(expected)
    assert [name for name in got if got[name] != expected[name]] == []


def small_shards(monkeypatch, rows: int = 8) -> None:
    """Stores made from now on have shards of this many samples at most."""
    monkeypatch.setattr("residual.store.layout.MOST_ROWS", rows)


def float32_encoder(seed: int = 0, centering: str = "shared", **sizes: int) -> Encoder:
    return tiny_encoder(seed, torch.float32, centering, **sizes)


@cache
def same_encoder(seed: int = 0) -> Encoder:
    """`float32_encoder` for tests that change nothing of it: made once."""
    return float32_encoder(seed)


def same_coordinates(got: Coordinates, expected: Coordinates, **tolerance: float) -> None:
    for name in FIELDS:
        one, other = getattr(got, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one.double(), other.double(), **(tolerance or {"rtol": 0, "atol": 0}))


class NamedImages(TinyImages):
    """Tiny images with ids and groups of one's own."""

    def __init__(self, n: int, ids: Sequence[str] | None = None, groups: bool = False, **how):
        super().__init__(n, **how)
        if ids is not None:
            self.sample_ids = tuple(ids)
        if groups:
            self.groups = np.arange(n, dtype=np.int64)[::-1] % 3
            self.group_names = ("one", "two", "three")


def whole_samples(store: Store, whole: Store) -> None:
    """All that a store offers is what the whole one says of the same samples."""
    at = [whole.sample_ids.index(name) for name in store.sample_ids]
    assert len(store) == len(at)
    assert store.labels.tolist() == whole.labels[at].tolist()
    if at:
        torch.testing.assert_close(store.contributions(), whole.contributions(at), rtol=0, atol=0)
