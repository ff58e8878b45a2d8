"""How alike the bases of the same units are: on two datasets, or at two places of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError
from residual.spectral.bases import SpectralBases
from residual.spectral.dimension import linear_dimension
from residual.spectral.similarity import (
    mean_correlation,
    mean_cosine,
    mean_distance,
    principal_angles,
    relative,
    spectral_cosine,
)
from residual.store.base import Store

SIMILARITIES = {
    "spectral_cosine": "spectral cosine",
    "spectral_cosine_unweighted": "spectral cosine, unweighted",
    "spectral_cosine_by_index": "root mean square of cosines by index",
    "mean_principal_angle": "mean principal angle, degrees",
    "mean_cosine": "cosine of means",
    "mean_correlation": "correlation of means",
    "mean_distance": "distance of means",
    "relative_mean_cosine": "cosine of relative means",
    "relative_mean_correlation": "correlation of relative means",
    "relative_mean_distance": "distance of relative means",
}
_OF_COMPONENTS = tuple(SIMILARITIES)[:4]


@dataclass(frozen=True)
class SimilaritySettings:
    """How bases are compared.

    Args:
        explained: components up to that part of the variance are compared; the paper's is 0.9.
        anchors: how many outputs of the first dataset means are seen from, for the relative measures.
        seed: of their choice.

    Raises:
        ResidualError: one is out of range.
    """

    explained: float = 0.9
    anchors: int = 256
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.explained < 1 or self.anchors < 2 or self.seed < 0:
            raise ResidualError(
                "explained lies in (0, 1), anchors is 2 or more and seed 0 or more; got "
                f"{self.explained}, {self.anchors} and {self.seed}."
            )


def compare_bases(
    a: SpectralBases,
    b: SpectralBases,
    explained: float = 0.9,
    anchors: Float[Tensor, "m d"] | None = None,
) -> pd.DataFrame:
    """Similarity of the two bases of every unit that has one in both.

    Args:
        a, b: of one encoder.
        explained: components up to that part of each basis's own variance are compared (see
            `linear_dimension`).
        anchors: vectors in the output's space that means are seen from, for the relative measures.

    Returns:
        One row a unit: `unit`, how many components were compared (`rank_a`, `rank_b`), and the columns of
        `SIMILARITIES`, without the relative ones where there are no anchors. NaN for a unit that is constant.

    Raises:
        ResidualError: the bases are of different encoders or widths, or share no unit.
    """
    _check(a, b)
    shared = [unit for unit in a.units if unit in set(b.units)]
    if not shared:
        raise ResidualError("The two bases have no unit in common.")
    a, b = a.select(shared), b.select(shared)
    rows = []
    for place, unit in enumerate(shared):
        ranks = [linear_dimension(each.eigenvalues[place], explained) for each in (a, b)]
        row: dict[str, Any] = {"unit": unit, "rank_a": ranks[0], "rank_b": ranks[1]}
        row |= _of_components(a, b, place, ranks) | _of_means(a.means[place], b.means[place])
        if anchors is not None:
            seen = (relative(each.means[place], anchors) for each in (a, b))
            row |= {f"relative_{name}": value for name, value in _of_means(*seen).items()}
        rows.append(row)
    return pd.DataFrame(rows)


def anchors_of(store: Store, count: int = 256, seed: int = 0) -> Float[Tensor, "m d"]:
    """The encoder's outputs for `count` random samples of a store, or for all if there are fewer.

    Raises:
        ResidualError: the store keeps only some kinds of unit, whose sum isn't the output.
    """
    samples = np.sort(np.random.default_rng(seed).permutation(len(store))[:count])
    everything = store.coordinates_of(range(len(store.units)), samples)
    return store.linearization.output(everything.to(dtype=torch.float32)).flatten(0, -2)


def _of_components(a: SpectralBases, b: SpectralBases, place: int, ranks: list[int]) -> dict[str, float]:
    if not all(ranks):
        return dict.fromkeys(_OF_COMPONENTS, math.nan)
    (x, α), (y, β) = (
        (each.components[place][:rank], each.eigenvalues[place][:rank])
        for each, rank in zip((a, b), ranks, strict=True)
    )
    return {
        "spectral_cosine": spectral_cosine(x, y, α, β),
        "spectral_cosine_unweighted": spectral_cosine(x, y),
        "spectral_cosine_by_index": spectral_cosine(x, y, match="index"),
        "mean_principal_angle": principal_angles(x, y).rad2deg().mean().item(),
    }


def _of_means(a: Tensor, b: Tensor) -> dict[str, float]:
    return {
        "mean_cosine": mean_cosine(a, b),
        "mean_correlation": mean_correlation(a, b),
        "mean_distance": mean_distance(a, b),
    }


def _check(a: SpectralBases, b: SpectralBases) -> None:
    if a.dim != b.dim:
        raise ResidualError(f"Bases of widths {a.dim} and {b.dim} can't be compared.")
    ours, theirs = a.origin, b.origin
    if ours is None or theirs is None:
        return
    if (ours.fingerprint, ours.centering) != (theirs.fingerprint, theirs.centering):
        raise ResidualError(
            f"Bases of different encoders: {ours.encoder_name} (weights {ours.fingerprint[:8]}, centering "
            f"{ours.centering!r}) and {theirs.encoder_name} (weights {theirs.fingerprint[:8]}, centering "
            f"{theirs.centering!r})."
        )
