"""Maps of the output: by their definitions, from stores, and what they learn."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset
from residual.adapters import (
    FitSettings,
    LinearMap,
    SpectralMap,
    adapted_output,
    compute_scores,
    evaluate,
    fit,
)
from residual.errors import ResidualError
from residual.spectral import Origin, fit_output, pca
from residual.text import ZeroShotClassifier


@pytest.fixture(scope="module")
def stores():
    return [encode_dataset(tiny_encoder(), TinyImages(90, seed=seed)) for seed in (1, 2)]


def test_the_linear_map_starts_as_the_encoder_and_is_a_product(stores):
    store = stores[0]
    output = store.output()
    torch.testing.assert_close(LinearMap(12)(output), output)
    matrix = torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    adapter = LinearMap(12, matrix)
    torch.testing.assert_close(adapter(output), output @ matrix)
    torch.testing.assert_close(adapted_output(adapter, compute_scores(adapter, store)), output @ matrix)


def test_the_spectral_map_reweights_components_of_the_output(stores):
    for tail, mean, rank in itertools.product(("drop", "keep"), ("drop", "keep"), (None, 3, 0.8)):
        check_the_spectral_map(stores, tail, mean, rank)


def check_the_spectral_map(stores, tail, mean, rank):
    store, other = stores
    found = fit_output(store)
    adapter = SpectralMap(found, rank, tail=tail, mean=mean, seed=4)
    weights, k = adapter.lambdas.detach().double(), len(adapter.lambdas)
    for some in (store, other):
        output = some.output()
        centred = output - found.mean
        wanted = (centred @ found.components[:k].T * weights) @ found.components[:k]
        if tail == "keep":
            wanted = wanted + centred - centred @ found.components[:k].T @ found.components[:k]
        if mean == "keep":
            wanted = wanted + found.mean
        torch.testing.assert_close(adapter(output), wanted)
        torch.testing.assert_close(adapted_output(adapter, compute_scores(adapter, some)), wanted)


def test_components_of_the_output_are_those_of_its_rows(stores):
    found = fit_output(stores)
    wanted = pca(torch.cat([store.output() for store in stores]))
    torch.testing.assert_close(found.components, wanted.components, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(found.eigenvalues, wanted.eigenvalues)


@pytest.mark.parametrize("kind", ["linear", "spectral"])
@pytest.mark.parametrize("optimizer", ["schedule_free", "adamw", "lbfgs"])
def test_both_learn_a_map_that_was_planted(stores, kind, optimizer):
    train = stores[0]
    generator = torch.Generator().manual_seed(1)
    found = fit_output(train)
    rows = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    classifier = ZeroShotClassifier(rows, train.class_names, scale=10.0)
    if kind == "linear":
        adapter, planted = LinearMap(12), torch.randn(12, 12, generator=generator, dtype=torch.float64)
        labels = [classifier.logits(store.output() @ planted).argmax(1) for store in stores]
    else:
        adapter, planted = SpectralMap(found, init="ones"), SpectralMap(found, seed=7)
        labels = [classifier.logits(planted(store.output())).argmax(1) for store in stores]
    train, val = (
        replace(compute_scores(adapter, store), labels=own) for store, own in zip(stores, labels, strict=True)
    )
    before = evaluate(adapter, train, classifier)
    settings = FitSettings(
        learning_rate=1.0 if optimizer == "lbfgs" else 0.05, epochs=60, patience=60, batch_size=16,
        optimizer=optimizer, missing="ignore",
    )  # fmt: skip
    result = fit(adapter, train, val, classifier, settings)
    after = evaluate(adapter, train, classifier)
    assert after > max(before + 0.1, 0.9)
    assert result.history[-1].train_loss < result.history[0].train_loss
    assert evaluate(adapter, val, classifier) == result.val_accuracy


def test_what_is_refused(stores):
    store = stores[0]
    with pytest.raises(ResidualError, match="needs 12 x 12 finite numbers, got shape"):
        LinearMap(12, torch.ones(3, 3))
    with pytest.raises(ResidualError, match="init of LinearMap is 'eye', 'random' or a tensor, got 'ones'"):
        LinearMap(12, "ones")
    with pytest.raises(ResidualError, match="The map is of width 7, the encoder's output of width 12"):
        compute_scores(LinearMap(7), store)
    with pytest.raises(ResidualError, match="takes outputs of width 7, got 12"):
        LinearMap(7)(store.output())
    found = fit_output(store)
    for rank in (0, 13):
        with pytest.raises(ResidualError, match=f"The output has 12 components: a rank of {rank} isn't"):
            SpectralMap(found, rank)
    origin = Origin("other", "f" * 64, "shared", ("x",), 3)
    for adapter in (LinearMap(12, origin=origin), SpectralMap(found, origin=origin)):
        with pytest.raises(ResidualError, match=r"are of other \(weights ffffffff"):
            compute_scores(adapter, store)
