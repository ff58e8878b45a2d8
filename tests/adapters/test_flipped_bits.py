"""One bit is changed, here and there in all that is kept: it is an error, or no number is another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from kit import classifier_of, tiny
from tiny import TinyImages

from residual import AdaptedEncoder, encode_dataset, fit_bases
from residual.adapters import ResiDualStar, TrainingRecord
from residual.errors import ResidualError
from residual.experiments import Results
from residual.tensor_files import load_tensors, save_tensors

FLIPS = 150  # of each file
NOTE = {
    "cell": "digits",
    "reference": "letters",
    "settings": {"limit": 40, "share": 0.25},
    "encoder": {"name": "picto", "weights": "f" * 64},
    "datasets": {"digits": {"name": "digits", "samples": 40}},
}


def numbers_of(value: Any) -> str:
    """Everything in it, to the last bit."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {value.tolist()}"
    if isinstance(value, pd.DataFrame):
        return f"{value.to_dict('list')} {value.dtypes.to_dict()}"
    if isinstance(value, dict):
        return str(sorted((str(name), numbers_of(each)) for name, each in value.items()))
    return str([numbers_of(each) for each in value]) if isinstance(value, list | tuple) else repr(value)


def adapter_in(folder: Path) -> Any:
    loaded = AdaptedEncoder.from_pretrained(folder, tiny())
    adapter, classifier = loaded.adapter, loaded.classifier
    parts = [adapter.bases.to_tensors(), adapter.origin, adapter.extra_repr(), adapter.ranks, adapter.weights]
    return [*parts, classifier.weights, classifier.scale, classifier.class_names, loaded.record]


def checkpoint_in(path: Path) -> Any:
    tensors, note = load_tensors(path, "checkpoint")
    return [tensors, note["number"], note["history"]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> dict[Path, Callable[[], Any]]:
    """Files, each with what reads it."""
    root = tmp_path_factory.mktemp("kept")
    encoder = tiny()
    bases = fit_bases(encode_dataset(encoder, TinyImages(20)), ("head",))
    record = TrainingRecord("tiny", {"zero_shot": 0.5, "residual_star": 0.75}, n_train=20)
    adapted = AdaptedEncoder(encoder, ResiDualStar(bases, 2), classifier_of(encoder), record)
    adapted.save_pretrained(root / "adapter")
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"unit": range(9), "kind": ["head"] * 9, "layer": [None, *range(8)], "value": rng.normal(size=9)}
    )
    results = Results(root / "cells")
    results.write("picto", "digits", NOTE, table.assign(small=rng.normal(size=9).astype(np.float32)))
    checkpoint = root / "checkpoint.safetensors"
    state = {
        "state/weight": torch.randn(5, 7),
        "optimizer/0/step": torch.tensor(3.0),
        "total": torch.ones(()),
    }
    save_tensors(checkpoint, "checkpoint", state, {"number": 3, "history": [[1, 0.5, 0.25, 1.5]]})
    return {
        root / "adapter/adapter.safetensors": lambda: adapter_in(root / "adapter"),
        root / "adapter/adapter_config.json": lambda: adapter_in(root / "adapter"),
        results.path("picto", "digits"): lambda: results.read("picto", "digits", NOTE),
        checkpoint: lambda: checkpoint_in(checkpoint),
    }


def test_every_flipped_bit_is_an_error_or_leaves_all_numbers_as_they_were(kept):
    rng, found = np.random.default_rng(5), {}
    for path, read in kept.items():
        data, before = path.read_bytes(), numbers_of(read())
        places = rng.choice(8 * len(data), FLIPS, replace=False)
        errors = 0
        for place in places.tolist():
            changed = bytearray(data)
            changed[place // 8] ^= 1 << place % 8
            path.write_bytes(changed)
            try:
                assert numbers_of(read()) == before, (path.name, place)
            except ResidualError:
                errors += 1
        path.write_bytes(data)
        assert numbers_of(read()) == before
        found[path.name] = errors
    assert all(errors > FLIPS // 3 for errors in found.values()), json.dumps(found)
