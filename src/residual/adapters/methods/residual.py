"""ResiDual: the units' contributions with every kept principal component re-weighted by one number.

Basile et al. 2025, arXiv 2411.00246. ResiDual\\* is the same with other defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from residual.adapters.adapter import Reweighted, Scorer, UnitWeights
from residual.adapters.adapter_settings import (
    OTHERS,
    WRITE_BACKS,
    AdapterSettings,
    Rank,
    Reference,
    check_choice,
)
from residual.errors import ResidualError
from residual.finite import check_finite
from residual.spectral.bases import Origin, SpectralBases
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.units import UnitLike

Maps = list[tuple[int, Tensor, Tensor]]  # of a unit's features: its number, matrix and offset


class ResiDual(Reweighted):
    """Re-weighted principal components of units; by default all of them, and the units left alone are kept.

    With `Φ_i (k_i, d)` the kept components of unit `i`, `m_i` its mean and `λ_i (k_i,)` its weights,

        o' = Σ_i ((c_i − m_i) Φ_iᵀ ⊙ λ_i) Φ_i  +  tails  +  other units

    The mean of a unit is subtracted and not added back, as in the paper; `mean="keep"` adds `Σ_i m_i`, so
    that λ = 1 on all components is the encoder itself.

    Args:
        bases: units, means, components and eigenvalues; in the paper of all heads and MLPs.
        rank: how many components of each unit are kept: None, all; an int, that many; a float in (0, 1), up
            to and with the first at which the running explained variance ratio exceeds it; or one int a unit.
        others: units without a basis: "keep" them, put them at their "mean" (`bases.all_means`), or "zero".
        tail: the components beyond the rank: "drop", or "keep" at weight 1 (with what is outside the basis).
        mean: the means of the units with a basis: "drop" them, as in the paper, or "keep" them.
        init: of λ: "randn", N(1, 1) as in the paper; "ones"; "eigenvalues", each over the sum of its unit's
            (all components counted); or a tensor `(K,)`.
        seed: of "randn".
        write_back: "equation" as above; or "transposed", as in the code that was published with the paper:
            where the unit with the most components has as many as the output is wide, `d`, component `k` of a
            unit is written along the `k`-th column of its components, padded with zero rows to `(d, d)`,
            in place of its row. Elsewhere both are the same.

    Attributes:
        lambdas: `(K,)`, unit after unit in the order of `bases.units`; the only parameter.

    Raises:
        ResidualError: a rank below 1 or above a unit's number of components, an unknown choice, an `init` of
            another shape, or `others="mean"` without means.

    Example:
        >>> bases = SpectralBases([1], torch.zeros(1, 2), [torch.eye(2)], [torch.tensor([2.0, 1.0])])
        >>> adapter = ResiDual(bases, init=torch.tensor([3.0, 0.5]))
        >>> adapter(torch.tensor([[[1.0, 1.0], [10.0, 20.0]]])).tolist()  # unit 0 kept, unit 1 re-weighted
        [[31.0, 11.0]]
    """

    method: ClassVar[str] = "residual"
    label: ClassVar[str] = "ResiDual"
    about: ClassVar[str] = (
        "ResiDual: principal components of the encoder's units, each re-weighted by one number"
    )
    trained: ClassVar[str] = "weighting {:,} components of its heads and MLPs"
    look: ClassVar[tuple[str, str, str]] = ("#0072B2", "P", "-")
    takes: ClassVar[tuple[str, ...]] = ("rank", "others", "tail", "mean", "init", "write_back")
    learning_rate: ClassVar[float] = 0.8
    decay: ClassVar[float] = 0.1
    of_units: ClassVar[bool] = True
    of_components: ClassVar[bool] = True
    heads_only: ClassVar[bool] = False

    def __init__(
        self,
        bases: SpectralBases,
        rank: Rank = None,
        others: str = "keep",
        tail: str = "drop",
        init: str | Tensor = "randn",
        seed: int = 0,
        mean: str = "drop",
        write_back: str = "equation",
    ):
        check_choice("others", others, OTHERS)
        check_choice("write_back", write_back, WRITE_BACKS)
        if others == "mean" and bases.all_means is None:
            raise ResidualError(
                'others="mean" needs the means of the units without a basis: these bases hold no all_means '
                "(fit_bases gives them)."
            )
        if bases.all_means is not None:
            check_finite(bases.all_means, "The adapter's means")
        names = [f"Unit {unit}" for unit in bases.units]
        super().__init__(
            bases.components, bases.eigenvalues, bases.means, names, rank, tail, mean, init, seed
        )
        self.bases, self.others, self.origin = bases, others, bases.origin
        self.write_back = write_back
        self.register_buffer("_rows", None, persistent=False)
        if self.transposed:
            self._rows, along = self.directions, self._along()
            self.directions = torch.cat([rows[:k] for rows, k in zip(along, self.ranks, strict=True)])

    @property
    def transposed(self) -> bool:
        """Whether components are written along anything but themselves."""
        return self.write_back == "transposed" and max(self.bases.ranks) == self.bases.dim

    @property
    def rows(self) -> Float[Tensor, "K d"]:
        """The kept components themselves, whatever they are written along."""
        return self.directions if self._rows is None else self._rows

    @classmethod
    def make(cls, reference: Reference, settings: AdapterSettings, seed: int) -> ResiDual:
        """Of heads and MLPs, or of heads alone."""
        bases = reference.of_heads() if cls.heads_only else reference.bases
        return cls(bases, seed=seed, **settings.chosen(*cls.takes))

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
        how = (self.bases, list(ranks), self.others, self.tail, "ones")
        return type(self)(*how, mean=self.mean, write_back=self.write_back)

    def unit_weights(self) -> list[UnitWeights]:
        """Unit after unit, in the order of the bases."""
        weights = self.expand(self.lambdas).detach().double().cpu().split(self.ranks)
        each = (self.units, weights, self.bases.eigenvalues, self._along())
        return [UnitWeights(*parts) for parts in zip(*each, strict=True)]

    def lambdas_of(self, unit: UnitLike) -> Float[Tensor, " k"]:
        """The weights of one unit, such as "7.2" (see `Units.checked`).

        Raises:
            ResidualError: it has no basis; or see `SpectralBases.select`.
        """
        (place,) = self.bases.places([unit])
        return self.expand(self.lambdas).split(self.ranks)[place]

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
        """The re-weighted output, from the contributions of all units in their order.

        Raises:
            ResidualError: see `check_units`.
        """
        n_units, dim = contributions.shape[1:]
        self.check_units(n_units, dim)
        rows, directions = self.rows.to(contributions), self.directions.to(contributions)
        centred = contributions[:, list(self.units)] - self.means.to(contributions)  # (n, r, d)
        scores = torch.cat(
            [centred[:, i] @ own.T for i, own in enumerate(rows.split(self.ranks))], dim=1
        )  # (n, K)
        whole, constant = self._whole_units(n_units)
        rest = contributions[:, whole].sum(dim=1) + constant.to(contributions)
        for place, tail in self._tails().items():
            rest = rest + tail(centred[:, place])
        if self._starts_whole:
            rest = rest - scores @ directions
        return self.outputs(self.lambdas.to(contributions)[None], scores[None], directions, rest[None])[0]

    def scorer(self, linearization: Linearization) -> Scorer:
        """Scores and rest straight from coordinates; no `(n, u, d)` block is made.

        A unit's scores are `(f M + o − m) Φᵀ = f (M Φᵀ) + (o − m) Φᵀ`.
        """
        n_units = len(linearization.units)
        self.check_units(n_units, linearization.output_dim)
        like = linearization.offset(self.units[0])
        directions, means = self.directions.detach().to(like), self.bases.means.to(like)
        rows, tails = self.rows.detach().to(like).split(self.ranks), self._tails()
        maps, beyond = [], []
        for place, unit in enumerate(self.units):
            matrix, offset = linearization.matrix(unit), linearization.offset(unit) - means[place]
            maps.append((unit, matrix @ rows[place].T, offset @ rows[place].T))
            if place in tails:
                beyond.append((unit, tails[place](matrix), tails[place](offset)))
        whole, constant = self._whole_units(n_units)

        @cache
        def moved(dtype: torch.dtype, device: torch.device) -> tuple[Maps, Maps, Tensor, Tensor]:
            own, tails = (
                [(unit, m.to(device, dtype), o.to(device, dtype)) for unit, m, o in each]
                for each in (maps, beyond)
            )
            return own, tails, constant.to(device, dtype), directions.to(device, dtype)

        def scores(batch: Coordinates) -> tuple[Tensor, Tensor]:
            own, tails, constant, directions = moved(batch.mean.dtype, batch.mean.device)
            scores, written = (
                [torch.addmm(o, linearization.features(batch, unit), m) for unit, m, o in each]
                for each in (own, tails)
            )
            scores, rest = torch.cat(scores, dim=1), constant.expand(len(batch), -1)
            for unit in whole:
                rest = rest + linearization.contributions(batch, [unit])[:, 0]
            for tail in written:
                rest = rest + tail
            if self._starts_whole:
                rest = rest - scores @ directions
            return scores, rest.contiguous()

        return scores

    def adapted(self, linearization: Linearization) -> Linearization:
        """Every unit's `(M B, (o − m) B)`, with `B` what becomes of a centred contribution: `Φᵀ diag(λ) Ψ`,
        with `Ψ` the directions, or `1 + Φᵀ diag(λ − 1) Φ` with the tail kept; and `m`, where it is.
        """
        n_units = len(linearization.units)
        self.check_units(n_units, linearization.output_dim)
        weights = self.expand(self.lambdas.detach()).to("cpu", torch.float64).split(self.ranks)
        places, tails = {unit: place for place, unit in enumerate(self.units)}, self._tails()
        rows, directions = (
            of.to("cpu", torch.float64).split(self.ranks) for of in (self.rows, self.directions)
        )

        def reweighed(x: Tensor, place: int) -> Tensor:
            scores, along = x @ rows[place].T, directions[place]
            if self._starts_whole:
                return x + scores * (weights[place] - 1) @ along
            kept = scores * weights[place] @ along
            return kept + tails[place](x) if place in tails else kept

        matrices, offsets = {}, torch.zeros(n_units, self.dim, dtype=torch.float64)
        if self.others == "mean" and self.bases.all_means is not None:
            offsets += self.bases.all_means
        for unit in range(n_units) if self.others == "keep" else self.units:
            matrix, offset = linearization.matrix(unit), linearization.offset(unit)
            if (place := places.get(unit)) is not None:
                mean = self.bases.means[place]
                matrix, offset = (reweighed(x, place) for x in (matrix, offset - mean))
                offset = offset + mean if self.mean == "keep" else offset
            offsets[unit] = offset
            if unit not in linearization.constants:
                matrices[unit] = matrix
        check_finite(offsets, "The weights or means of the adapter")
        return linearization.rewritten(matrices, offsets)

    def to_saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """λ and choices, and all there is of the bases."""
        tensors, choices = super().to_saved()
        bases = self.bases.to_tensors()
        counts, components = bases.pop("ranks"), bases["components"].float()
        tensors |= {**bases, "counts": counts, "components": components}
        return tensors, choices | {"others": self.others}

    @classmethod
    def from_saved(
        cls, tensors: dict[str, Tensor], choices: dict[str, Any], origin: Origin | None
    ) -> ResiDual:
        """On the same bases."""
        bases = SpectralBases.from_tensors(tensors, tensors["counts"], origin)
        own = {name: choices[name] for name in ("others", "tail", "mean")}
        own["write_back"] = choices.get("write_back", "equation")
        return cls(bases, rank=choices["ranks"], init=tensors["lambdas"], **own)

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
        ways = f"tail={self.tail!r}, mean={self.mean!r}, write_back={self.write_back!r}"
        return f"{counts}, others={self.others!r}, {ways}"

    @property
    def _starts_whole(self) -> bool:
        """Whether the units go whole into the rest, so that weights change what is there already."""
        return self.tail == "keep" and not self.transposed

    def _along(self) -> Sequence[Float[Tensor, "_ d"]]:
        """What all components of each unit are written along, in float64: themselves, or columns."""
        components = self.bases.components
        if not self.transposed:
            return components
        columns = [torch.zeros_like(rows) for rows in components]
        for along, rows in zip(columns, components, strict=True):
            along[:, : len(rows)] = rows[:, : len(rows)].T
        return columns

    def _tails(self) -> dict[int, Callable[[Tensor], Tensor]]:
        """Of units that don't go whole into the rest, what of a centred contribution does: by the components
        beyond the rank.
        """
        if self.tail == "drop" or self._starts_whole:
            return {}

        def written(rows: Tensor, along: Tensor) -> Callable[[Tensor], Tensor]:
            return lambda x: x @ rows.to(x).T @ along.to(x)

        each = enumerate(zip(self.bases.components, self._along(), self.ranks, strict=True))
        return {place: written(rows[k:], along[k:]) for place, (rows, along, k) in each if k < len(rows)}

    def _whole_units(self, n_units: int) -> tuple[list[int], Tensor]:
        """The units whose contributions go whole into the rest, and the constant that does."""
        units = self.other_units(n_units) if self.others == "keep" else []
        if not self._starts_whole:
            return units, self.constant(n_units)
        return [*self.units, *units], self.constant(n_units) - self.bases.means.sum(dim=0)


class ResiDualStar(ResiDual):
    """ResiDual\\*: of heads, components up to 90 % of each one's variance, all else dropped.

    Args:
        bases: of heads.
        rank, others, tail, init, seed, mean, write_back: as for `ResiDual`.

    Raises:
        ResidualError: as `ResiDual`.
    """

    method: ClassVar[str] = "residual_star"
    label: ClassVar[str] = "ResiDual*"
    about: ClassVar[str] = "ResiDual\\*: principal components of heads, each re-weighted by one number"
    trained: ClassVar[str] = "weighting {:,} components of its heads alone"
    look: ClassVar[tuple[str, str, str]] = ("#D55E00", "D", "-")
    heads_only: ClassVar[bool] = True

    def __init__(
        self,
        bases: SpectralBases,
        rank: Rank = 0.9,
        others: str = "zero",
        tail: str = "drop",
        init: str | Tensor = "randn",
        seed: int = 0,
        mean: str = "drop",
        write_back: str = "equation",
    ):
        super().__init__(bases, rank, others, tail, init, seed, mean, write_back)
