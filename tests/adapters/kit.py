"""Encoders, adapters with bases of their own, classifiers and pixels, for all tests of adapters."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from families import CASES
from tiny import tiny_encoder

from residual import decompose, wrap_encoder
from residual.adapters import Coarse, LinearMap, Reference, ResiDual, ResiDualStar, SpectralMap, make_adapter
from residual.adapters.adapter import Adapter
from residual.adapters.methods import ADAPTERS
from residual.encoders.encoder import Encoder
from residual.spectral.bases import SpectralBases
from residual.spectral.pca import pca
from residual.text import ZeroShotClassifier
from residual.tracing.linearization import Linearization

NAMES = ("fox", "owl", "eel")


@cache
def case(name: str, double: bool = False, centering: str = "shared") -> Encoder:
    """One of `CASES`, not to be changed."""
    model = CASES[name].make()
    return wrap_encoder(model.double() if double else model, centering)


@cache
def tiny(centering: str = "shared") -> Encoder:
    """The tiny CLIP in float64, not to be changed."""
    return tiny_encoder(centering=centering)


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


def bases_of(encoder: Encoder, kind: str) -> SpectralBases:
    """Random ones of units of some kinds, "head+mlp", or of "some"."""
    units = Linearization.of(encoder).units
    chosen = list(range(len(units)))[::-3] if kind == "some" else units.positions(kind.split("+"))
    return random_bases(len(units), encoder.output_dim, chosen)


def residual_of(encoder: Encoder, kind: str = "head+mlp", **choices: str) -> ResiDual:
    return ResiDual(bases_of(encoder, kind), **choices)


def adapters_of(encoder: Encoder) -> list[Adapter]:
    """Of every method, with every choice that makes another fold."""
    heads, both, dim = bases_of(encoder, "head"), bases_of(encoder, "head+mlp"), encoder.output_dim
    square = both.resized([dim, *both.ranks[1:]])
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(40, dim, dtype=torch.float64, generator=generator) * torch.arange(1, dim + 1) + 5
    made = [
        ResiDual(both),
        ResiDual(heads, 0.7, "mean", "keep", mean="keep"),
        ResiDualStar(heads),
        Coarse(heads, seed=3, l1=0.5),
        Coarse(heads, seed=4, others="keep", tail="keep", mean="keep"),
        LinearMap(dim, torch.randn(dim, dim, generator=generator)),
        ResiDual(square, [(k + 1) // 2 for k in square.ranks], tail="keep", write_back="transposed"),
        *(
            SpectralMap(pca(outputs), rank, tail, mean=mean)
            for rank in (None, 3)
            for tail in ("drop", "keep")
            for mean in ("drop", "keep")
        ),
    ]
    reference = Reference(both, pca(outputs), heads.units)
    others = [name for name, kind in ADAPTERS.items() if kind not in map(type, made)]
    return made + [make_adapter(name, reference) for name in others]


def classifier_of(encoder: Encoder, seed: int = 0) -> ZeroShotClassifier:
    weights = np.random.default_rng(seed).normal(size=(len(NAMES), encoder.output_dim))
    return ZeroShotClassifier(torch.from_numpy(weights), NAMES, scale=10)


def pixels_of(encoder: Encoder, n: int, seed: int = 1) -> torch.Tensor:
    height, width = encoder.image_size or (32, 32)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, height, width, generator=generator, dtype=encoder.dtype)


def plain(adapter: Adapter, encoder: Encoder, pixels: torch.Tensor) -> torch.Tensor:
    """What the adapter makes of contributions, or of the output."""
    whole = decompose(encoder, pixels)
    with torch.no_grad():
        return adapter(whole.contributions[:, 0] if adapter.of_units else whole.output[:, 0])
