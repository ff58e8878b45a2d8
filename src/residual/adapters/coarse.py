"""Coarse: one weight a unit, the baseline that ResiDual refines."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.adapters.residual import ResiDual, initial_weights
from residual.errors import ResidualError
from residual.spectral.bases import SpectralBases


class Coarse(ResiDual):
    """Re-weighted units: `o' = Σ_i λ_i (c_i − m_i)`, all other units dropped.

    That is ResiDual with all components and one λ a unit (Basile et al. 2025, arXiv 2411.00246), so it is
    fitted on the same scores.

    Args:
        bases: of the units that are weighted, all components.
        init: of λ: "randn", N(1, 1); "ones"; or a tensor `(r,)`.
        seed: of "randn".

    Attributes:
        lambdas: `(r,)`, one a unit of `bases.units`.

    Raises:
        ResidualError: an unknown `init`, or one of another shape.
    """

    def __init__(self, bases: SpectralBases, init: str | Tensor = "randn", seed: int = 0):
        super().__init__(bases, rank=None, others="zero", init="ones")
        if not isinstance(init, Tensor) and init not in ("randn", "ones"):
            raise ResidualError(f"init of Coarse is 'randn', 'ones' or a tensor, got {init!r}.")
        self.lambdas = nn.Parameter(initial_weights(bases, [1] * len(bases), init, seed).float())

    def expand(self, lambdas: Float[Tensor, "*f r"]) -> Float[Tensor, "*f K"]:
        """A unit's weight for each of its components."""
        return lambdas.repeat_interleave(torch.tensor(self.ranks, device=lambdas.device), dim=-1)
