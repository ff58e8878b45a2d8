"""An encoder with some units only: what it gives is what ablation gives, by every kind of encoder."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from families import CASES
from tiny import TinyImages, tiny_encoder

from residual import decompose, encode_dataset, load_dataset, load_encoder, wrap_encoder
from residual.errors import ResidualError
from residual.heads import (
    AblatedEncoder,
    ablate,
    correct_by_selection,
    mean_contributions,
    score_units,
    top_share,
)
from residual.text import ZeroShotClassifier

CLOSE = {"atol": 1e-4, "rtol": 1e-3}


@pytest.mark.parametrize("name", CASES)
def test_it_gives_the_sum_of_its_units(name):
    encoder = wrap_encoder(CASES[name].make())
    height, width = encoder.image_size or (32, 32)
    pixels = torch.randn(5, 3, height, width)
    contributions = decompose(encoder, pixels).contributions[:, 0]
    count = contributions.shape[1]
    for keep in ([count - 1, 0], np.arange(count) % 2 == 0, list(range(count)), []):
        ablated = AblatedEncoder(encoder, keep=keep)
        torch.testing.assert_close(ablated.encode_image(pixels), ablate(contributions, keep), **CLOSE)
    with torch.no_grad():
        whole = encoder.encode_image(pixels)
    everything = AblatedEncoder(encoder, keep=range(count))
    torch.testing.assert_close(everything.encode_image(pixels), whole, **CLOSE)


def test_the_others_at_their_means():
    encoder = tiny_encoder()
    store = encode_dataset(encoder, TinyImages(20))
    means = mean_contributions(store)
    kept = AblatedEncoder(encoder, [5, 7], "mean", means)
    pixels = torch.stack([encoder.preprocess(TinyImages(20).load(k)) for k in range(20)]).double()
    wanted = ablate(store.contributions(), [5, 7], "mean")
    torch.testing.assert_close(kept.encode_image(pixels), wanted, atol=1e-5, rtol=1e-4)


def test_a_selection_in_one_line():
    encoder, data = load_encoder("picto", device="cpu"), load_dataset("digits", "val").sample(60)
    store = encode_dataset(encoder, data)
    classifier = ZeroShotClassifier.from_text(encoder, data.class_names, data.templates)
    scores = score_units(store, classifier, ("accuracy",))
    best = top_share(scores["accuracy"].tolist(), 0.1, scores["unit"].tolist())
    kept = AblatedEncoder(encoder, best)
    assert kept.kept == tuple(best)
    features = kept.encode_image(encoder.pixels([data.load(k) for k in range(len(data))]))
    wanted = correct_by_selection(store, classifier, {"best": best}).double().mean().item()
    assert classifier.accuracy(features, data.labels) == pytest.approx(wanted, abs=1 / 59)
    torch.testing.assert_close(kept.encode_text(["a"]), encoder.encode_text(["a"]))
    assert (kept.output_dim, kept.logit_scale) == (encoder.output_dim, encoder.logit_scale)
    assert repr(kept) == f"AblatedEncoder({encoder!r}, 5 of 57 units)"
    assert isinstance(kept, AblatedEncoder)
    assert not math.isnan(features.sum().item())


def test_bad_requests():
    encoder = tiny_encoder()
    with pytest.raises(ResidualError, match=r"Units are 0 to 15, got \[19\]"):
        AblatedEncoder(encoder, [19])
    with pytest.raises(ResidualError, match="Mean ablation needs the means"):
        AblatedEncoder(encoder, [1], "mean")
    with pytest.raises(ResidualError, match="Unknown mode"):
        AblatedEncoder(encoder, [1], "half")
