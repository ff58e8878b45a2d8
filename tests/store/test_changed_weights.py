"""Weights that change in place, by whatever way, change the fingerprint and what is kept under it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from store_files import files_of, float32_encoder, same_files
from tiny import TinyImages, random_pixels, tiny_clip

from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError
from residual.hashing import bit_sums
from residual.spectral.fit import stream_moments
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.store.forward import Encoding
from residual.text.embedding import embed_texts


def fused_step(weights: torch.nn.Parameter) -> None:
    """Fused optimizers write past the version counter."""
    weights.grad = torch.ones_like(weights)
    torch.optim.AdamW([weights], lr=0.1, fused=True).step()


def rows_swapped(weights: torch.nn.Parameter) -> None:
    rows = weights.data.flatten(1)
    rows[[0, 1]] = rows[[1, 0]].clone()


WAYS = {
    "in place": lambda weights: weights.detach().mul_(1.5),
    "data": lambda weights: weights.data.mul_(1.5),
    "one number by numpy": lambda weights: weights.detach().numpy().__setitem__((3, 4), 0.5),
    "fused step": fused_step,
    "rows swapped": rows_swapped,
    "other memory": lambda weights: setattr(weights, "data", weights.data * 2),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_store_of_the_weights_before_is_refused(tmp_path, way):
    encoder, dataset, path = float32_encoder(), TinyImages(6), tmp_path / "store"
    encode_dataset(encoder, dataset, path)
    before, files = encoder.fingerprint, files_of(path)
    weights = encoder.module.vision_model.encoder.layers[1].mlp.fc1.weight
    WAYS[way](weights)
    assert encoder.fingerprint != before
    assert encoder.fingerprint == wrap_encoder(copy.deepcopy(encoder.module)).fingerprint
    assert encode_dataset(encoder, dataset).fingerprint == encoder.fingerprint
    with pytest.raises(ResidualError, match=f"holds something else: encoder weights {before[:16]}, not"):
        encode_dataset(encoder, dataset, path)
    same_files(files_of(path), files)


def test_weights_that_change_meanwhile_leave_nothing_of_two_models(tmp_path, monkeypatch):
    monkeypatch.setattr("residual.store.layout.MOST_ROWS", 4)
    dataset, path, change = TinyImages(12), tmp_path / "store", "weights of .* changed while it encoded"

    def train(_: str, done: int, of: int) -> None:
        if done == 6:
            weights.data.mul_(1.5)

    for encode in (
        lambda encoder: encode_dataset(encoder, dataset, batch_size=2, progress=train),
        lambda encoder: encode_dataset(encoder, dataset, path, batch_size=2, dtype="float32", progress=train),
        lambda encoder: stream_moments(encoder, dataset, Encoding(batch_size=2), progress=train),
    ):
        encoder = float32_encoder()
        weights = encoder.module.vision_model.encoder.layers[1].mlp.fc1.weight
        with pytest.raises(ResidualError, match=change):
            encode(encoder)
    assert len(ResidualStore.open(path, cut_off=True)) == 4  # of the shard that was whole before
    expected = encode_dataset(float32_encoder(), dataset, batch_size=2)
    store = encode_dataset(float32_encoder(), dataset, path, batch_size=2, dtype="float32")
    assert torch.equal(store.output(), expected.output())


@pytest.mark.parametrize("assign", [False, True])
def test_weights_that_are_loaded(assign):
    encoder, before = float32_encoder(), float32_encoder().fingerprint
    assert encoder.fingerprint == before
    encoder.module.load_state_dict(tiny_clip(1, torch.float32).state_dict(), assign=assign)
    assert encoder.fingerprint == float32_encoder(1).fingerprint
    encoder.module.load_state_dict(tiny_clip(0, torch.float32).state_dict(), assign=assign)
    assert encoder.fingerprint == before


def test_embeddings_of_text_are_of_the_weights_of_now(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path))
    clip = tiny_clip(0, torch.float32)
    tuned, plain = (wrap_encoder(copy.deepcopy(clip)) for _ in range(2))
    for encoder in (tuned, plain):
        encoder._tokenize = lambda texts: torch.tensor([[62, len(text), 63] for text in texts])
    right = torch.nn.functional.normalize(plain.encode_text(["abc"]).detach(), dim=1)
    assert embed_texts(tuned, ["a"]).shape == (1, 12)  # its fingerprint is taken here
    tuned.module.text_model.encoder.layers[0].mlp.fc1.weight.data.mul_(1.5)
    assert (embed_texts(tuned, ["abc"]) - right).abs().max() > 1e-3
    torch.testing.assert_close(embed_texts(plain, ["abc"]), right)


def test_what_is_compiled_runs_with_the_weights_of_now():
    encoder, pixels = float32_encoder().compile(backend="eager"), random_pixels(2, dtype=torch.float32)
    encoder.encode_image(pixels)
    for way in ("data", "other memory", "fused step"):
        WAYS[way](encoder.module.vision_model.encoder.layers[1].mlp.fc1.weight)
        expected = wrap_encoder(copy.deepcopy(encoder.module)).encode_image(pixels)
        torch.testing.assert_close(encoder.encode_image(pixels), expected)


def test_sums_tell_every_sign_and_every_exchange():
    value = torch.randn(64, 64)
    (own,), random = bit_sums([value]), np.random.default_rng(0)
    for place in range(0, 4096, 7):
        changed = value.clone()
        changed.view(-1)[place] *= -1
        assert bit_sums([changed]) != [own]
    for one, other in random.choice(4096, (300, 2)):
        changed = value.clone().view(-1)
        changed[one] = -changed[other]  # the two differ in one bit
        (before,), there = bit_sums([changed]), changed[one].item()
        changed[one], changed[other] = changed[other].item(), there
        assert one == other or bit_sums([changed]) != [before]
    grid = torch.arange(2048, dtype=torch.int64)
    changed = grid.clone()
    changed[1], changed[1024] = 1024, 1  # along a diagonal of the rows that words are summed in
    assert bit_sums([changed]) != bit_sums([grid])


def test_sums_tell_every_bit():
    values = [
        torch.tensor(1.0),
        torch.randn(3, 5),
        torch.randn(5000).bfloat16()[3:],  # words that begin inside of a word
        torch.ones(9, dtype=torch.bool),
        torch.randn(40, 100).T,
        torch.zeros(0),
    ]
    before = bit_sums(values)
    assert bit_sums([value.clone() for value in values]) == before
    assert bit_sums([]) == []
    for value, own in zip(values[:-1], before, strict=False):
        changed = value.clone(memory_format=torch.contiguous_format)
        changed.view(-1).view(torch.uint8)[-1] ^= 1
        assert bit_sums([changed]) != [own]
