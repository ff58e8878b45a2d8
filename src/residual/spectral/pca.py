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
from residual.spectral.moments import Moments

NUMERICALLY_ZERO = 1e-10


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
    """Principal components of the rows of `x`, the `k` largest or all.

    Raises:
        ResidualError: fewer than two rows, NaN, or `k` below 1.
    """
    moments = IncrementalPCA(x.shape[1])
    moments.update(x)
    return moments.compute(k)


class IncrementalPCA:
    """PCA of rows that come in batches: count, mean and scatter matrix are all that is kept (`Moments`).

    Args:
        dim: width of a row.
    """

    def __init__(self, dim: int):
        self._dim, self._moments = dim, Moments(1, dim)

    @property
    def count(self) -> int:
        """How many rows there were."""
        return self._moments.count

    def update(self, x: Float[Tensor, "n d"]) -> None:
        """Take in a batch of rows.

        Raises:
            ResidualError: rows of another width, NaN or infinity.
        """
        if x.shape[1] != self._dim:
            raise ResidualError(f"Expected rows of width {self._dim}, got {x.shape[1]}.")
        self._moments.update(x.detach().to("cpu", torch.float64, copy=True)[None])

    def merge(self, other: IncrementalPCA) -> None:
        """Take in all that another one has seen.

        Raises:
            ResidualError: it is of rows of another width.
        """
        self._moments.merge(other._moments)

    def compute(self, k: int | None = None) -> PCA:
        """The principal components of all rows so far, the `k` largest or all.

        Raises:
            ResidualError: fewer than two rows, or `k` below 1.
        """
        return components_of(self._moments.mean[0], self._covariance(k), k)

    def compute_affine(
        self, matrix: Float[Tensor, "d e"], offset: Float[Tensor, " e"], k: int | None = None
    ) -> PCA:
        """The principal components of `x M + o` for the rows `x` so far, without ever making them."""
        return components_of_image(self._moments.mean[0], self._covariance(k), matrix, offset, k)

    def _covariance(self, k: int | None) -> Tensor:
        scatter = self._moments.scatter
        if self.count < 2 or scatter is None:
            raise ResidualError(f"Principal components need at least 2 samples, got {self.count}.")
        if k is not None and k < 1:
            raise ResidualError(f"The number of components must be at least 1, got {k}.")
        return scatter[0] / (self.count - 1)


def components_of(mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"], k: int | None = None) -> PCA:
    """The principal components of what has this mean and covariance, the `k` largest or all."""
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
    """
    matrix = matrix.to(torch.float64)
    mean = mean @ matrix + offset.to(torch.float64)
    if matrix.shape[0] >= matrix.shape[1]:
        return components_of(mean, matrix.T @ covariance @ matrix, k)
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    root = vectors * eigenvalues.clamp(min=0).sqrt()
    rows, small = torch.linalg.qr(matrix.T)  # (e, d), (d, d)
    _, singular, vectors = torch.linalg.svd(root.T @ small.T)
    return _sorted_out(mean, vectors @ rows.T, singular**2, k)


def _sorted_out(mean: Tensor, components: Tensor, eigenvalues: Tensor, k: int | None) -> PCA:
    """Leave out what is numerically zero, cut to `k`, fix the signs."""
    eigenvalues = eigenvalues.clamp(min=0)
    total = eigenvalues.sum().item()
    kept = int((eigenvalues > NUMERICALLY_ZERO * eigenvalues[0]).sum())
    kept = kept if k is None else min(kept, k)
    components = components[:kept]
    largest = components.abs().argmax(dim=1, keepdim=True)
    signs = components.gather(1, largest).sign()
    return PCA(mean, (components * signs).contiguous(), eigenvalues[:kept].contiguous(), total)
