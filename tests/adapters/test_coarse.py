"""One weight a unit: its output by definition, from scores, and what it learns."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset, fit_bases
from residual.adapters import Coarse, FitSettings, compute_scores, evaluate, fit
from residual.errors import ResidualError
from residual.text import ZeroShotClassifier


@pytest.fixture(scope="module")
def stores():
    return [encode_dataset(tiny_encoder(), TinyImages(120, seed=seed)) for seed in (1, 2)]


def test_its_output_is_the_weighted_sum_of_centred_units(stores):
    store, other = stores
    bases = fit_bases(store)
    coarse = Coarse(bases, seed=3)
    assert coarse.lambdas.shape == (len(bases.units),)
    for some in (store, other):
        contributions = some.contributions()
        centred = contributions[:, list(bases.units)] - bases.means.to(contributions)
        wanted = (centred * coarse.lambdas.detach().to(centred)[:, None]).sum(1)
        torch.testing.assert_close(coarse(contributions), wanted, atol=1e-6, rtol=1e-5)
        scores = compute_scores(coarse, some)
        torch.testing.assert_close(scores.output(coarse.expand(coarse.lambdas).to(scores.scores)), wanted)
    unit = bases.units[4]
    assert set(coarse.lambdas_of(unit).tolist()) == {coarse.lambdas[4].item()}


def test_the_unit_that_the_classes_are_of_gets_the_weight(stores):
    store = stores[0]
    bases = fit_bases(store)
    planted = 7
    own = store.contributions(units=[bases.units[planted]])[:, 0] - bases.means[planted]
    classifier = ZeroShotClassifier.from_class_means(own, store.labels, store.class_names, scale=10.0)
    coarse = Coarse(bases, init="ones")
    before = evaluate(coarse, store, classifier)
    fit(coarse, *stores, classifier, FitSettings(epochs=40, patience=40))
    assert evaluate(coarse, store, classifier) > before


def test_where_it_starts(stores):
    bases = fit_bases(stores[0])
    count = len(bases.units)
    assert Coarse(bases, "ones").lambdas.tolist() == [1.0] * count
    assert not torch.equal(Coarse(bases, seed=1).lambdas, Coarse(bases, seed=2).lambdas)
    own = torch.arange(count).double()
    torch.testing.assert_close(Coarse(bases, own).lambdas.detach(), own.float())
    with pytest.raises(ResidualError, match=f"needs {count} finite numbers"):
        Coarse(bases, torch.ones(count + 1))
    with pytest.raises(ResidualError, match="init of Coarse is 'randn', 'ones' or a tensor, got 'zeros'"):
        Coarse(bases, "zeros")
