"""Principal component analysis in float64: of a matrix, of a stream of batches, of an affine image.

Conventions, everywhere in the library: eigenvalues are variances with the denominator `n − 1`, in descending
order; components are orthonormal rows whose largest entry by absolute value is positive; components whose
eigenvalue is below 1e-10 of the largest are numerically zero and left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError

NUMERICALLY_ZERO = 1e-10
_IN_SPAN = 1e-7  # of the rows' length
_BLOCK = 256  # columns; of a wide scatter matrix only the blocks on and above the diagonal are computed


@dataclass(frozen=True)
class PCA:
    """Mean, orthonormal components (rows), eigenvalues of the kept components, and the variance of all."""

    mean: Float[Tensor, " d"]
    components: Float[Tensor, "k d"]
    eigenvalues: Float[Tensor, " k"]
    total_variance: float

    @property
    def explained_variance_ratio(self) -> Float[Tensor, " k"]:
        """Each component's part of the total variance."""
        return self.eigenvalues / self.total_variance

    @property
    def participation_ratio(self) -> float:
        """`(Σ λ)² / Σ λ²`: how many components carry the variance, were they equal."""
        return (self.eigenvalues.sum() ** 2 / (self.eigenvalues**2).sum()).item()


def pca(x: Float[Tensor, "n d"], k: int | None = None) -> PCA:
    """Principal components of the rows of `x`, the `k` largest or all; `IncrementalPCA` in one call.

    Raises:
        ResidualError: fewer than two rows, NaN or infinity, or `k` below 1.

    Example:
        >>> import torch
        >>> from residual.spectral import pca
        >>> fitted = pca(torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        >>> fitted.eigenvalues, fitted.explained_variance_ratio
        (tensor([6.0000, 0.6667], dtype=torch.float64), tensor([0.9000, 0.1000], dtype=torch.float64))
    """
    return IncrementalPCA().update(x).compute(k)


class IncrementalPCA:
    """PCA of rows that come in batches: count, mean and scatter matrix are all that is kept (`Moments`).

    Args:
        dim: width of a row; by default that of the first batch.

    Example:
        >>> import torch
        >>> from residual.spectral import IncrementalPCA
        >>> x = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> first, second = IncrementalPCA().update(x[:1]).update(x[1:3]), IncrementalPCA().update(x[3:])
        >>> first.merge(second).compute(k=1).eigenvalues
        tensor([6.], dtype=torch.float64)
    """

    def __init__(self, dim: int | None = None):
        self._moments = None if dim is None else Moments(1, dim)

    @property
    def count(self) -> int:
        """How many rows there were."""
        return 0 if self._moments is None else self._moments.count

    def update(self, x: Float[Tensor, "n d"]) -> IncrementalPCA:
        """Take in a batch of rows.

        Raises:
            ResidualError: rows of another width, NaN or infinity.
        """
        if self._moments is None:
            self._moments = Moments(1, x.shape[1])
        self._moments.update(x[None])
        return self

    def merge(self, other: IncrementalPCA) -> IncrementalPCA:
        """Take in all that another one has seen.

        Raises:
            ResidualError: it is of rows of another width.
        """
        if other._moments is not None:
            if self._moments is None:
                self._moments = Moments(1, other._moments.width)
            self._moments.merge(other._moments)
        return self

    def compute(self, k: int | None = None) -> PCA:
        """The principal components of all rows so far, the `k` largest or all.

        Raises:
            ResidualError: fewer than two rows, or `k` below 1.
        """
        return components_of(*self._mean_and_covariance(), k)

    def compute_affine(
        self, matrix: Float[Tensor, "d e"], offset: Float[Tensor, " e"], k: int | None = None
    ) -> PCA:
        """The principal components of `x M + o` for the rows `x` so far, without ever making them.

        Raises:
            ResidualError: fewer than two rows, or `k` below 1.
        """
        return components_of_image(*self._mean_and_covariance(), matrix, offset, k)

    def _mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        if self._moments is None or self.count < 2:
            raise ResidualError(f"Principal components need at least 2 samples, got {self.count}.")
        mean, covariance = self._moments.mean, self._moments.covariance
        return mean[0], covariance[0]


