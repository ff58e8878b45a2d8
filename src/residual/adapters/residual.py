"""ResiDual: the units' contributions with every kept principal component re-weighted by one number.

Basile et al. 2025, arXiv 2411.00246.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.errors import ResidualError
from residual.spectral.bases import SpectralBases
from residual.spectral.dimension import linear_dimension

OTHERS = ("keep", "mean", "zero")
TAILS = ("drop", "keep")
MEANS = ("drop", "keep")
INITS = ("randn", "ones", "eigenvalues")

# ResiDual* keeps a head's components up to this part of its variance (Basile et al. 2025).
STAR_RANK = 0.9

Rank = int | float | Sequence[int] | np.ndarray | None


class ResiDual(nn.Module):
    """Re-weighted principal components of units.

    With `Φ_i (k_i, d)` the kept components of unit `i`, `m_i` its mean and `λ_i (k_i,)` its weights,

        o' = Σ_i ((c_i − m_i) Φ_iᵀ ⊙ λ_i) Φ_i  +  tails  +  other units

    The mean of a unit is subtracted and not added back, as in the paper; `mean="keep"` adds `Σ_i m_i`, so
    that λ = 1 on all components is the encoder itself.

    Args:
        bases: units, means, components and eigenvalues.
        rank: how many components of each unit are kept: None, all; an int, that many; a float in (0, 1), up
            to and with the first at which the running explained variance ratio exceeds it; or one int a unit.
        others: units without a basis: "keep" them, put them at their "mean" (`bases.all_means`), or "zero".
        tail: the components beyond the rank: "drop", or "keep" at weight 1 (with what is outside the basis).
        mean: the means of the units with a basis: "drop" them, as in the paper, or "keep" them.
        init: of λ: "randn", N(1, 1) as in the paper; "ones"; "eigenvalues", each over the sum of its unit's
            (all components counted); or a tensor `(K,)`.
        seed: of "randn".

    Attributes:
        lambdas: `(K,)`, unit after unit in the order of `bases.units`; the only parameter.

    Raises:
        ResidualError: a rank below 1 or above a unit's number of components, an unknown choice, an `init` of
            another shape, or `others="mean"` without means.
    """

    lambdas: nn.Parameter
    means: Tensor
    directions: Tensor

    def __init__(
        self,
        bases: SpectralBases,
        rank: Rank = None,
        others: str = "keep",
        tail: str = "drop",
        init: str | Tensor = "randn",
        seed: int = 0,
        mean: str = "drop",
    ):
        super().__init__()
        for what, choice, known in (("others", others, OTHERS), ("tail", tail, TAILS), ("mean", mean, MEANS)):
            if choice not in known:
                raise ResidualError(f"{what} is {' or '.join(map(repr, known))}, got {choice!r}.")
        if others == "mean" and bases.all_means is None:
            raise ResidualError(
                'others="mean" needs the means of the units without a basis: these bases hold no all_means '
                "(fit_bases gives them)."
            )
        self.bases, self.others, self.tail, self.mean = bases, others, tail, mean
        self.ranks = _ranks(bases, rank)
        self.register_buffer("means", bases.means.clone(), persistent=False)
        kept = [rows[:k] for rows, k in zip(bases.components, self.ranks, strict=True)]
        self.register_buffer("directions", torch.cat(kept), persistent=False)
        self.lambdas = nn.Parameter(initial_weights(bases, self.ranks, init, seed))

    @property
    def units(self) -> tuple[int, ...]:
        """Positions of the units with a basis."""
        return self.bases.units

    @property
    def dim(self) -> int:
        """Width of the output, `d`."""
        return self.bases.dim

    def lambdas_of(self, unit: int) -> Float[Tensor, " k"]:
        """The weights of one unit."""
        return self.expand(self.lambdas).split(self.ranks)[self.bases.units.index(unit)]

    def expand(self, lambdas: Float[Tensor, "*f K"]) -> Float[Tensor, "*f K"]:
        """A weight for each kept component, from the trained ones: themselves."""
        return lambdas

    def other_units(self, n_units: int) -> list[int]:
        """Positions of the units without a basis, of `n_units` in all."""
        return [unit for unit in range(n_units) if unit not in set(self.units)]

    def check_units(self, n_units: int, dim: int) -> None:
        """Refuse contributions that these bases can't be of.

        Raises:
            ResidualError: the width differs or there are too few units (or not as many as there are means).
        """
        if dim != self.dim:
            raise ResidualError(f"The bases are of width {self.dim}, the contributions of width {dim}.")
        known = self.bases.all_means
        if max(self.units) >= n_units or (known is not None and len(known) != n_units):
            wanted = f"{len(known)}" if known is not None else f"at least {max(self.units) + 1}"
            raise ResidualError(f"The bases are of an encoder with {wanted} units, got {n_units}.")

    def forward(self, contributions: Float[Tensor, "n u d"]) -> Float[Tensor, "n d"]:
        """The re-weighted output, from the contributions of all units in their order."""
        n_units, dim = contributions.shape[1:]
        self.check_units(n_units, dim)
        centred = contributions[:, list(self.units)] - self.means.to(contributions)  # (n, r, d)
        directions = self.directions.to(contributions)
        scores = torch.cat(
            [centred[:, i] @ rows.T for i, rows in enumerate(directions.split(self.ranks))], dim=1
        )  # (n, K)
        weights = self.expand(self.lambdas).to(contributions)
        if self.tail == "drop":
            output = (scores * weights) @ directions
        else:
            output = (scores * (weights - 1)) @ directions + centred.sum(dim=1)
        if self.others == "keep":
            output = output + contributions[:, self.other_units(n_units)].sum(dim=1)
        return output + self.constant(n_units).to(output)

    def constant(self, n_units: int) -> Float[Tensor, " d"]:
        """What is added to every sample: the means that are kept, in float64."""
        total = torch.zeros(self.dim, dtype=torch.float64)
        if self.mean == "keep":
            total = total + self.bases.means.sum(dim=0)
        if self.others == "mean" and self.bases.all_means is not None:
            total = total + self.bases.all_means[self.other_units(n_units)].sum(dim=0)
        return total

    def extra_repr(self) -> str:
        """What shows in `repr`."""
        counts = f"{len(self.units)} units, {len(self.lambdas)} weights"
        return f"{counts}, others={self.others!r}, tail={self.tail!r}, mean={self.mean!r}"


def residual_star(bases: SpectralBases, init: str | Tensor = "randn", seed: int = 0) -> ResiDual:
    """ResiDual\\*: `bases` of heads, components up to 90 % of each one's variance, all else dropped."""
    return ResiDual(bases, rank=STAR_RANK, others="zero", tail="drop", init=init, seed=seed)


