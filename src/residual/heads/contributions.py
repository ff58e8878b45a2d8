"""Scores and ablations of units on contributions that are at hand, as they are defined.

`residual.heads.scores` has the same for stores, where the `(n, u, d)` block is never made.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError
from residual.finite import all_measured, check_finite, hits
from residual.text.classifier import Labels, ZeroShotClassifier, checked_labels
from residual.tracing.ablated import check_mode
from residual.tracing.units import Units, UnitsLike, unit_positions

METHODS = ("pearson", "spearman")
_ROUNDING = 1e-12
_CLEAR = 1e-3  # of a direction's length: it surely doesn't
_DEPENDENT = 1e-6  # of a direction's length: it lies in the span of those before


def unit_correlation(
    contributions: Float[Tensor, "n u d"],
    directions: Float[Tensor, "c d"] | None = None,
    method: str = "pearson",
) -> Float[Tensor, " u"]:
    """How each unit's contribution goes along with the sum of all, over samples.

    For every coordinate of the output, or every direction of an orthonormal basis of the span of
    `directions` (by QR, in their order), the correlation over samples of the unit's contribution with the
    sum of all given units; averaged over coordinates (Basile et al. 2025, arXiv 2411.00246: (U), and (U|T)
    with class embeddings as directions). A coordinate along which one of the two doesn't vary counts as 0.

    Args:
        contributions: of two samples or more.
        directions: rows; None for the output's own coordinates.
        method: "pearson"; or "spearman", the same of ranks, ties at their mean.

    Raises:
        ResidualError: an unknown method, fewer than two samples, directions of another width, or NaN.

    Example:
        >>> import torch
        >>> from residual.heads import unit_correlation
        >>> own = torch.tensor([[0.0], [1.0], [2.0]])
        >>> unit_correlation(torch.stack([2 * own, -own], dim=1))  # two units, their sum is one of them
        tensor([ 1., -1.], dtype=torch.float64)
    """
    check_method(method)
    if len(contributions) < 2:
        raise ResidualError(f"A correlation needs at least 2 samples, got {len(contributions)}.")
    x = check_finite(contributions.detach().double(), "The contributions")
    if directions is not None:
        x = x @ span_of(directions, x.shape[2]).to(x)
    total = x.sum(1)
    if method == "spearman":
        total = ranks(total)
    return torch.stack([mean_correlation(_own(x[:, unit], method), total) for unit in range(x.shape[1])])


def unit_accuracy(
    contributions: Float[Tensor, "n u d"],
    classifier: ZeroShotClassifier,
    labels: Labels,
) -> Float[Tensor, " u"]:
    """Part of the samples that the classifier gets right from each unit's contribution alone: (S).

    Raises:
        ResidualError: no sample, labels that don't fit, or contributions of another width or not finite.

    Example:
        >>> import torch
        >>> from residual.heads import unit_accuracy
        >>> from residual.text import ZeroShotClassifier
        >>> classifier = ZeroShotClassifier(torch.eye(2), ["cat", "dog"])
        >>> contributions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
        >>> unit_accuracy(contributions, classifier, torch.tensor([0, 1]))
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    truth = checked_labels(labels, len(contributions), len(classifier)).to(contributions.device)
    alone = (classifier.logits(contributions[:, unit]) for unit in range(contributions.shape[1]))
    measured = torch.stack([hits(logits, truth) for logits in alone])
    return all_measured(measured).double().mean(1)


def ablate(
    contributions: Float[Tensor, "n u d"], keep: UnitsLike, mode: str = "zero", units: Units | None = None
) -> Float[Tensor, "n d"]:
    """The output with only some units in it.

    Args:
        contributions: of all units.
        keep: those that stay, as `Units.checked` takes them; by name where `units` are given.
        mode: "zero" leaves the others out, "mean" puts each at its mean over these samples.
        units: those of the encoder, `linearization.units` of a decomposition or a store.

    Raises:
        ResidualError: an unknown mode, a unit that isn't there, or contributions that aren't finite.

    Example:
        >>> import torch
        >>> from residual.heads import ablate
        >>> ablate(torch.tensor([[[1.0], [10.0]], [[2.0], [30.0]]]), keep=[0], mode="mean")
        tensor([[21.],
                [22.]])
    """
    check_mode(mode)
    kept = kept_units(keep, contributions.shape[1], units).to(contributions.device)
    output = contributions[:, kept].sum(1)
    if mode == "mean":
        output = output + contributions[:, ~kept].mean(0).sum(0)
    return check_finite(output, "The contributions")


