"""What fitted weights say, against the definitions written out."""

import pandas as pd
import pytest
import torch

from residual.adapters import ResiDual, strongest_components, unit_gains
from residual.spectral import pca
from residual.spectral.bases import SpectralBases
from residual.text.classifier import ZeroShotClassifier
from residual.tracing.units import Units


@pytest.fixture
def fitted():
    """Heads 0 and 1 of a two-layer encoder with known scores, and an adapter with far-off weights."""
    torch.manual_seed(0)
    contributions = torch.randn(200, 7, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    chosen = [1, 4, 6]
    fits = [pca(contributions[:, unit]) for unit in chosen]
    bases = SpectralBases(
        chosen,
        torch.stack([f.mean for f in fits]),
        [f.components for f in fits],
        [f.eigenvalues for f in fits],
    )
    adapter = ResiDual(bases, rank=[3, 6, 2], init=torch.randn(11) * 3)
    return contributions, adapter


def test_a_gain_is_the_change_of_a_units_spread(fitted):
    contributions, adapter = fitted
    table = unit_gains(adapter, Units(2, 2).table)
    assert isinstance(table, pd.DataFrame)
    assert table["unit"].tolist() == [1, 4, 6]
    assert table["weights"].tolist() == [3, 6, 2]
    at, spreads = 0, []
    for place, unit in enumerate(adapter.units):
        k = adapter.ranks[place]
        directions = adapter.bases.components[place][:k]
        centred = contributions[:, unit] - contributions[:, unit].mean(0)
        kept = centred @ directions.T
        weighted = kept * adapter.lambdas[at : at + k]
        before, after = kept.var(0).sum().item(), weighted.var(0).sum().item()
        assert table["gain"][place] == pytest.approx((after / before) ** 0.5)
        spreads.append((before, after))
        at += k
    overall = (sum(after for _, after in spreads) / sum(before for before, _ in spreads)) ** 0.5
    assert table["relative"].tolist() == pytest.approx([gain / overall for gain in table["gain"]])


def test_relative_gains_forget_a_common_factor(fitted):
    _, adapter = fitted
    before = unit_gains(adapter, Units(2, 2).table)["relative"].tolist()
    with torch.no_grad():
        adapter.lambdas.mul_(7.0)
    assert unit_gains(adapter, Units(2, 2).table)["relative"].tolist() == pytest.approx(before)


def test_the_strongest_components_spread_the_output_most(fitted):
    contributions, adapter = fitted
    everything = []
    for place, unit in enumerate(adapter.units):
        for index, row in enumerate(adapter.bases.components[place][: adapter.ranks[place]]):
            weight = adapter.lambdas_of(unit)[index].item()
            everything.append((abs(weight) * (contributions[:, unit] @ row).std().item(), unit, index))
    everything.sort(reverse=True)
    found = strongest_components(adapter, 4)
    assert [(c.unit, c.index) for c in found] == [(unit, index) for _, unit, index in everything[:4]]
    assert [c.strength for c in found] == pytest.approx([strength for strength, _, _ in everything[:4]])
    for component in found:
        assert torch.equal(adapter.directions[component.position], component.direction)
        assert adapter.lambdas[component.position].item() == pytest.approx(component.weight)


def test_a_component_speaks_for_the_classes_at_its_ends(fitted):
    _, adapter = fitted
    component = strongest_components(adapter, 1)[0]
    along = component.direction.float()
    aside = torch.linalg.svd(along[None])[2][1]
    classifier = ZeroShotClassifier(torch.stack([along, -along, aside, aside * -1]), ["a", "b", "c", "d"])
    low, high = component.classes(classifier, k=1)
    assert (low, high) == ((["b"], ["a"]) if component.weight > 0 else (["a"], ["b"]))
