"""The same model in another precision is the same model, for what was saved with it."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from tiny import TinyImages, random_pixels, tiny_vision

import residual
from residual.adapters import FitSettings
from residual.adapters.sharing import _saved
from residual.files import write_json
from residual.hashing import sha256
from residual.tensor_files import packed_parts, write_parts
from residual.text import ZeroShotClassifier

PIXELS = random_pixels(2, dtype=torch.float32)
MODEL = tiny_vision(dtype=torch.float32)


def encoder_in(dtype, model=MODEL):
    return residual.wrap_encoder(copy.deepcopy(model).to(dtype), name="tiny")


def fitted(encoder, fit=False):
    train = residual.encode_dataset(encoder, TinyImages(30))
    classes = ZeroShotClassifier.from_class_means(
        train.output(), train.labels, train.class_names, fingerprint=train.fingerprint
    )
    adapter = residual.adapters.ResiDualStar(residual.fit_bases(train))
    if fit:
        residual.fit(adapter, train, train, classes, FitSettings(epochs=2))
    return residual.AdaptedEncoder(encoder, adapter, classes)


@pytest.mark.parametrize(
    ("saved_in", "loaded_in"),
    [
        (torch.float32, torch.float16),
        (torch.float16, torch.float32),
        (torch.float16, torch.float16),
        (torch.float32, torch.bfloat16),
    ],
)
def test_an_adapter_goes_with_its_model_in_other_precisions(saved_in, loaded_in, tmp_path):
    adapted = fitted(encoder_in(saved_in), fit=saved_in == loaded_in)
    encoder = encoder_in(loaded_in)
    adapted.save_pretrained(tmp_path / "first")
    got = residual.AdaptedEncoder.from_pretrained(tmp_path / "first", encoder)
    want, features = (each.encode_image(PIXELS) for each in (adapted, got))
    assert features.dtype == torch.float32
    assert ((features - want).norm() / want.norm()) < (5e-2 if loaded_in != saved_in else 1e-5)
    assert got.adapter.origin.is_of(encoder)
    got.save_pretrained(tmp_path / "second")  # by what it is now; it loads with either
    for dtype in (saved_in, loaded_in):
        residual.AdaptedEncoder.from_pretrained(tmp_path / "second", encoder_in(dtype))


def test_where_precision_may_be_why_it_is_said(tmp_path):
    folder, half = tmp_path / "adapter", encoder_in(torch.float16)
    adapted = fitted(encoder_in(torch.bfloat16))
    adapted.save_pretrained(folder)
    why = r"its float16 is why: load it in float32 or in bfloat16.*\.half\(\) then"
    with pytest.raises(residual.ResidualError, match=why):
        residual.AdaptedEncoder.from_pretrained(folder, half)
    loaded = residual.AdaptedEncoder.from_pretrained(folder, encoder_in(torch.bfloat16)).half()
    assert loaded.encoder.dtype == torch.float16
    with pytest.raises(residual.ResidualError, match=why):
        residual.AdaptedEncoder(half, adapted.adapter)
    other = encoder_in(torch.float16, tiny_vision(seed=1, dtype=torch.float32))
    with pytest.raises(residual.ResidualError, match="is for tiny"):
        residual.AdaptedEncoder.from_pretrained(folder, other)


def test_a_config_without_the_other_digest_goes_by_the_first(tmp_path):
    fitted(encoder_in(torch.float32)).save_pretrained(tmp_path)

    tensors, config = _saved(tmp_path)
    del config["rounded_fingerprint"]
    parts = packed_parts("adapted encoder", tensors, {"format": 1, "config": config})
    write_parts(tmp_path / "adapter.safetensors", parts)
    write_json(tmp_path / "adapter_config.json", config | {"sha256": sha256(*parts)})
    assert "rounded_fingerprint" not in json.loads((tmp_path / "adapter_config.json").read_text())
    residual.AdaptedEncoder.from_pretrained(tmp_path, encoder_in(torch.float32))
    with pytest.raises(residual.ResidualError, match="its float16 is why"):
        residual.AdaptedEncoder.from_pretrained(tmp_path, encoder_in(torch.float16))


def test_some_of_each_class_are_drawn_as_before():
    labels = np.random.default_rng(1).integers(0, 7, 200) * 3
    shuffled = np.random.default_rng(5).permutation(200)
    want = np.sort(np.concatenate([shuffled[labels[shuffled] == label][:4] for label in np.unique(labels)]))
    np.testing.assert_array_equal(residual.adapters.few_shot(labels, 4, seed=5), want)
