"""The two nearest neighbours of every sample, exactly, without `n²` numbers in memory.

A matrix product gives all distances, fast but rounded. So it only proposes candidates: their distances are
taken from differences in float64, and a bound on what the product can be off by tells in which rows a nearer
one may have been passed over. They are searched again with a product in float64, what is left by differences.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residual.errors import ResidualError

_CANDIDATES = 8
_GROUP = 64  # of distances, of which the least is found first
_TILE_BYTES = {"cpu": 2**25, "cuda": 2**29}  # of distances held at a time
_ROWS = 1024  # copied in float64 at a time
_GATHERED = {"cpu": 2**18, "cuda": 2**24}  # numbers of candidates held at a time
_NEGLIGIBLE = 1e-10  # of a squared distance


def nearest_two(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n 2"], Int[Tensor, "n 2"]]:
    """Distances of every row of `x` to its two nearest others, in float64, and which rows those are.

    The work is done on the device of `x`; memory beyond it is that of one more `x` (two, where float32 can't
    tell neighbours apart) and a few dozen MB.

    Raises:
        ResidualError: fewer than three rows, NaN or infinity.
    """
    n = len(x)
    if n < 3:
        raise ResidualError(f"Two nearest neighbours need at least 3 samples, got {n}.")
    x = x.detach()
    if not x.isfinite().all():
        raise ResidualError("The samples hold NaN or infinity, so they have no nearest neighbours.")
    squares = torch.empty(n, 2, dtype=torch.float64, device=x.device)
    found = torch.empty(n, 2, dtype=torch.int64, device=x.device)
    centre = torch.stack([part.sum(0, dtype=torch.float64) for part in x.split(_ROWS)]).sum(0) / n
    rows = torch.arange(n, device=x.device)
    for dtype in (torch.float32, torch.float64):
        if len(rows) and n - 1 > _CANDIDATES:
            points = torch.zeros(n + -n % _GROUP, x.shape[1], dtype=dtype, device=x.device)
            finer = torch.promote_types(x.dtype, dtype)  # in which the subtraction rounds nothing that counts
            torch.sub(x, centre.to(finer), out=points[:n])
            rows = _by_products(x, points, rows, squares, found)
    for part in rows.split(_rows_of_a_tile(n, x)):
        _by_differences(x, part, squares, found)
    return squares.sqrt(), found


def _by_products(x: Tensor, points: Tensor, rows: Tensor, squares: Tensor, found: Tensor) -> Tensor:
    """Fill in `squares` and `found` for `rows`; gives back those rows whose neighbours aren't sure.

    `points` are those of `x` about their mean, and some more that make groups whole: they are infinitely far.
    """
    n, d = x.shape
    centred, unsure = points[:n], torch.zeros(n, dtype=torch.bool, device=x.device)
    norms = torch.cat([part.double().square().sum(1) for part in centred.split(_ROWS)])
    offsets = torch.cat([norms, norms.new_full((len(points) - n,), math.inf)]).to(points.dtype)
    rounding = (d + 8) * torch.finfo(centred.dtype).eps / 2
    tile = points.new_empty(_rows_of_a_tile(n, points), len(points))
    for part in rows.split(len(tile)):
        # |x_j|² − 2 x_i·x_j
        product = torch.addmm(offsets, centred[part], points.T, alpha=-2, out=tile[: len(part)])
        # Products may be set to a lower precision than their type's (TF32): then the bound says nothing.
        own = product.gather(1, part[:, None])[:, 0].double() + norms[part]
        if (own.abs() > 2 * rounding * norms[part] + torch.finfo(centred.dtype).tiny).any():
            return rows
        product.scatter_(1, part[:, None], math.inf)
        least, places = _smallest(product, _CANDIDATES + 1)
        # Where all is infinite, places may be those of points that aren't there.
        candidates = places[:, :_CANDIDATES].clamp(max=n - 1)
        exact = _squared_distances(x, part, candidates)
        squares[part], nearest = exact.topk(2, largest=False)
        found[part] = candidates.gather(1, nearest)
        proposed = least.double() + norms[part, None]
        # What is farther than the candidates doesn't count; the norm of what isn't is bounded by theirs.
        reach = norms[part].sqrt() + exact.amax(1).sqrt()
        bound = rounding * (norms[part] + reach**2)
        second = squares[part, 1]
        sure = (second <= proposed[:, -1] - bound) | (second == 0)
        if centred.dtype == torch.float64:
            sure |= bound <= _NEGLIGIBLE * second
        sure &= ((proposed[:, :_CANDIDATES] - exact).abs() <= bound[:, None]).all(1)
        unsure[part] = ~sure
    return unsure.nonzero()[:, 0]


def _smallest(values: Float[Tensor, "m n"], k: int) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """`values.topk(k, largest=False)`, by way of the least of every group: the best groups hold them."""
    groups = values.view(len(values), _GROUP, -1)  # (m, members, groups)
    best = groups.amin(1).topk(min(k, groups.shape[2]), largest=False).indices
    members = groups.gather(2, best[:, None].expand(-1, _GROUP, -1)).flatten(1)
    least, at = members.topk(k, largest=False)
    return least, at // best.shape[1] * groups.shape[2] + best.gather(1, at % best.shape[1])


def _squared_distances(x: Tensor, rows: Tensor, others: Int[Tensor, "m k"]) -> Float[Tensor, "m k"]:
    step = max(1, _GATHERED[x.device.type] // max(1, others.shape[1] * x.shape[1]))
    return torch.cat(
        [
            (x[near].double() - x[row][:, None].double()).square().sum(2)
            for row, near in zip(rows.split(step), others.split(step), strict=True)
        ]
    )


def _by_differences(x: Tensor, rows: Tensor, squares: Tensor, found: Tensor) -> None:
    distances = torch.cdist(
        x[rows].double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).scatter_(1, rows[:, None], math.inf)
    least, found[rows] = distances.topk(2, largest=False)
    squares[rows] = least**2


def _rows_of_a_tile(n: int, x: Tensor) -> int:
    return max(1, _TILE_BYTES[x.device.type] // (n * x.element_size()))
