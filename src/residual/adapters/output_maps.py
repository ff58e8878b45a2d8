"""Maps of the encoder's output, the baselines that don't look inside: linear, and spectral."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.adapters.adapter import Adapter, Rank, Reweighted, Scorer, WeightedSums
from residual.errors import ResidualError
from residual.spectral.bases import Origin
from residual.spectral.pca import PCA
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization


class LinearMap(Adapter):
    """`o' = o M`, the linear map at the output of Basile et al. 2025, arXiv 2411.00246.

    Args:
        dim: width of the output, `d`.
        init: of `M`: "eye", so that it starts as the encoder; or a tensor `(d, d)`.
        origin: the encoder that it is for, if known.

    Attributes:
        matrix: `(d, d)`, the only parameter.

    Raises:
        ResidualError: another `init`, or one of another shape or that isn't finite.
    """

    method: ClassVar[str] = "linear"
    learning_rate: ClassVar[float] = 1e-3
    matrix: nn.Parameter

    def __init__(self, dim: int, init: str | Tensor = "eye", origin: Origin | None = None):
        super().__init__()
        if isinstance(init, Tensor):
            if init.shape != (dim, dim) or not init.isfinite().all():
                raise ResidualError(
                    f"An initial M needs {dim} x {dim} finite numbers, got shape {tuple(init.shape)}."
                )
            first = init.detach().clone().to(torch.promote_types(init.dtype, torch.float32))
        elif init == "eye":
            first = torch.eye(dim)
        else:
            raise ResidualError(f"init of LinearMap is 'eye' or a tensor, got {init!r}.")
        self.register_buffer("directions", torch.eye(dim), persistent=False)
        self.matrix, self.ranks, self.origin = nn.Parameter(first), (dim,), origin

    @property
    def weights(self) -> nn.Parameter:
        """`M`."""
        return self.matrix

    def forward(self, output: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """`o M`."""
        _check_width(output, self.dim)
        return output @ self.matrix.to(output)

    def scorer(self, linearization: Linearization) -> Scorer:
        """The output itself is all that is needed of a sample."""
        output = _output(linearization, self.dim)
        return lambda batch: ((own := output(batch)), own.new_zeros(1, self.dim).expand(len(own), -1))

    def outputs(
        self,
        weights: Float[Tensor, "f d d"],
        scores: Float[Tensor, "f n d"],
        directions: Float[Tensor, "d d"] | WeightedSums,
        rest: Float[Tensor, "f n d"],
    ) -> Float[Tensor, "f n d"]:
        """`S M`."""
        return torch.bmm(scores, weights)


class SpectralMap(Reweighted):
    """`o' = ((o − m) Φᵀ ⊙ λ) Φ`: re-weighted principal components of the output itself.

    The spectral map at the output of Basile et al. 2025, arXiv 2411.00246.

    Args:
        pca: of the encoder's outputs (`fit_output`).
        rank, tail, init, seed: as for `ResiDual`.
        mean: "drop" the mean of the outputs, as in the paper, or "keep" it.
        origin: the encoder that it is for, if known.

    Attributes:
        lambdas: `(k,)`, the only parameter.

    Raises:
        ResidualError: as `ResiDual`.
    """

    method: ClassVar[str] = "spectral"
    learning_rate: ClassVar[float] = 1e-3

    def __init__(
        self,
        pca: PCA,
        rank: Rank = None,
        tail: str = "drop",
        init: str | Tensor = "randn",
        seed: int = 0,
        mean: str = "drop",
        origin: Origin | None = None,
    ):
        super().__init__(
            [pca.components], [pca.eigenvalues], pca.mean[None], ["The output"], rank, tail, mean, init, seed
        )
        self.pca, self.origin = pca, origin

    def at_ranks(self, ranks: Sequence[int]) -> SpectralMap:
        """The same with so many components; λ starts at 1."""
        if tuple(ranks) == self.ranks:
            return self
        return SpectralMap(self.pca, list(ranks), self.tail, "ones", mean=self.mean, origin=self.origin)

    def forward(self, output: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The re-weighted output."""
        _check_width(output, self.dim)
        scores, rest = self._scored(output)
        return torch.addmm(rest, scores * self.lambdas.to(output), self.directions.to(output))

    def scorer(self, linearization: Linearization) -> Scorer:
        """The output's scores on its own components."""
        output = _output(linearization, self.dim)
        return lambda batch: self._scored(output(batch))

    def _scored(self, output: Tensor) -> tuple[Tensor, Tensor]:
        directions, mean = self.directions.detach().to(output), self.means[0].to(output)
        centred = output - mean
        scores = centred @ directions.T
        rest = mean.expand_as(output) if self.mean == "keep" else torch.zeros_like(output)
        return scores, rest + centred - scores @ directions if self.tail == "keep" else rest


def _output(linearization: Linearization, dim: int) -> Callable[[Coordinates], Tensor]:
    if linearization.output_dim != dim:
        raise ResidualError(
            f"The map is of width {dim}, the encoder's output of width {linearization.output_dim}."
        )
    return linearization.output


def _check_width(output: Tensor, dim: int) -> None:
    if output.shape[1] != dim:
        raise ResidualError(f"The map takes outputs of width {dim}, got {output.shape[1]}.")
