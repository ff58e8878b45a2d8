"""The linear map at the output: the baseline that doesn't look inside."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.adapters.adapter import OutputMap, WeightedSums
from residual.adapters.adapter_settings import AdapterSettings, Reference
from residual.errors import ResidualError
from residual.spectral.bases import Origin


class LinearMap(OutputMap):
    """`o' = o M + b`, the linear map at the output of Basile et al. 2025, arXiv 2411.00246.

    Args:
        dim: width of the output, `d`.
        init: of `M`: "eye", so that it starts as the encoder, with `b = 0`; "random", as PyTorch starts its
            own, both uniform in `±1/√d`; or a tensor, see `matrix`.
        origin: the encoder that it is for, if known.
        bias: whether there is `b`.
        seed: of "random".

    Attributes:
        matrix: `M (d, d)`, the only parameter; with a bias `(d + 1, d)`, whose last row is `b`.

    Raises:
        ResidualError: another `init`, or one of another shape or that isn't finite.

    Example:
        >>> LinearMap(2, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))(torch.tensor([[3.0, 4.0]])).tolist()
        [[4.0, 3.0]]
    """

    method: ClassVar[str] = "linear"
    label: ClassVar[str] = "linear map"
    about: ClassVar[str] = "a linear map of the encoder's output"
    trained: ClassVar[str] = "a map of its output with {:,} weights"
    look: ClassVar[tuple[str, str, str]] = ("#56B4E9", "s", "-")
    learning_rate: ClassVar[float] = 1e-3
    matrix: nn.Parameter

    def __init__(
        self,
        dim: int,
        init: str | Tensor = "eye",
        origin: Origin | None = None,
        bias: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        rows = dim + bias
        if isinstance(init, Tensor):
            if init.shape != (rows, dim) or not init.isfinite().all():
                raise ResidualError(
                    f"An initial M needs {rows} x {dim} finite numbers, got shape {tuple(init.shape)}."
                )
            first = init.detach().clone().to(torch.promote_types(init.dtype, torch.float32))
        elif init == "eye":
            first = torch.eye(rows, dim)
        elif init == "random":
            first = _uniform(dim, bias, seed)
        else:
            raise ResidualError(f"init of LinearMap is 'eye', 'random' or a tensor, got {init!r}.")
        self.register_buffer("directions", torch.eye(dim), persistent=False)
        self.matrix, self.ranks, self.origin = nn.Parameter(first), (dim,), origin

    @classmethod
    def make(cls, reference: Reference, settings: AdapterSettings, seed: int) -> LinearMap:
        """As the encoder is; there is nothing to choose."""
        return cls(reference.bases.dim, origin=reference.bases.origin)

    def outputs(
        self,
        weights: Float[Tensor, "f r d"],
        scores: Float[Tensor, "f n d"],
        directions: Float[Tensor, "d d"] | WeightedSums,
        rest: Float[Tensor, "f n d"],
    ) -> Float[Tensor, "f n d"]:
        """`S M + b`."""
        matrix, bias = weights[:, : self.dim], weights[:, self.dim :]  # (f, d, d), (f, 1 or 0, d)
        mapped = torch.bmm(scores, matrix)
        return mapped + bias if bias.shape[1] else mapped

    def to_saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """`M`, and `b` in its last row."""
        return {"matrix": self.matrix}, {"dim": self.dim}

    @classmethod
    def from_saved(
        cls, tensors: dict[str, Tensor], choices: dict[str, Any], origin: Origin | None
    ) -> LinearMap:
        """The same `M`."""
        dim, matrix = choices["dim"], tensors["matrix"]
        return cls(dim, matrix, origin, bias=len(matrix) > dim)


def _uniform(dim: int, bias: bool, seed: int) -> Tensor:
    """`M`, and `b` below it, as `nn.Linear` draws them: its weight, which is `Mᵀ`, and then its bias."""
    generator, reach = torch.Generator().manual_seed(seed), 1 / math.sqrt(dim)
    matrix = torch.empty(dim, dim).uniform_(-reach, reach, generator=generator).T
    return torch.cat([matrix, torch.empty(int(bias), dim).uniform_(-reach, reach, generator=generator)])
