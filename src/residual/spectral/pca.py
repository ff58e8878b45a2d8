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
    """PCA of rows that come in batches: count, mean and scatter matrix are all that is kept.

    Batches are combined by the pairwise formula of Chan, Golub and LeVeque (1979), so that the order of
    batches does not matter beyond rounding, and two of these can be merged.

    Args:
        dim: width of a row.
    """

    def __init__(self, dim: int):
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, x: Float[Tensor, "n d"]) -> None:
        """Take in a batch of rows.

        Raises:
            ResidualError: rows of another width, NaN or infinity.
        """
        if x.shape[1] != len(self.mean):
            raise ResidualError(f"Expected rows of width {len(self.mean)}, got {x.shape[1]}.")
        if len(x) == 0:
            return
        x = x.detach().to(self.mean.device, torch.float64)
        mean = x.mean(dim=0)
        centred = x - mean
        scatter = centred.T @ centred
        if not scatter.diagonal().sum().isfinite():
            raise ResidualError("The rows hold NaN or infinity: no principal components can be had of them.")
        self._combine(len(x), mean, scatter)

    def merge(self, other: IncrementalPCA) -> None:
        """Take in all that another one has seen."""
        if len(other.mean) != len(self.mean):
            raise ResidualError(f"Expected rows of width {len(self.mean)}, got {len(other.mean)}.")
        if other.count:
            self._combine(other.count, other.mean, other.scatter)

    def compute(self, k: int | None = None) -> PCA:
        """The principal components of all rows so far, the `k` largest or all."""
        self._check(k)
        eigenvalues, vectors = torch.linalg.eigh(self.scatter / (self.count - 1))
        return _sorted_out(self.mean, vectors.T.flip(0), eigenvalues.flip(0), k)

    def compute_affine(
        self, matrix: Float[Tensor, "d e"], offset: Float[Tensor, " e"], k: int | None = None
    ) -> PCA:
        """The principal components of `x M + o` for the rows `x` so far, without ever making them.

        With the covariance `C = R Rᵀ` of `x`, that of `x M` is `(Rᵀ M)ᵀ (Rᵀ M)`: its eigenvectors are the
        right singular vectors of the small `Rᵀ M`, its eigenvalues their singular values squared.
        """
        self._check(k)
        matrix = matrix.to(torch.float64)
        eigenvalues, vectors = torch.linalg.eigh(self.scatter / (self.count - 1))
        root = vectors * eigenvalues.clamp(min=0).sqrt()
        _, singular, components = torch.linalg.svd(root.T @ matrix, full_matrices=False)
        return _sorted_out(self.mean @ matrix + offset.to(torch.float64), components, singular**2, k)

    def _check(self, k: int | None) -> None:
        if self.count < 2:
            raise ResidualError(f"Principal components need at least 2 samples, got {self.count}.")
        if k is not None and k < 1:
            raise ResidualError(f"The number of components must be at least 1, got {k}.")

    def _combine(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        step = mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(step, step) * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total


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