def residual_full(bases: SpectralBases, init: str | Tensor = "randn", seed: int = 0) -> ResiDual:
    """ResiDual: `bases` of heads and MLPs, all their components, the units left alone are kept."""
    return ResiDual(bases, rank=None, others="keep", tail="drop", init=init, seed=seed)


def _ranks(bases: SpectralBases, rank: Rank) -> list[int]:
    """How many components of each unit are kept."""
    most = list(bases.ranks)
    if rank is None:
        return most
    if isinstance(rank, float):
        if not 0 < rank < 1:
            raise ResidualError(f"A rank of explained variance lies in (0, 1), got {rank}.")
        return [linear_dimension(values, rank) for values in bases.eigenvalues]
    each = [rank] * len(most) if isinstance(rank, int | np.integer) else rank
    wanted = [int(k) for k in each]
    if isinstance(rank, bool) or len(wanted) != len(most):
        raise ResidualError(f"rank is None, an int, a float in (0, 1), or {len(most)} ints; got {rank!r}.")
    for unit, k, available in zip(bases.units, wanted, most, strict=True):
        if not 1 <= k <= available:
            raise ResidualError(
                f"Unit {unit} has {available} components: a rank of {k} isn't between 1 and that."
            )
    return wanted


def initial_weights(bases: SpectralBases, ranks: list[int], init: str | Tensor, seed: int) -> Tensor:
    """The first λ, so many numbers a unit; see `ResiDual`.

    Raises:
        ResidualError: an unknown choice, or a tensor of another shape or that isn't finite.
    """
    count = sum(ranks)
    if isinstance(init, Tensor):
        if init.shape != (count,) or not init.isfinite().all():
            raise ResidualError(f"An initial λ needs {count} finite numbers, got shape {tuple(init.shape)}.")
        return init.detach().clone().to(torch.promote_types(init.dtype, torch.float32))
    if init not in INITS:
        raise ResidualError(f"init is {' or '.join(map(repr, INITS))} or a tensor, got {init!r}.")
    if init == "randn":
        return 1 + torch.randn(count, generator=torch.Generator().manual_seed(seed))
    if init == "ones":
        return torch.ones(count)
    ratios = [values / values.sum() for values in bases.eigenvalues]
    return torch.cat([ratio[:k] for ratio, k in zip(ratios, ranks, strict=True)]).float()
