"""ResiDual: the units' contributions with every kept principal component re-weighted by one number.

Basile et al. 2025, arXiv 2411.00246.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from residual.adapters.adapter import Rank, Reweighted, Scorer, check_choice
from residual.errors import ResidualError
from residual.spectral.bases import SpectralBases
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization

OTHERS = ("keep", "mean", "zero")

# ResiDual* keeps a head's components up to this part of its variance (Basile et al. 2025).
STAR_RANK = 0.9


class ResiDual(Reweighted):
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

    method: ClassVar[str] = "residual"
    learning_rate: ClassVar[float] = 0.8

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
        check_choice("others", others, OTHERS)
        if others == "mean" and bases.all_means is None:
            raise ResidualError(
                'others="mean" needs the means of the units without a basis: these bases hold no all_means '
                "(fit_bases gives them)."
            )
        names = [f"Unit {unit}" for unit in bases.units]
        super().__init__(
            bases.components, bases.eigenvalues, bases.means, names, rank, tail, mean, init, seed
        )
        self.bases, self.others, self.origin = bases, others, bases.origin

    @property
    def units(self) -> tuple[int, ...]:
        """Positions of the units with a basis."""
        return self.bases.units

    def choices(self) -> tuple[object, ...]:
        """The units too, and what is done with the others."""
        return (*super().choices(), self.units, self.others)

    def at_ranks(self, ranks: Sequence[int]) -> ResiDual:
        """The same with so many components of each unit; λ starts at 1."""
        if tuple(ranks) == self.ranks:
            return self
        return ResiDual(self.bases, list(ranks), self.others, self.tail, "ones", mean=self.mean)

    def lambdas_of(self, unit: int) -> Float[Tensor, " k"]:
        """The weights of one unit."""
        return self.expand(self.lambdas).split(self.ranks)[self.bases.units.index(unit)]

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

    def scorer(self, linearization: Linearization) -> Scorer:
        """Scores and rest straight from coordinates; no `(n, u, d)` block is made.

        A unit's scores are `(f M + o − m) Φᵀ = f (M Φᵀ) + (o − m) Φᵀ`.
        """
        n_units = len(linearization.units)
        self.check_units(n_units, linearization.output_dim)
        like = linearization.offset(self.units[0])
        directions, means = self.directions.detach().to(like), self.bases.means.to(like)
        maps = []
        for unit, mean, rows in zip(self.units, means, directions.split(self.ranks), strict=True):
            matrix, offset = linearization.matrix(unit), linearization.offset(unit)
            maps.append((matrix @ rows.T, (offset - mean) @ rows.T))
        summed, constant = [], self.constant(n_units)
        if self.tail == "keep":
            summed, constant = list(self.units), constant - self.bases.means.sum(dim=0)
        if self.others == "keep":
            summed += self.other_units(n_units)

        @cache
        def moved(
            dtype: torch.dtype, device: torch.device
        ) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
            each = [(m.to(device, dtype), o.to(device, dtype)) for m, o in maps]
            return each, constant.to(device, dtype), directions.to(device, dtype)

        def scores(batch: Coordinates) -> tuple[Tensor, Tensor]:
            each, constant, directions = moved(batch.mean.dtype, batch.mean.device)
            scores = torch.cat(
                [
                    torch.addmm(o, linearization.features(batch, unit), m)
                    for unit, (m, o) in zip(self.units, each, strict=True)
                ],
                dim=1,
            )
            rest = constant.expand(len(batch), -1)
            for unit in summed:
                rest = rest + linearization.contributions(batch, [unit])[:, 0]
            if self.tail == "keep":
                rest = rest - scores @ directions
            return scores, rest.contiguous()

        return scores

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
