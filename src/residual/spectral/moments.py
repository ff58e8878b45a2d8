"""Count, mean and scatter of rows that come in batches, in float64; of one matrix or of many at once.

Products are summed around a shift, the mean of the first batch, which needs no copy of the scatter a batch;
the shift is taken out at the end. Two of these are merged by the formula of Chan, Golub and LeVeque (1979).
The order of batches does not matter beyond rounding.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError

_BLOCK = 256  # columns; of a wide scatter matrix only the blocks on and above the diagonal are computed


class Moments:
    """Moments of the rows of `b` matrices `(n, f)`.

    Args:
        many: `b`.
        width: `f`.
        device: where they are kept.
        scatter: keep `Σ (x − mean)(x − mean)ᵀ`, else count and mean alone.
    """

    def __init__(self, many: int, width: int, device: torch.device | str = "cpu", scatter: bool = True):
        self.count = 0
        self._shift = torch.zeros(many, width, dtype=torch.float64, device=device)
        self._total = torch.zeros_like(self._shift)
        self._products = self._shift.new_zeros(many, width, width) if scatter else None

    @property
    def mean(self) -> Float[Tensor, "b f"]:
        """Of all rows so far."""
        return self._shift + self._total / max(self.count, 1)

    @property
    def scatter(self) -> Float[Tensor, "b f f"] | None:
        """`Σ (x − mean)(x − mean)ᵀ` over all rows so far."""
        if self._products is None:
            return None
        whole = self._products.triu() + self._products.triu(1).mT
        return whole - self._total[:, :, None] * self._total[:, None, :] / max(self.count, 1)

    def update(self, x: Float[Tensor, "b n f"]) -> None:
        """Take in rows, in float64; `x` itself is changed.

        Raises:
            ResidualError: they hold NaN or infinity.
        """
        if not x.shape[1]:
            return
        if not self.count:
            self._shift = x.mean(1)
        x -= self._shift[:, None]
        self._total += x.sum(1)
        self.count += x.shape[1]
        seen = self._total
        if self._products is not None:
            _add_products(self._products, x)
            seen = self._products.diagonal(dim1=1, dim2=2)
        if not seen.sum().isfinite():
            raise ResidualError("The rows hold NaN or infinity: no principal components can be had of them.")

    def merge(self, other: Moments) -> None:
        """Take in all that another one has seen.

        Raises:
            ResidualError: it is of rows of another width.
        """
        if other._shift.shape != self._shift.shape or (other._products is None) != (self._products is None):
            ours, theirs = (moments._shift.shape[1] for moments in (self, other))
            raise ResidualError(f"Expected rows of width {ours}, got {theirs}.")
        if not other.count:
            return
        device, total = self._shift.device, self.count + other.count
        mean, step = self.mean, other.mean.to(device) - self.mean
        scatter, more = self.scatter, other.scatter
        if scatter is not None and more is not None:
            between = step[:, :, None] * step[:, None, :]
            scatter = scatter + more.to(device) + between * (self.count * other.count / total)
        self.restore(total, mean + step * (other.count / total), scatter)

    def restore(self, count: int, mean: Float[Tensor, "b f"], scatter: Float[Tensor, "b f f"] | None) -> None:
        """Take the state of others in place of its own."""
        device = self._shift.device
        self.count, self._shift = count, mean.to(device)
        self._total = torch.zeros_like(self._shift)
        self._products = None if scatter is None else scatter.to(device).clone()


def _add_products(sums: Float[Tensor, "b f f"], x: Float[Tensor, "b n f"]) -> None:
    """Add `xᵀ x`, above the diagonal at least."""
    width = x.shape[2]
    if x.is_cuda or width < 2 * _BLOCK:
        sums.baddbmm_(x.mT, x)
        return
    for one, rows in zip(sums, x, strict=True):
        for start in range(0, width, _BLOCK):
            columns = slice(start, start + _BLOCK)
            one[columns, start:].addmm_(rows[:, columns].mT, rows[:, start:])
