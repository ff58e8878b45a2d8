"""How alike two bases are, two means, two representations: of one head on two datasets, of two heads."""

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
from residual.finite import check_finite
from residual.settings import PAPER, check_settings, setting
from residual.spectral.bases import SpectralBases
from residual.spectral.dimension import linear_dimension
from residual.store.base import Store

MATCHES = ("greedy", "index")
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
_ROUNDING = 1e-6  # of the largest weight
_UNIT = 1e-2  # within which lengths in half precision are 1
_OF_COMPONENTS = tuple(SIMILARITIES)[:4]


@dataclass(frozen=True)
class SimilaritySettings:
    """How bases are compared.

    Args:
        explained: components up to that part of the variance are compared; the paper's is 0.9.
        anchors: how many outputs of the first dataset means are seen from, for the relative measures.
        seed: of their choice.
        published_anchors: how many samples of the first dataset each unit is seen from, for the relative
            measures as published (`published_similarity`; 100 there); 0 for without.

    Raises:
        ResidualError: one is out of range.
    """

    explained: float = setting(0.9, above=0, below=1, source=PAPER)
    anchors: int = setting(256, least=2)
    seed: int = setting(0, least=0)
    published_anchors: int = setting(
        0, holds=lambda count: count == 0 or count >= 3, takes="a whole number, at least 3, or 0 for without"
    )

    def __post_init__(self):
        check_settings(self)


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
    if a.dim != b.dim:
        raise ResidualError(f"Bases of widths {a.dim} and {b.dim} can't be compared.")
    if a.origin is not None and b.origin is not None and not a.origin.is_of(b.origin):
        raise ResidualError(f"Bases of different encoders: {a.origin} and {b.origin}.")
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


def spectral_cosine(
    a: Float[Tensor, "k d"],
    b: Float[Tensor, "m d"],
    weights_a: Float[Tensor, " k"] | None = None,
    weights_b: Float[Tensor, " m"] | None = None,
    match: str = "greedy",
) -> float:
    """Similarity of two bases, in [0, 1]: 1 for equal components (up to signs) in the same order of weight.

    With `W_ij = α_i β_j / ‖(α_i β_i)_i‖₂` and `C = |A Bᵀ| ⊙ W`, the largest entry of `C` is taken and its row
    and column struck, `min(k, m)` times; the similarity is the 2-norm of what was taken (Basile et al. 2025,
    arXiv 2411.00246). It doesn't change when both bases are rotated alike.

    Args:
        a, b: components, orthonormal rows in descending order of weight.
        weights_a, weights_b: `α` and `β`, the eigenvalues; both or neither. Without, all weigh the same.
        match: "greedy" as above, or "index": components of equal index alone, as the published code compares
            them without weights (the root mean square of `|a_i · b_i|`).

    Raises:
        ResidualError: widths or weights don't fit, no component, such as aren't unit vectors, or an unknown
            `match`.

    Example:
        >>> import torch
        >>> from residual.spectral import spectral_cosine
        >>> round(spectral_cosine(torch.eye(4)[:2], torch.eye(4)[[0, 2]]), 4)  # one of two in common
        0.7071
    """
    if match not in MATCHES:
        raise ResidualError(f"match is {' or '.join(map(repr, MATCHES))}, got {match!r}.")
    _check_components(a, b)
    weights = torch.ones(len(a), len(b), dtype=torch.float64)
    if weights_a is not None or weights_b is not None:
        if weights_a is None or weights_b is None:
            raise ResidualError("Weights are of both bases or of neither; one of them is missing.")
        if len(weights_a) != len(a) or len(weights_b) != len(b):
            raise ResidualError(
                f"Bases of {len(a)} and {len(b)} components need as many weights; got {len(weights_a)} and "
                f"{len(weights_b)}."
            )
        weights = torch.outer(_variances(weights_a), _variances(weights_b))
    norm = weights.diagonal().norm()
    if not norm > 0:
        raise ResidualError("The first weights of the two bases are all zero: nothing can be compared.")
    cosines = (_double(a) @ _double(b).T).abs() * weights / norm
    taken = cosines.diagonal() if match == "index" else _greedy(cosines)
    return taken.norm().item()


