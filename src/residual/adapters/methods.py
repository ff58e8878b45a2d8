"""The methods that are compared, by name: what each is made of, and which of its choices can be changed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from residual.adapters.adapter import INITS, MEANS, TAILS, Adapter, Rank, check_choice
from residual.adapters.coarse import Coarse
from residual.adapters.output_maps import LinearMap, SpectralMap
from residual.adapters.residual import OTHERS, STAR_RANK, ResiDual
from residual.errors import ResidualError, unknown_name
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases, fit_output
from residual.spectral.pca import PCA
from residual.store.base import Store

# From the fewest weights that look inside the encoder to all of them; fine-tuning has its own way to train.
ADAPTERS = ("linear", "spectral", "coarse", "residual_star", "residual")
FINE_TUNING = "fine_tuning"
METHODS = (*ADAPTERS, FINE_TUNING)
DRAWN = ("coarse", "residual_star", "residual")  # those that weight units

BASES_KINDS = ("mlp", "head")


@dataclass(frozen=True)
class AdapterSettings:
    """How adapters are made; None is as the method has it in Basile et al. 2025, arXiv 2411.00246.

    Args:
        rank: of ResiDual, ResiDual* and the spectral map: "all" components, an int, or a float in (0, 1) of
            explained variance.
        others: of ResiDual and ResiDual*, units without a basis: "keep", "mean" or "zero".
        tail: components beyond the rank: "drop" or "keep".
        mean: of the re-weighted units: "drop" or "keep".
        init: of λ: "randn", "ones" or "eigenvalues" (Coarse: "randn" or "ones").
        l1: of Coarse, its penalty on Σ|λ|.

    Raises:
        ResidualError: an unknown choice, or a number that is out of range.
    """

    rank: str | int | float | None = None
    others: str | None = None
    tail: str = "drop"
    mean: str = "drop"
    init: str = "randn"
    l1: float | int = 0.0

    def __post_init__(self):
        rank = self.rank
        if isinstance(rank, str | bool):
            known = rank == "all"
        else:
            known = rank is None or (0 < rank < 1 if isinstance(rank, float) else rank >= 1)
        if not known:
            raise ResidualError(f'rank is "all", an int from 1 on or a float in (0, 1), got {rank!r}.')
        if self.others is not None:
            check_choice("others", self.others, OTHERS)
        for what, known_as in (("tail", TAILS), ("mean", MEANS), ("init", INITS)):
            check_choice(what, getattr(self, what), known_as)
        if not 0 <= self.l1 < math.inf:
            raise ResidualError(f"l1 must be 0 or more, got {self.l1}.")

    def rank_of(self, own: Rank) -> Rank:
        """The rank, where the method's is `own`."""
        if isinstance(self.rank, str):
            return None
        return own if self.rank is None else self.rank


@dataclass(frozen=True)
class Reference:
    """Principal components that adapters are made of: ImageNet's in the paper.

    Args:
        bases: of all heads and MLPs.
        output: of the output; None where the bases come from a file.
        heads: positions of the heads.
        skipped: ids of pictures that could not be read.
    """

    bases: SpectralBases
    output: PCA | None
    heads: tuple[int, ...]
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(cls, store: Store, device: str | None = None) -> Reference:
        """Those of a store's pictures."""
        heads = tuple(store.linearization.units.positions("head"))
        bases = fit_bases(store, BASES_KINDS, device=device)
        return cls(bases, fit_output(store), heads, tuple(store.skipped))


def make_adapter(
    method: str, reference: Reference, settings: AdapterSettings | None = None, seed: int = 0
) -> Adapter:
    """An adapter with its first weights.

    Args:
        method: one of `ADAPTERS`.
        reference: its components.
        settings: what is different from the paper.
        seed: of random first weights.

    Raises:
        ResidualError: an unknown method, choices that it can't have, or components that aren't there.
    """
    settings, bases = settings or AdapterSettings(), reference.bases
    if method == "linear":
        return LinearMap(bases.dim, origin=bases.origin)
    how = {"tail": settings.tail, "mean": settings.mean, "init": settings.init, "seed": seed}
    if method == "spectral":
        if reference.output is None:
            raise ResidualError(
                "The spectral map needs components of the output, which a file of bases doesn't hold: take "
                "bases from a dataset."
            )
        return SpectralMap(reference.output, settings.rank_of(None), origin=bases.origin, **how)
    if method == "coarse":
        return Coarse(bases.select(reference.heads), settings.init, seed, settings.l1)
    if method == "residual_star":
        others = settings.others or "zero"
        return ResiDual(bases.select(reference.heads), settings.rank_of(STAR_RANK), others, **how)
    if method == "residual":
        return ResiDual(bases, settings.rank_of(None), settings.others or "keep", **how)
    raise unknown_name("method", method, ADAPTERS)
