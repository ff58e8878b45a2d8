"""Count, mean and scatter of rows that come in batches, in float64; of one matrix or of many at once.

Batches are combined by the pairwise formula of Chan, Golub and LeVeque (1979), so that the order of batches
does not matter beyond rounding, and two of these can be merged.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError

_BLOCK = 256  # columns; of a wide scatter matrix only the blocks on and above the diagonal are computed


class Moments:
    """Moments of the rows of matrices `(*b, n, f)`, `b` any number of leading axes.

    Args:
        shape: `(*b, f)`.
        device: where they are kept.
        scatter: keep `Σ (x − mean)(x − mean)ᵀ`, else count and mean alone.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device | str = "cpu", scatter: bool = True):
        self.count = 0
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(*shape, shape[-1], dtype=torch.float64, device=device) if scatter else None

    def update(self, x: Float[Tensor, "*b n f"]) -> None:
        """Take in rows, in float64; `x` itself is changed.

        Raises:
            ResidualError: they hold NaN or infinity.
        """
        count = x.shape[-2]
        if not count:
            return
        mean = x.mean(-2)
        scatter = None if self.scatter is None else _gram(x.sub_(mean[..., None, :]))
        seen = mean if scatter is None else scatter.diagonal(dim1=-2, dim2=-1)
        if not seen.sum().isfinite():
            raise ResidualError("The rows hold NaN or infinity: no principal components can be had of them.")
        self._combine(count, mean, scatter)

    def merge(self, other: Moments) -> None:
        """Take in all that another one has seen."""
        if other.mean.shape != self.mean.shape or (other.scatter is None) != (self.scatter is None):
            ours, theirs = ("×".join(map(str, moments.mean.shape)) for moments in (self, other))
            raise ResidualError(f"Expected rows of width {ours}, got {theirs}.")
        if other.count:
            scatter = None if other.scatter is None else other.scatter.to(self.mean.device)
            self._combine(other.count, other.mean.to(self.mean.device), scatter)

    def _combine(self, count: int, mean: Tensor, scatter: Tensor | None) -> None:
        total = self.count + count
        step = mean - self.mean
        if self.scatter is not None and scatter is not None:
            between = step[..., :, None] * step[..., None, :]
            self.scatter += scatter.add_(between, alpha=self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total


def _gram(x: Float[Tensor, "*b n f"]) -> Float[Tensor, "*b f f"]:
    """`xᵀ x`; on the CPU, of a wide matrix, little more than half of it is computed."""
    width = x.shape[-1]
    if x.is_cuda or width < 2 * _BLOCK:
        return x.transpose(-2, -1) @ x
    result = x.new_empty(*x.shape[:-2], width, width)
    for start in range(0, width, _BLOCK):
        rows = slice(start, start + _BLOCK)
        result[..., rows, start:] = x[..., rows].transpose(-2, -1) @ x[..., start:]
        result[..., start:, rows] = result[..., rows, start:].transpose(-2, -1)
    return result
