"""Encoders and what holds them go through copies, pickles and `torch.save`, to worker processes for one."""

from __future__ import annotations

import copy
import io
import pickle
from dataclasses import replace

import families
import pytest
import saved
import torch
from tiny import TinyImages, random_pixels

import residual
from residual.adapters import LinearMap
from residual.encoders.families import FAMILIES
from residual.encoders.families.vit import FAMILIES as VIT


def saved_and_loaded(value):
    with io.BytesIO() as file:
        torch.save(value, file)
        file.seek(0)
        return torch.load(file, weights_only=False)


WAYS = pytest.mark.parametrize(
    "again", [copy.deepcopy, copy.copy, lambda value: pickle.loads(pickle.dumps(value)), saved_and_loaded],
    ids=["deepcopy", "copy", "pickle", "torch.save"],
)  # fmt: skip
KINDS = ["clip", "open_clip", "siglip", "blip", "vit classifier", "dinov2", "timm attention pool"]
PICTURE = TinyImages(1).load(0)


@WAYS
@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_comes_out_equal(kind, again):
    encoder = residual.wrap_encoder(families.CASES[kind].make())
    pixels = random_pixels(2, dtype=torch.float32)
    want = residual.decompose(encoder, pixels)
    encoder.compile(lambda run: run).encode_image(pixels)
    got = again(encoder)
    assert (got.family, got.name) == (encoder.family, encoder.name)
    assert torch.equal(got.preprocess(PICTURE), encoder.preprocess(PICTURE))
    assert got.fingerprint == encoder.fingerprint
    assert (got.compiling, got.compiled) == (None, {})
    assert encoder.compiled
    torch.testing.assert_close(residual.decompose(got, pixels).contributions, again(want).contributions)
    assert (got.module is encoder.module) == (again is copy.copy)


@WAYS
@pytest.mark.parametrize("kind", ["clip", "open_clip"])
def test_an_adapted_encoder_comes_out_equal(kind, again):
    encoder = residual.wrap_encoder(families.CASES[kind].make())
    bases = residual.fit_bases(residual.encode_dataset(encoder, TinyImages(12)))
    classifier = residual.text.ZeroShotClassifier(torch.eye(encoder.output_dim), list("abcdefghijkl"))
    for adapter in (LinearMap(encoder.output_dim), residual.ResiDual(bases)):
        adapted = residual.AdaptedEncoder(encoder, adapter, classifier)
        pixels = random_pixels(2, dtype=torch.float32)
        got = again(adapted)
        torch.testing.assert_close(got(pixels), adapted(pixels))
        torch.testing.assert_close(got.encoder.encode_image(pixels), encoder.encode_image(pixels))
        assert_one_set_of_weights(got)
        assert got.method == adapted.method
        beside = sum(len(pickle.dumps(part)) for part in (encoder, adapter, classifier))
        weights = sum(each.nbytes for each in encoder.module.parameters())
        assert len(pickle.dumps(got)) - beside < weights / 4
        assert got.double().encoder.dtype == torch.float64
        assert_one_set_of_weights(got)
        others = {name: value.clone() for name, value in got.state_dict().items()}
        got.load_state_dict(others, assign=True)
        assert_one_set_of_weights(got)


def assert_one_set_of_weights(adapted):
    """The encoder behind, which runs without hooks, may have modules of its own; tensors it has none."""
    behind, own = (
        [id(each) for each in (*module.parameters(), *module.buffers())]
        for module in (adapted.encoder.module, adapted.module)
    )
    assert behind == own != []


@pytest.mark.parametrize("kind", ["hf CLIPModel", "hf BlipForImageTextRetrieval", "tiny folder"])
def test_what_was_loaded_takes_its_tokenizer_along(kind, tmp_path, monkeypatch):
    saved.no_hub(monkeypatch, tmp_path / "cache")
    encoder = residual.load_encoder(saved.CASES[kind](tmp_path / "model").name, device="cpu")
    before = pickle.loads(pickle.dumps(encoder))
    want = encoder.encode_text(["a red cat"])
    for got in (before, pickle.loads(pickle.dumps(encoder))):
        torch.testing.assert_close(got.encode_text(["a red cat"]), want)
        assert torch.equal(got.preprocess(PICTURE), encoder.preprocess(PICTURE))


def test_families_are_told_by_names_that_are_theirs_alone():
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    own = replace(VIT[0], name="my ViT")
    assert copy.copy(own) == own
    assert copy.deepcopy(FAMILIES) == FAMILIES
