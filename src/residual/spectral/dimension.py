"""How many dimensions a cloud of samples has: by its spectrum, by distances between nearest neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist, fmean

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.linalg import vector_norm

from residual.errors import ResidualError
from residual.finite import check_finite
from residual.spectral.neighbours import nearest_two
from residual.spectral.pca import PCA

DUPLICATES = ("first", "none")
_LEFT_OUT = 1e-6  # of the variance: components that are numerically zero
_SAME = 16  # times a type's precision, of most samples' second distance: what is nearer is a duplicate
_COARSE = 1e-2  # of that distance: where rounding is more, neighbours are of its making


def linear_dimension(pca: PCA | Float[Tensor, " k"], threshold: float = 0.99) -> int:
    """How many of the first components hold that part of the variance.

    The first at which the running explained variance ratio exceeds `threshold` is the last that counts. The
    paper's intrinsic dimension takes 0.99, the rank of its ResiDual* 0.9. Without variance it is 0.

    Args:
        pca: or all its eigenvalues, in descending order.
        threshold: in (0, 1).

    Raises:
        ResidualError: eigenvalues that aren't finite, don't descend or are negative, a threshold outside
            (0, 1), or one that a PCA's components don't reach as it was cut.

    Example:
        >>> import torch
        >>> from residual.spectral import linear_dimension
        >>> linear_dimension(torch.tensor([90.0, 9.5, 0.5])), linear_dimension(torch.ones(10), 0.75)
        (2, 8)
    """
    if not 0 < threshold < 1:
        raise ResidualError(f"A share of the variance lies in (0, 1), got {threshold}.")
    eigenvalues = check_finite(pca if isinstance(pca, Tensor) else pca.eigenvalues, "Eigenvalues")
    slack = _LEFT_OUT * eigenvalues[:1].abs()
    if (eigenvalues.diff() > slack).any() or (eigenvalues < -slack).any():
        raise ResidualError("Eigenvalues are variances, in descending order: sort these, or give a PCA.")
    total = float(eigenvalues.sum()) if isinstance(pca, Tensor) else pca.total_variance
    if total <= 0:
        return 0
    running = eigenvalues.cumsum(0) / total
    if running[-1] <= threshold and running[-1] < 1 - _LEFT_OUT:
        raise ResidualError(
            f"These {len(running)} components hold {running[-1]:.3g} of the variance: it takes more of them "
            f"to tell how many hold {threshold}."
        )
    return min(int((running <= threshold).sum()) + 1, len(eigenvalues))


@dataclass(frozen=True)
class TwoNN:
    """An estimate of intrinsic dimension by `two_nn_estimate`.

    Args:
        dimension: the estimate.
        low, high: its confidence interval.
        samples: how many went into it.
        dropped: how many were left out: of duplicates all but the first, and those whose two neighbours are
            equally far.
        distance: the mean distance to the second neighbour: the scale at which the dimension is seen.
    """

    dimension: float
    low: float
    high: float
    samples: int
    dropped: int
    distance: float


def two_nn(x: Float[Tensor, "n d"], fraction: float = 0.9, *, duplicates: str = "first") -> float:
    """Intrinsic dimension by the ratio of the distances to the two nearest neighbours.

    With `r1 < r2` a sample's distances to its two nearest neighbours, `μ = r2/r1` follows `P(μ) = 1 − μ^(−D)`
    where the density is even around it. With the `N` ratios in ascending order and `F_i = i/N`, `D` is the
    least-squares slope of `−ln(1 − F)` on `ln μ` through the origin, over the first `⌊fraction · N⌋` (Facco,
    d'Errico, Rodriguez and Laio 2017, doi:10.1038/s41598-017-11873-y). The samples must be distinct: of
    duplicates the first counts, and `two_nn_estimate` tells how many were dropped. So do samples with
    `r1 = r2` not count.

    Args:
        x: samples, on the device that is to do the work.
        fraction: in (0, 1]; the largest ratios are the least reliable.
        duplicates: "first" of them counts; or "none", as in the code published with Basile et al. 2025, where
            all samples that come twice stay neighbours of others and have no ratio themselves.

    Raises:
        ResidualError: NaN, a fraction outside (0, 1], an unknown choice, fewer than three distinct samples,
            or most of them with two neighbours equally far, as on a grid.

    Example:
        >>> import torch
        >>> from residual.spectral import two_nn
        >>> angles = 6.28 * torch.rand(1000, generator=torch.Generator().manual_seed(0))
        >>> round(two_nn(torch.stack([angles.cos(), angles.sin()], dim=1)))  # a circle in the plane
        1
    """
    if duplicates not in DUPLICATES:
        raise ResidualError(f"duplicates is {' or '.join(map(repr, DUPLICATES))}, got {duplicates!r}.")
    if duplicates == "first":
        return two_nn_estimate(x, fraction).dimension
    _check_shares(fraction, 0.5)
    return _estimate(x, *nearest_two(x), fraction, 0.5, len(x)).dimension


def two_nn_estimate(
    x: Float[Tensor, "n d"], fraction: float = 0.9, level: float = 0.95, *, resolution: float = 0.0
) -> TwoNN:
    """The same as `two_nn`, with a confidence interval.

    The interval is of sampling alone, normal in `ln D`. Its variance is that of the slope's influence
    function summed over samples, with the covariance of neighbours: those share distances, and without it
    intervals are too short by up to a third. It says nothing of the bias: in many dimensions no sample has
    neighbours so near that the density is even around it, and `two_nn` is then low.

    Args:
        x, fraction: as `two_nn` takes them.
        level: of confidence, in (0, 1).
        resolution: samples no farther apart are duplicates, and so are those within 16 times the precision of
            their type (float32 at least) of the distance at which most have their second neighbour: what one
            picture gives twice may differ in its last bits.

    Raises:
        ResidualError: as `two_nn`; or a level outside (0, 1).
    """
    _check_shares(fraction, level)
    return _estimate(*_distinct(x, resolution), fraction, level, len(x))


def two_nn_scales(
    x: Float[Tensor, "n d"],
    fraction: float = 0.9,
    level: float = 0.95,
    halvings: int = 3,
    least: int = 100,
    seed: int = 0,
    *,
    resolution: float = 0.0,
) -> list[TwoNN]:
    """The dimension at larger and larger scales, by decimation: of all samples, of halves, of quarters, ….

    Fewer samples lie farther apart. Where the dimension falls as they are left out, noise made it large at
    the small scale; where it stays, it is that of the cloud (Facco et al. 2017). Every entry is the mean over
    all parts of one size, which are disjoint, and so are its counts and its distance. Parts are of distinct
    samples. The last are those of which every part has a dimension.

    Args:
        x, fraction, level, resolution: as `two_nn_estimate` takes them.
        halvings: how often at most; each costs half as much as the one before, the first half of all samples.
        least: the smallest part.
        seed: of the order in which samples are dealt out.

    Raises:
        ResidualError: as `two_nn_estimate` of all samples.
    """
    _check_shares(fraction, level)
    distinct, *nearest = _distinct(x, resolution)
    scales = [_estimate(distinct, *nearest, fraction, level, len(x))]
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed)).to(x.device)
    for parts in (2**times for times in range(1, halvings + 1)):
        if len(distinct) // parts < least:
            break
        try:
            found = [two_nn_estimate(distinct[order[part::parts]], fraction, level) for part in range(parts)]
        except ResidualError:  # too few samples with two neighbours apart
            break
        mean = fmean(each.dimension for each in found)
        half = math.sqrt(fmean(math.log(each.high / each.dimension) ** 2 for each in found) / parts)
        scales.append(
            TwoNN(
                dimension=mean,
                low=mean * math.exp(-half),
                high=mean * math.exp(half),
                samples=round(fmean(each.samples for each in found)),
                dropped=round(fmean(each.dropped for each in found)),
                distance=fmean(each.distance for each in found),
            )
        )
    return scales


def _check_shares(fraction: float, level: float) -> None:
    if not 0 < fraction <= 1:
        raise ResidualError(f"The fraction of ratios lies in (0, 1], got {fraction}.")
    if not 0 < level < 1:
        raise ResidualError(f"A level of confidence lies in (0, 1), got {level}.")


def _distinct(
    x: Float[Tensor, "n d"], resolution: float
) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m 2"], Int[Tensor, "m 2"]]:
    """The samples but for duplicates of earlier ones, and what `nearest_two` says of them."""
    total, precision = len(x), torch.promote_types(x.dtype, torch.float32)
    x = _without_copies(x) if total else x
    while True:
        if len(x) < 3 <= total:
            raise ResidualError(
                f"Of {total} samples {total - len(x)} are duplicates of others: TwoNN needs 3 distinct ones."
            )
        distances, neighbours = nearest_two(x)
        most = distances[:, 1].quantile(0.9).item()
        same = distances <= max(resolution, _SAME * torch.finfo(precision).eps * most)
        if not same.any():
            break
        x = x[_kept(same, neighbours)]
    size = vector_norm(x.to(precision), dim=1, dtype=torch.float64).median()
    if size * torch.finfo(precision).eps > _COARSE * most:
        raise ResidualError(
            f"The samples are so much farther from zero than from each other that {precision} rounds their "
            "distances away.",
            "Subtract their mean, in float64, before they are rounded; if they are near duplicates, give a "
            "`resolution`.",
        )
    return x, distances, neighbours


def _without_copies(x: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """The first of all equal rows, in order."""
    rows, own = x.unique(dim=0, return_inverse=True)
    if len(rows) == len(x):
        return x
    places = torch.arange(len(x), device=x.device)
    first = places.new_full((len(rows),), len(x)).scatter_reduce_(0, own, places, "amin")
    return x[first.sort().values]


def _kept(same: Bool[Tensor, "n 2"], neighbours: Int[Tensor, "n 2"]) -> Bool[Tensor, " n"]:
    """All but those that are the same as an earlier one that is kept itself."""
    kept = [True] * len(same)
    rows, columns = same.nonzero(as_tuple=True)
    ends = torch.stack([rows, neighbours[rows, columns]], 1).sort(1).values.unique(dim=0)
    for first, second in ends.tolist():  # by the first of both
        kept[second] &= not kept[first]
    return torch.tensor(kept, device=same.device)


def _estimate(
    x: Tensor, distances: Tensor, neighbours: Tensor, fraction: float, level: float, total: int
) -> TwoNN:
    """Of distinct samples; `total` counts duplicates, too."""
    first, second = distances.T
    kept = (first > 0) & (first < second)
    logs = (second[kept] / first[kept]).log()  # (N,)
    count = len(logs)
    used = min(int(fraction * count), count - 1)
    precision = torch.promote_types(x.dtype, torch.float32)
    rounding = 2 * torch.finfo(precision).eps * vector_norm(x.to(precision), dim=1, dtype=torch.float64)
    clear = int((second - first > rounding).sum())
    if used < 1 or 2 * clear < len(x):
        raise ResidualError(
            f"Of {total} samples {total - len(x)} are duplicates of others and {len(x) - clear} have two "
            f"neighbours equally far: the {clear} left are too few for a dimension with fraction {fraction}.",
            "TwoNN is for distinct samples of a density, not for such as lie on a grid.",
        )
    ranks = torch.arange(1, used + 1, dtype=torch.float64, device=logs.device)
    heights = -torch.log1p(-ranks / count)
    ordered = logs.sort().values[:used]
    dimension = (heights @ ordered / (ordered @ ordered)).item()
    influence = torch.zeros(len(x), dtype=torch.float64, device=logs.device)
    influence[kept] = _influence(dimension * logs, heights[-1].item())
    error = NormalDist().inv_cdf((1 + level) / 2) * _deviation(influence, neighbours) / count
    return TwoNN(
        dimension=dimension,
        low=dimension * math.exp(-error),
        high=dimension * math.exp(error),
        samples=count,
        dropped=total - count,
        distance=second[kept].mean().item(),
    )


def _influence(heights: Float[Tensor, " n"], highest: float) -> Float[Tensor, " n"]:
    """Of each ratio on `ln D`, where `heights = D ln μ` follows Exp(1) and the fit ends at `highest`.

    The slope is `Σ xy/Σ x²`; to first order, a quantile that is off by `δ(y)` moves its logarithm by
    `−∫ y δ dF / ∫ y² dF`, and a sample at `t` moves the quantile `y` by `(F(y) − [t ≤ y])/(1 − F(y))`.
    """
    fall = math.exp(-highest)
    expected = highest**2 / 2 - (1 - (1 + highest) * fall)
    squares = 2 - (highest**2 + 2 * highest + 2) * fall
    moved = expected - (highest**2 - heights.clamp(max=highest) ** 2) / 2
    return -moved / squares


def _deviation(influence: Float[Tensor, " n"], neighbours: Int[Tensor, "n 2"]) -> float:
    """Standard deviation of the influences' sum, where neighbours depend on each other."""
    n = len(influence)
    ends = torch.arange(n, device=neighbours.device)[:, None].expand_as(neighbours)
    pairs = torch.minimum(ends, neighbours) * n + torch.maximum(ends, neighbours)
    pairs = pairs.flatten().unique()
    alone = influence.square().sum()
    together = 2 * (influence[pairs // n] * influence[pairs % n]).sum()
    return (alone + together).clamp(min=alone / 4).sqrt().item()
