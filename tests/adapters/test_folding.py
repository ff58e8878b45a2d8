"""A folded adapter gives what the adapter gives of contributions: every method, choice and pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import adapters_of, bases_of, case, pixels_of, random_bases, residual_of, tiny
from tiny import TinyImages, random_pixels, tiny_encoder

import residual
from residual.adapters import LinearMap, ResiDual, compute_scores
from residual.adapters.adapter import Adapter
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.spectral import pca
from residual.tracing.decompose import decompose
from residual.tracing.linearization import Linearization
from residual.tracing.trace import trace


class Passed:
    """What two passes over some pixels leave: contributions, and coordinates."""

    def __init__(self, encoder: Encoder, pixels: torch.Tensor):
        self.linearization = Linearization.of(encoder)
        self.contributions = decompose(encoder, pixels).contributions[:, 0]
        self.coordinates, self.output = trace(encoder, pixels)

    def check(self, adapter: Adapter, name: str = "", close: float = 1e-9) -> None:
        """That the folded adapter gives what the adapter gives."""
        map_ = adapter.double().fold(self.linearization)
        assert map_.matrix.dtype == map_.offset.dtype == torch.float64
        with torch.no_grad():
            wanted = adapter(self.contributions if adapter.of_units else self.output)
        if map_.fields == ("output",):
            got = map_.of_output(self.output)
        else:
            got = map_(self.coordinates.only(map_.kinds))
        torch.testing.assert_close(
            got, wanted, atol=close, rtol=close, msg=lambda why: f"{name} {adapter}: {why}"
        )


@pytest.mark.parametrize("centering", ["shared", "own"])
def test_every_choice_of_every_method(centering):
    passed = Passed(tiny(centering), random_pixels(3))
    for adapter in adapters_of(tiny(centering)):
        passed.check(adapter)
    for units in ("head", "mlp", "emb", "head+mlp", "head+mlp+emb", "some"):
        bases = bases_of(tiny(centering), units)
        for others in ("keep", "mean", "zero"):
            for tail, mean in (("drop", "drop"), ("drop", "keep"), ("keep", "drop"), ("keep", "keep")):
                for rank in (None, 1, 0.7):
                    passed.check(ResiDual(bases, rank, others, tail, mean=mean))


@settings(deadline=None, max_examples=15)
@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    head_width=st.sampled_from([2, 4]),
    output=st.integers(1, 9),
    seed=st.integers(0, 99),
    n=st.integers(1, 3),
)
def test_every_size(layers, heads, head_width, output, seed, n):
    encoder = tiny_encoder(layers=layers, heads=heads, head_width=head_width, output=output)
    count = len(Linearization.of(encoder).units)
    rng = np.random.default_rng(seed)
    units = rng.permutation(count)[: rng.integers(1, count + 1)].tolist()
    choices = {"others": str(rng.choice(["keep", "mean", "zero"])), "tail": str(rng.choice(["drop", "keep"]))}
    adapter = ResiDual(random_bases(count, output, units, seed), seed=seed, **choices)
    Passed(encoder, random_pixels(n, seed=seed)).check(adapter)


@pytest.mark.parametrize("centering", ["shared", "own"])
def test_every_pooling(centering):
    for name in CASES:
        encoder = case(name, double=True, centering=centering)
        passed = Passed(encoder, pixels_of(encoder, 3))
        for kind, others in (("head", "zero"), ("head+mlp", "keep"), ("mlp", "mean")):
            passed.check(residual_of(encoder, kind, others=others), name, close=1e-6)


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
def test_bases_and_scores_are_those_of_the_contributions_in_every_pooling(name):
    encoder = case(name, double=True)
    store = residual.encode_dataset(encoder, TinyImages(24, size=40), batch_size=16)
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
    scores = compute_scores(adapter, store).output(adapter.lambdas.detach().double())
    torch.testing.assert_close(scores, adapter(contributions), rtol=1e-6, atol=1e-6)


def test_kinds_without_weight_are_left_out():
    encoder = tiny()
    linearization, dim = Linearization.of(encoder), encoder.output_dim
    star = residual_of(encoder, "head", others="zero").fold(linearization)
    assert (star.fields, star.kinds) == (("z",), ("head",))
    assert star.matrix.shape == (3 * 32 + 2, dim)
    whole = residual_of(encoder, "head").fold(linearization)
    assert whole.fields == ("z", "mlp", "emb")
    assert whole.matrix.shape == (3 * 32 + 3 * 32 + 32 + 2, dim)
    assert LinearMap(dim).fold(linearization).kinds == ()


def test_bad_requests():
    encoder = tiny()
    linearization = Linearization.of(encoder)
    coordinates, output = trace(encoder, random_pixels(2))
    with pytest.raises(ResidualError, match="width 5, the contributions of width 12"):
        ResiDual(random_bases(16, 5, [1])).fold(linearization)
    with pytest.raises(ResidualError, match="of an encoder with 9 units, got 16"):
        ResiDual(random_bases(9, 12, [1])).fold(linearization)
    with pytest.raises(ResidualError, match="map is of width 5, the encoder's output of width 12"):
        LinearMap(5).fold(linearization)
    with pytest.raises(ResidualError, match="takes that"):
        LinearMap(12).fold(linearization)(coordinates)
    whole = ResiDual(random_bases(16, 12, [1])).fold(linearization)
    with pytest.raises(ResidualError, match="the output alone is not enough"):
        whole.of_output(output)
    with pytest.raises(ResidualError, match="kept without mlp"):
        whole(coordinates.only(("head",)))
