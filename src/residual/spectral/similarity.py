"""How alike two bases are, two means, two representations: of one head on two datasets, of two heads."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError

MATCHES = ("greedy", "index")


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
        ResidualError: widths or weights don't fit, no component, or an unknown `match`.
    """
    if match not in MATCHES:
        raise ResidualError(f"match is {' or '.join(map(repr, MATCHES))}, got {match!r}.")
    if a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise ResidualError(
            f"Two bases need components of one width, one or more; got {tuple(a.shape)}, {tuple(b.shape)}."
        )
    weights = torch.ones(len(a), len(b), dtype=torch.float64)
    if weights_a is not None or weights_b is not None:
        if weights_a is None or weights_b is None:
            raise ResidualError("Weights are of both bases or of neither; one of them is missing.")
        if len(weights_a) != len(a) or len(weights_b) != len(b):
            raise ResidualError(
                f"Bases of {len(a)} and {len(b)} components need as many weights; got {len(weights_a)} and "
                f"{len(weights_b)}."
            )
        weights = torch.outer(_double(weights_a), _double(weights_b))
    norm = weights.diagonal().norm()
    if not norm > 0:
        raise ResidualError("The first weights of the two bases are all zero: nothing can be compared.")
    cosines = (_double(a) @ _double(b).T).abs() * weights / norm
    taken = cosines.diagonal() if match == "index" else _greedy(cosines)
    return taken.norm().item()


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
    if a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise ResidualError(
            f"Two bases need components of one width, one or more; got {tuple(a.shape)}, {tuple(b.shape)}."
        )
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
    """Cosine of the angle between two mean vectors; NaN if one is zero."""
    a, b = _pair(a, b)
    return (a @ b / (a.norm() * b.norm())).item()


def mean_correlation(a: Float[Tensor, " d"], b: Float[Tensor, " e"]) -> float:
    """Pearson correlation of two mean vectors over their coordinates; NaN if one is constant."""
    a, b = _pair(a, b)
    return mean_cosine(_centred(a), _centred(b))


def mean_distance(a: Float[Tensor, " d"], b: Float[Tensor, " e"]) -> float:
    """Euclidean distance of two mean vectors."""
    a, b = _pair(a, b)
    return (a - b).norm().item()


def relative(x: Float[Tensor, "*n d"], anchors: Float[Tensor, "m d"]) -> Float[Tensor, "*n m"]:
    """Vectors seen from anchors: their cosines with each (Moschella et al. 2023, arXiv 2209.15430).

    Given to `mean_cosine` and its kin, it makes those relative: with anchors that are the same samples in two
    encoders, vectors of different widths can be compared.

    Raises:
        ResidualError: widths don't fit, or no anchor.
    """
    if x.shape[-1] != anchors.shape[1] or not len(anchors):
        raise ResidualError(
            f"Anchors are (m, {x.shape[-1]}), one or more of the vectors' width; got {tuple(anchors.shape)}."
        )
    x, anchors = _double(x), _double(anchors)
    return x / x.norm(dim=-1, keepdim=True) @ (anchors / anchors.norm(dim=1, keepdim=True)).T


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape:
        raise ResidualError(
            f"Two means need one width, got {len(a)} and {len(b)}: `relative` makes them comparable."
        )
    return _double(a), _double(b)


def _centred(values: Tensor) -> Tensor:
    """Exactly zero where all are the same: a mean of equal numbers may be off by its last bit."""
    moved = values - values[:1]
    return moved - moved.mean(0)


def _double(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64)