def span_of(directions: Float[Tensor, "c d"], width: int) -> Float[Tensor, "d r"]:
    """Orthonormal columns with the span of the rows, in their order; one that depends on those before it, as
    of a class that has two names, adds none.

    Raises:
        ResidualError: they have another width, aren't finite, or are all zero.
    """
    if directions.shape[1] != width:
        raise ResidualError(f"The directions have width {directions.shape[1]}, the contributions {width}.")
    wide = check_finite(directions.detach().double(), "The directions")
    basis, small = torch.linalg.qr(wide[:width].T)
    if len(wide) and (small.diagonal().abs() > _CLEAR * wide[:width].norm(dim=1)).all():
        return basis
    basis, found = wide.new_zeros(width, width), 0
    for row in wide:  # one after the other: QR leaves no way to pass over one
        own, left = basis[:, :found], row
        for _ in range(2):  # once more, against rounding
            left = left - own @ (own.T @ left)
        if (length := left.norm()) > _DEPENDENT * row.norm():
            basis[:, found] = left / length
            found += 1
        if found == width:
            break
    if not found:
        raise ResidualError(f"The {len(wide)} directions are all zero: they span nothing.")
    return basis[:, :found]


def mean_correlation(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Pearson correlation of equal columns, averaged; 0 for those that don't vary."""
    means = a.mean(0), b.mean(0)
    a, b = a - means[0], b - means[1]
    squares = a.square().mean(0), b.square().mean(0)
    return mean_ratio((a * b).mean(0), squares, means)


def mean_ratio(
    products: Float[Tensor, "*u d"],
    squares: tuple[Float[Tensor, "*u d"], Float[Tensor, " d"]],
    means: tuple[Float[Tensor, "*u d"], Float[Tensor, " d"]],
) -> Float[Tensor, "*u"]:
    """The mean over coordinates of correlations, from covariances, variances and means.

    0 where one of the two doesn't vary: where its deviation is no more than the rounding of its mean.
    """
    vary = [square > (_ROUNDING * mean) ** 2 for square, mean in zip(squares, means, strict=True)]
    ratio = products / (squares[0] * squares[1]).clamp(min=torch.finfo(products.dtype).tiny).sqrt()
    return torch.where(vary[0] & vary[1], ratio, torch.zeros_like(ratio)).mean(-1)


def ranks(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Ranks within each column, from 1; ties share the mean of theirs."""
    columns = x.T.contiguous()
    ordered = columns.sort(1).values
    below = torch.searchsorted(ordered, columns)
    within = torch.searchsorted(ordered, columns, right=True)
    return ((below + within + 1).double() / 2).T


def kept_units(keep: UnitsLike, count: int, units: Units | None = None) -> Tensor:
    """A mask of `count` units, from whatever names them: see `Units.checked`.

    Raises:
        ResidualError: a mask of another length, or a unit that isn't there.
    """
    if units is not None and len(units) != count:
        raise ResidualError(f"The units are {len(units)}, the contributions of {count}.")
    mask = torch.zeros(count, dtype=torch.bool)
    mask[unit_positions(keep, count, units)] = True
    return mask


def check_method(method: str) -> None:
    """Refuse an unknown kind of correlation.

    Raises:
        ResidualError: it is unknown.
    """
    if method not in METHODS:
        raise ResidualError(f"Unknown method {method!r}. Known: {', '.join(METHODS)}.")


def _own(x: Tensor, method: str) -> Tensor:
    return ranks(x) if method == "spearman" else x
