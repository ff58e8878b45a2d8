"""A store and bases that version 0.1.0 wrote are opened, verified, gone on with, and mean the same.

They are in `old/`, of `encoder()` and `dataset()` below in shards of eight samples; `old/numbers.json` holds
what 0.1.0 read.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from store_files import NamedImages, files_of, float32_encoder, same_files

import residual

OLD = Path(__file__).with_name("old")
NUMBERS = json.loads((OLD / "numbers.json").read_text())
ROWS = [0, 9, 10, 22]  # the samples, and the units below, that numbers are kept of
UNITS = [0, 2, 6]


def encoder():
    return float32_encoder(layers=2, heads=2, head_width=8, output=6)


def dataset():
    return NamedImages(24, groups=True, broken=(10,))


def near(got: torch.Tensor, name: str, miss: float = 1e-5) -> None:
    torch.testing.assert_close(got, torch.tensor(NUMBERS[name]), rtol=miss, atol=miss)


def test_it_opens_and_verifies_with_its_numbers():
    store = residual.ResidualStore.open(OLD / "store")
    assert store.verify() == []
    assert store.complete
    assert store.layout.shards == 3
    for kept in (store, store.load()):
        assert kept.groups.tolist() == NUMBERS["groups"]
        assert list(kept.group_names) == NUMBERS["group_names"]
        assert kept.reasons == NUMBERS["skipped"]
        assert kept.digests.tolist() == NUMBERS["digests"]
        near(kept.contributions(ROWS, UNITS), "contributions")
        near(kept.output()[ROWS], "output")
        assert kept.labels.tolist() == NUMBERS["labels"]
        assert list(kept.sample_ids) == NUMBERS["sample_ids"]
        assert kept.fingerprint == NUMBERS["fingerprint"] == encoder().fingerprint
        assert kept.skipped == tuple(NUMBERS["skipped"])
        assert (kept.dataset, kept.encoder_name, kept.pooling) == ("tiny/train", "tiny", "own")
        assert kept.kinds == ("emb", "mlp", "head")


def test_it_is_gone_on_with(tmp_path):
    """A shard is lost, its receipt too: what is left stays as it is, and the rest is made anew."""
    path = tmp_path / "store"
    shutil.copytree(OLD / "store", path)
    lost = ["receipts/000001.json", *(name for name in files_of(path) if "/c/1" in name)]
    for name in lost:
        (path / name).unlink()
    with pytest.warns(UserWarning, match="isn't complete: 16 of 24 samples are there"):
        assert len(residual.ResidualStore.open(path)) == 16
    store = residual.encode_dataset(encoder(), dataset(), path, on_error="skip", batch_size=8)
    assert store.verify() == []
    before, after = files_of(OLD / "store"), files_of(path)
    same_files({name: after[name] for name in after if name not in lost},
               {name: before[name] for name in before if name not in lost})  # fmt: skip
    assert sorted(before) == sorted(after)
    torch.testing.assert_close(
        store.contributions(), residual.ResidualStore.open(OLD / "store").contributions(), rtol=0, atol=2e-2
    )
    assert store.reasons == NUMBERS["skipped"]


def test_its_bases_are_those_of_the_store():
    bases = residual.SpectralBases.load(OLD / "bases.safetensors")
    again = residual.fit_bases(residual.ResidualStore.open(OLD / "store"), kinds=("head", "mlp"))
    for old, new, number in zip(bases.eigenvalues, again.eigenvalues, NUMBERS["eigenvalues"], strict=True):
        np.testing.assert_allclose(np.asarray(old), number, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(np.asarray(new), number, rtol=1e-4, atol=1e-5)
    assert list(bases.units) == list(again.units)
    assert bases.origin.is_of(residual.ResidualStore.open(OLD / "store"))
    assert bases.origin.is_of(encoder())
