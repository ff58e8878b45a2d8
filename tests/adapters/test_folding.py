"""A folded adapter gives what the adapter gives of contributions: every choice, centering and pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_pixels, tiny_encoder

from residual import decompose, wrap_encoder
from residual.adapters import Coarse, FoldedMap, LinearMap, ResiDual, SpectralMap
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.spectral.bases import SpectralBases
from residual.spectral.pca import pca
from residual.tracing.linearization import Linearization
from residual.tracing.trace import trace

EXACT = {"atol": 1e-9, "rtol": 1e-9}


def random_bases(n_units: int, dim: int, units: list[int], seed: int = 0, most: int = 5) -> SpectralBases:
    """Orthonormal rows and means with nothing to do with any encoder: the algebra must hold all the same."""
    rng = np.random.default_rng(seed)
    ranks = rng.integers(1, min(most, dim) + 1, len(units))
    components = [torch.from_numpy(np.linalg.qr(rng.normal(size=(dim, k)))[0].T) for k in ranks]
    return SpectralBases(
        units=units,
        means=torch.from_numpy(rng.normal(size=(len(units), dim))),
        components=components,
        eigenvalues=[torch.from_numpy(np.sort(rng.uniform(1, 2, k))[::-1].copy()) for k in ranks],
        all_means=torch.from_numpy(rng.normal(size=(n_units, dim))),
    )


def chosen_units(encoder: Encoder, kind: str) -> list[int]:
    units = Linearization.of(encoder).units
    return list(range(len(units)))[::-3] if kind == "some" else units.positions(kind.split("+"))


def plain(adapter: torch.nn.Module, encoder: Encoder, pixels: torch.Tensor) -> torch.Tensor:
    whole = decompose(encoder, pixels)
    with torch.no_grad():
        return adapter(whole.contributions[:, 0] if isinstance(adapter, ResiDual) else whole.output[:, 0])


def folded(map_: FoldedMap, encoder: Encoder, pixels: torch.Tensor) -> torch.Tensor:
    coordinates, output = trace(encoder, pixels)
    return map_.of_output(output) if map_.fields == ("output",) else map_(coordinates.only(map_.kinds))


@pytest.mark.parametrize("centering", ["shared", "own"])
@pytest.mark.parametrize("units", ["head", "mlp", "emb", "head+mlp", "head+mlp+emb", "some"])
@pytest.mark.parametrize("others", ["keep", "mean", "zero"])
def test_every_choice_is_its_definition(centering, units, others):
    encoder, pixels = tiny_encoder(centering=centering), random_pixels(3)
    linearization = Linearization.of(encoder)
    taken = chosen_units(encoder, units)
    bases = random_bases(len(linearization.units), encoder.output_dim, taken)
    for tail in ("drop", "keep"):
        for mean in ("drop", "keep"):
            for rank in (None, 1, 0.7):
                adapter = ResiDual(bases, rank, others, tail, mean=mean).double()
                map_ = adapter.fold(linearization)
                assert map_.matrix.dtype == torch.float64
                got, wanted = folded(map_, encoder, pixels), plain(adapter, encoder, pixels)
                torch.testing.assert_close(got, wanted, **EXACT)


@settings(deadline=None, max_examples=20)
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
    linearization = Linearization.of(encoder)
    count = len(linearization.units)
    rng = np.random.default_rng(seed)
    units = rng.permutation(count)[: rng.integers(1, count + 1)].tolist()
    choices = {"others": str(rng.choice(["keep", "mean", "zero"])), "tail": str(rng.choice(["drop", "keep"]))}
    adapter = ResiDual(random_bases(count, output, units, seed), seed=seed, **choices).double()
    pixels = random_pixels(n, seed=seed)
    got = folded(adapter.fold(linearization), encoder, pixels)
    torch.testing.assert_close(got, plain(adapter, encoder, pixels), **EXACT)


@pytest.mark.parametrize("centering", ["shared", "own"])
def test_the_other_adapters(centering):
    encoder, pixels = tiny_encoder(centering=centering), random_pixels(4)
    linearization = Linearization.of(encoder)
    dim = encoder.output_dim
    outputs = torch.randn(40, dim, dtype=torch.float64) * torch.arange(1, dim + 1)
    heads = random_bases(len(linearization.units), dim, chosen_units(encoder, "head"))
    adapters = [
        Coarse(heads, seed=3),
        LinearMap(dim, torch.randn(dim, dim, dtype=torch.float64)),
        *(
            SpectralMap(pca(outputs + 5), rank, tail, mean=mean)
            for rank in (None, 3)
            for tail in ("drop", "keep")
            for mean in ("drop", "keep")
        ),
    ]
    for adapter in adapters:
        adapter = adapter.double()
        map_ = adapter.fold(linearization)
        assert map_.kinds == (("head",) if isinstance(adapter, Coarse) else ())
        torch.testing.assert_close(folded(map_, encoder, pixels), plain(adapter, encoder, pixels), **EXACT)


@pytest.mark.parametrize("centering", ["shared", "own"])
@pytest.mark.parametrize("name", CASES)
def test_every_pooling(name, centering):
    encoder = wrap_encoder(CASES[name].make().double(), centering)
    height, width = encoder.image_size or (32, 32)
    pixels = torch.randn(3, 3, height, width, dtype=torch.float64)
    linearization = Linearization.of(encoder)
    for kind, others in (("head", "zero"), ("head+mlp", "keep"), ("mlp", "mean")):
        bases = random_bases(len(linearization.units), encoder.output_dim, chosen_units(encoder, kind))
        adapter = ResiDual(bases, others=others).double()
        map_ = adapter.fold(linearization)
        got, wanted = folded(map_, encoder, pixels), plain(adapter, encoder, pixels)
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-6)


def test_kinds_without_weight_are_left_out():
    encoder = tiny_encoder()
    linearization = Linearization.of(encoder)
    count, dim = len(linearization.units), encoder.output_dim
    heads = random_bases(count, dim, chosen_units(encoder, "head"))
    star = ResiDual(heads, others="zero").fold(linearization)
    assert (star.fields, star.kinds) == (("z",), ("head",))
    assert star.matrix.shape == (3 * 32 + 2, dim)
    whole = ResiDual(heads).fold(linearization)
    assert whole.fields == ("z", "mlp", "emb")
    assert whole.matrix.shape == (3 * 32 + 3 * 32 + 32 + 2, dim)


def test_bad_requests():
    encoder = tiny_encoder()
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
    with pytest.raises(ResidualError, match="the output alone is not enough"):
        ResiDual(random_bases(16, 12, [1])).fold(linearization).of_output(output)
    with pytest.raises(ResidualError, match="kept without mlp"):
        ResiDual(random_bases(16, 12, [1])).fold(linearization)(coordinates.only(("head",)))
