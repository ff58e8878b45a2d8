"""NaN and infinity are an error wherever a number is made of them, and never class 0."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from kit import NAMES, bases_of, classifier_of, tiny
from tiny import TinyImages

from residual import AdaptedEncoder, ResiDual, SpectralBases, encode_dataset
from residual.adapters import FitSettings, LinearMap, Scores, SpectralMap, evaluate, fit
from residual.adapters.adapter import initial_weights
from residual.errors import ResidualError
from residual.heads import AblatedEncoder, ablate, top_share, unit_accuracy, unit_correlation
from residual.heads.contributions import span_of
from residual.spectral import pca
from residual.text import TextDictionary, ZeroShotClassifier, somp
from residual.workflows.evaluate import evaluate_encoder

NOT_FINITE = (math.nan, math.inf, -math.inf)


def spoilt(values: torch.Tensor, by: float) -> torch.Tensor:
    values = values.detach().clone()
    values.view(-1)[-1] = by
    return values


@pytest.mark.parametrize("by", NOT_FINITE)
def test_logits_scores_and_means_are_refused(by):
    encoder, classifier = tiny(), classifier_of(tiny())
    features, labels = torch.randn(5, 12, dtype=torch.float64), torch.zeros(5, dtype=torch.long)
    units = torch.randn(5, 3, 12, dtype=torch.float64)
    bases, directions = bases_of(encoder, "head"), torch.randn(3, 12)
    parts = {"units": bases.units, "components": bases.components, "eigenvalues": bases.eigenvalues}
    outputs = pca(features)
    outputs.mean[0] = by
    refused = {
        "logits": lambda: classifier.accuracy(spoilt(features, by), labels),
        "of one unit": lambda: unit_accuracy(spoilt(units, by), classifier, labels),
        "correlation": lambda: unit_correlation(spoilt(units, by)),
        "of ranks": lambda: unit_correlation(spoilt(units, by), method="spearman"),
        "in a span": lambda: span_of(spoilt(directions, by), 12),
        "ablation": lambda: ablate(spoilt(units, by), [0, 2]),
        "ablation at means": lambda: AblatedEncoder(encoder, [0], "mean", spoilt(torch.zeros(16, 12), by)),
        "a choice": lambda: top_share([0.5, by], 0.5),
        "nearest": lambda: TextDictionary(NAMES, directions).nearest(spoilt(directions, by)),
        "a dictionary": lambda: TextDictionary(NAMES, spoilt(directions, by)),
        "a classifier": lambda: ZeroShotClassifier(spoilt(directions, by), NAMES),
        "a scale": lambda: ZeroShotClassifier(directions, NAMES, by),
        "texts": lambda: somp(spoilt(features, by), torch.eye(12), 2),
        "means of units": lambda: ResiDual(SpectralBases(means=spoilt(bases.means, by), **parts)),
        "means of the others": lambda: ResiDual(
            SpectralBases(means=bases.means, all_means=spoilt(torch.zeros(16, 12), by), **parts)
        ),
        "weights": lambda: ResiDual(bases, init=spoilt(torch.ones(sum(bases.ranks)), by)),
        "a map": lambda: LinearMap(12, spoilt(torch.eye(12), by)),
        "the output's mean": lambda: SpectralMap(outputs),
        "scores": lambda: Scores(spoilt(features, by), torch.eye(12), features, labels, "x"),
        "the rest": lambda: Scores(features, torch.eye(12), spoilt(features, by), labels, "x"),
    }
    for what, make in refused.items():
        with pytest.raises(ResidualError, match=r"NaN|not finite|finite numbers|be positive") as caught:
            make()
        assert "\n" not in str(caught.value), what
    with pytest.raises(ResidualError, match="eigenvalues over their sums, hold NaN"):
        initial_weights([torch.zeros(2)], [2], "eigenvalues", 0)


def test_an_adapter_that_was_spoilt_evaluates_no_more():
    encoder, classifier = tiny(), classifier_of(tiny())
    images = TinyImages(12, classes=3)
    store = encode_dataset(encoder, images)
    adapter = ResiDual(bases_of(encoder, "head"))
    adapted = AdaptedEncoder(encoder, adapter, classifier)
    assert 0 <= evaluate(adapter, store, classifier) <= 1
    with torch.no_grad():
        adapter.lambdas[3] = torch.nan
        adapted.matrix[0, 0] = torch.inf
    with pytest.raises(ResidualError, match="The adapted outputs hold NaN or infinity: 144 of 144"):
        evaluate(adapter, store, classifier)
    with pytest.raises(ResidualError, match="weights or means of the adapter hold NaN"):
        AdaptedEncoder(encoder, adapter, classifier)
    named = TinyImages(12, classes=3)
    named.class_names = NAMES
    with pytest.raises(ResidualError, match="Logits hold NaN or infinity for 12 of 12 samples"):
        evaluate_encoder(adapted, named)


def test_a_fit_that_diverges_says_when_and_keeps_the_best_until_then():
    rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    scores = Scores(rows, torch.eye(8), torch.zeros(64, 8), rows[:, :3].argmax(1), "x")
    classifier = ZeroShotClassifier(torch.eye(8)[:3], NAMES)
    adapter, kept = LinearMap(8), []

    val = replace(scores, scores=rows.clone())

    def progress(stage, done, total):
        kept.append(done)
        if done == 2:  # from then on nothing is finite any more
            val.scores[0] = torch.nan

    with pytest.raises(ResidualError, match="no longer finite in epoch 3: try a smaller learning_rate"):
        fit(adapter, scores, val, classifier, FitSettings(epochs=9), progress, device="cpu")
    assert kept == [1, 2]
    assert adapter.weights.isfinite().all()
    assert not torch.equal(adapter.weights, torch.eye(8))
