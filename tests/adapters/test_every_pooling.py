"""What comes after the coordinates works on every kind of pooling: stores, bases, scores of an adapter."""

import pytest
import torch
from families import CASES
from tiny import TinyImages

import residual
from residual.adapters import ResiDual, compute_scores
from residual.spectral import pca


@pytest.mark.parametrize(
    "name",
    [
        "siglip vision",
        "timm attention pool",
        "timm norm after average",
        "timm average of normed",
        "dinov2 registers",
        "open_clip layer scale",
    ],
)
def test_bases_and_scores_are_those_of_the_contributions(name):
    encoder = residual.wrap_encoder(CASES[name].make().double())
    store = residual.encode_dataset(encoder, TinyImages(40, size=40), batch_size=16)
    contributions = store.contributions()
    torch.testing.assert_close(contributions.sum(1), store.output())
    bases = residual.fit_bases(store, kinds=("mlp", "head"))
    assert len(bases) == (store.units["kind"] != "emb").sum()
    for unit, eigenvalues in zip(bases.units, bases.eigenvalues, strict=True):
        expected = pca(contributions[:, unit]).eigenvalues
        torch.testing.assert_close(
            eigenvalues[: len(expected)], expected[: len(eigenvalues)], rtol=1e-6, atol=1e-9
        )
    adapter = ResiDual(bases)
    lambdas = adapter.lambdas.detach().double()
    scores = compute_scores(adapter, store).output(lambdas)
    torch.testing.assert_close(scores, adapter(contributions), rtol=1e-6, atol=1e-6)