class Moments:
    """Count, mean and scatter of the rows of `b` matrices `(n, f)` that come in batches, in float64.

    Products are summed around a shift, the mean of the first batch, which needs no copy of the scatter a
    batch; the shift is taken out at the end. Another's sums, around a shift of its own, are moved to this
    one's and added. The order of batches does not matter beyond rounding.

    Args:
        many: `b`.
        width: `f`.
        device: where they are kept.
        scatter: keep `Σ (x − mean)(x − mean)ᵀ`, else count and mean alone.
    """

    def __init__(self, many: int, width: int, device: torch.device | str = "cpu", scatter: bool = True):
        self.count, self.width = 0, width
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

    @property
    def covariance(self) -> Float[Tensor, "b f f"]:
        """The scatter over one less than the count.

        Raises:
            ResidualError: no scatter is kept.
        """
        if (scatter := self.scatter) is None:
            raise ResidualError("These moments keep no scatter, so there is no covariance.")
        return scatter / (self.count - 1)

    def update(self, x: Float[Tensor, "b n f"], *, overwrite_x: bool = False) -> None:
        """Take in rows.

        Args:
            x: of any precision, on any device.
            overwrite_x: `x` isn't needed any more: it may be worked on in place of a copy.

        Raises:
            ResidualError: they are of another width, or hold NaN or infinity.
        """
        self._check_width(x.shape[2])
        if not x.shape[1]:
            return
        x = x.detach().to(self._shift, copy=not overwrite_x)
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
            ResidualError: it is of rows of another width, or keeps no scatter where this one does.
        """
        self._check_width(other.width)
        if not other.count:
            return
        if self._products is not None and other._products is None:
            raise ResidualError("Moments with a scatter can't take in others without.")
        device = self._shift.device
        if not self.count:
            self._shift = other._shift.to(device, copy=True)
        step = other._shift.to(device) - self._shift
        total = other._total.to(device)
        more = total + other.count * step  # the other's rows around this one's shift
        if self._products is not None and other._products is not None:
            self._products += other._products.to(device)
            self._products.baddbmm_(torch.stack([step, total], 2), torch.stack([more, step], 1))
        self._total += more
        self.count += other.count

    @property
    def state(self) -> dict[str, Tensor]:
        """All that is kept but the count, with which `go_on` goes on to the last bit."""
        kept = {"shift": self._shift, "total": self._total}
        return kept if self._products is None else kept | {"products": self._products}

    def go_on(self, count: int, state: dict[str, Tensor]) -> None:
        """Take another's `state` in place of its own."""
        device, products = self._shift.device, state.get("products")
        self.count = count
        self._shift, self._total = (state[name].to(device, copy=True) for name in ("shift", "total"))
        self._products = None if products is None else products.to(device, copy=True)

    def restore(self, count: int, mean: Float[Tensor, "b f"], scatter: Float[Tensor, "b f f"] | None) -> None:
        """Take the state of others in place of its own."""
        device = self._shift.device
        self.count, self._shift = count, mean.to(device)
        self._total = torch.zeros_like(self._shift)
        self._products = None if scatter is None else scatter.to(device).clone()

    def _check_width(self, width: int) -> None:
        if width != self.width:
            raise ResidualError(f"Expected rows of width {self.width}, got {width}.")


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


def components_of(mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"], k: int | None = None) -> PCA:
    """The principal components of what has this mean and covariance, the `k` largest or all.

    Raises:
        ResidualError: `k` below 1.
    """
    _check_count(k)
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return _sorted_out(mean, vectors.T.flip(0), eigenvalues.flip(0), k)


def components_of_image(
    mean: Float[Tensor, " d"],
    covariance: Float[Tensor, "d d"],
    matrix: Float[Tensor, "d e"],
    offset: Float[Tensor, " e"],
    k: int | None = None,
) -> PCA:
    """The principal components of `x M + o` for what has this mean and covariance `C`.

    The covariance of `x M` is `Mᵀ C M`. Where that is wider than `C = R Rᵀ`, take `M = L Q`, the rows of `Q`
    orthonormal: the right singular vectors of the small `Rᵀ L`, times `Q`, are its eigenvectors, and the
    singular values squared its eigenvalues.

    Raises:
        ResidualError: `k` below 1.
    """
    _check_count(k)
    matrix = matrix.to(torch.float64)
    mean = mean @ matrix + offset.to(torch.float64)
    if matrix.shape[0] >= matrix.shape[1]:
        return components_of(mean, matrix.T @ covariance @ matrix, k)
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    root = vectors * eigenvalues.clamp(min=0).sqrt()
    rows, small = torch.linalg.qr(matrix.T)  # (e, d), (d, d)
    _, singular, vectors = torch.linalg.svd(root.T @ small.T)
    return _sorted_out(mean, vectors @ rows.T, singular**2, k)


def _check_count(k: int | None) -> None:
    if k is not None and k < 1:
        raise ResidualError(f"The number of components must be at least 1, got {k}.")


def _sorted_out(mean: Tensor, components: Tensor, eigenvalues: Tensor, k: int | None) -> PCA:
    """Leave out what is numerically zero, cut to `k`, fix the signs."""
    eigenvalues = eigenvalues.clamp(min=0)
    total = eigenvalues.sum().item()
    kept = int((eigenvalues > NUMERICALLY_ZERO * eigenvalues[0]).sum())
    kept = kept if k is None else min(kept, k)
    return PCA(mean, _with_signs(components[:kept]), eigenvalues[:kept].contiguous(), total)


def _with_signs(components: Tensor) -> Tensor:
    """Each with its largest entry positive."""
    largest = components.abs().argmax(dim=1, keepdim=True)
    return (components * components.gather(1, largest).sign()).contiguous()


def resized(
    components: Float[Tensor, "k d"], eigenvalues: Float[Tensor, " k"], count: int
) -> tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """The first `count` components; where there are fewer, others without variance after them.

    Raises:
        ResidualError: `count` is above the width, or below 1.
    """
    _check_count(count)
    known, width = components.shape
    if count > width:
        raise ResidualError(f"There are at most {width} components of width {width}, got {count}.")
    if count <= known:
        return components[:count], eigenvalues[:count]
    rest = torch.linalg.svd(components)[2][known:count]  # orthogonal to all of them
    return _followed_by(rest, components, eigenvalues)


def spanning(
    components: Float[Tensor, "k d"], eigenvalues: Float[Tensor, " k"], rows: Float[Tensor, "f d"]
) -> tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """With others without variance after them, until all the rows are in their span."""
    rows = rows[rows.any(1)]
    if len(components) >= min(rows.shape):
        return components, eigenvalues
    left = rows - rows @ components.T @ components
    _, lengths, directions = torch.linalg.svd(left, full_matrices=False)
    return _followed_by(directions[lengths > _IN_SPAN * rows.norm()], components, eigenvalues)


def _followed_by(rest: Tensor, components: Tensor, eigenvalues: Tensor) -> tuple[Tensor, Tensor]:
    none = eigenvalues.new_zeros(len(rest))
    return torch.cat([components, _with_signs(rest)]), torch.cat([eigenvalues, none])