def _variances(weights: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """In float64; one that rounding made negative is zero."""
    weights = _double(weights)
    if weights.min() < -_ROUNDING * weights.max():
        raise ResidualError("Weights are variances: some of these are negative.")
    return weights.clamp(min=0)


def _check_components(a: Tensor, b: Tensor) -> None:
    if a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise ResidualError(
            f"Two bases need components of one width, one or more; got {tuple(a.shape)}, {tuple(b.shape)}."
        )
    for rows in (a, b):
        if (miss := (_double(rows).norm(dim=1) - 1).abs().amax().item()) > _UNIT:
            raise ResidualError(f"Components are unit vectors; the lengths of these are off by {miss:.1e}.")


def _greedy(values: Float[Tensor, "k m"]) -> Float[Tensor, " s"]:
    """The largest entry, the largest outside its row and column, and so on."""
    free, taken = values.clone(), []
    for _ in range(min(values.shape)):
        row, column = divmod(int(free.argmax()), free.shape[1])
        taken.append(values[row, column])
        free[row], free[:, column] = -1, -1
    return torch.stack(taken)


def principal_angles(a: Float[Tensor, "k d"], b: Float[Tensor, "m d"]) -> Float[Tensor, " s"]:
    """The `min(k, m)` angles between the spans of two bases, in radians, ascending.

    Cosines are the singular values of `A Bᵀ`; angles below 45° are taken from sines, which don't lose them to
    rounding (Björck and Golub 1973).

    Args:
        a, b: orthonormal rows.

    Raises:
        ResidualError: widths don't fit, or no component.
    """
    _check_components(a, b)
    few, many = sorted((_double(a), _double(b)), key=len)
    cosines = torch.linalg.svdvals(few @ many.T)
    sines = torch.linalg.svdvals(few - few @ many.T @ many).flip(0)  # of what the other span lacks
    angles = torch.where(cosines**2 > 0.5, sines.clamp(max=1).asin(), cosines.clamp(max=1).acos())
    return angles.sort().values


def linear_cka(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> float:
    """Linear centred kernel alignment of two representations of the same samples, in [0, 1].

    `‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖)` of the centred matrices, Frobenius norms (Kornblith et al. 2019, arXiv
    1905.00414). It doesn't change when either is rotated, scaled or moved.

    Raises:
        ResidualError: other numbers of samples, or one of the two is constant.
    """
    if len(x) != len(y):
        raise ResidualError(f"CKA compares representations of the same samples; got {len(x)} and {len(y)}.")
    x, y = (_centred(_double(each)) for each in (x, y))
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    if not scale > 0:
        raise ResidualError("CKA isn't defined where a representation is the same for all samples.")
    return ((y.T @ x).square().sum() / scale).item()


def mean_cosine(a: Float[Tensor, " d"], b: Float[Tensor, " e"]) -> float:
    """Cosine of the angle between two mean vectors; NaN if one is zero.

    Raises:
        ResidualError: they have different widths.
    """
    a, b = _pair(a, b)
    return (a @ b / (a.norm() * b.norm())).item()


def mean_correlation(a: Float[Tensor, " d"], b: Float[Tensor, " e"]) -> float:
    """Pearson correlation of two mean vectors over their coordinates; NaN if one is constant.

    Raises:
        ResidualError: they have different widths.
    """
    a, b = _pair(a, b)
    return mean_cosine(_centred(a), _centred(b))


def mean_distance(a: Float[Tensor, " d"], b: Float[Tensor, " e"]) -> float:
    """Euclidean distance of two mean vectors.

    Raises:
        ResidualError: they have different widths.
    """
    a, b = _pair(a, b)
    return (a - b).norm().item()


def relative(x: Float[Tensor, "*n d"], anchors: Float[Tensor, "m d"]) -> Float[Tensor, "*n m"]:
    """Vectors seen from anchors: their cosines with each (Moschella et al. 2023, arXiv 2209.15430); NaN for a
    vector that is zero.

    Given to `mean_cosine` and its kin, it makes those relative: with anchors that are the same samples in two
    encoders, vectors of different widths can be compared.

    Raises:
        ResidualError: widths don't fit, no anchor, or one that is zero.
    """
    if x.shape[-1] != anchors.shape[1] or not len(anchors):
        raise ResidualError(
            f"Anchors are (m, {x.shape[-1]}), one or more of the vectors' width; got {tuple(anchors.shape)}."
        )
    x, anchors = _double(x), _double(anchors)
    if not (lengths := anchors.norm(dim=1, keepdim=True)).all():
        raise ResidualError("An anchor is zero: it has no direction that vectors could be seen from.")
    return x / x.norm(dim=-1, keepdim=True) @ (anchors / lengths).T


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape:
        raise ResidualError(
            f"Two means need one width, got {len(a)} and {len(b)}: `relative` makes them comparable."
        )
    return a.detach().to("cpu", torch.float64), b.detach().to("cpu", torch.float64)


def _centred(values: Tensor) -> Tensor:
    """Exactly zero where all are the same: a mean of equal numbers may be off by its last bit."""
    moved = values - values[:1]
    return moved - moved.mean(0)


def _double(values: Tensor) -> Tensor:
    return check_finite(values.detach().to("cpu", torch.float64), "Numbers to be compared")
