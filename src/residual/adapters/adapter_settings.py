"""What an adapter is made of: principal components to choose from, and what is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from residual.errors import ResidualError
from residual.progress import Progress, named
from residual.settings import PAPER, check_settings, setting
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases, fit_output
from residual.spectral.pca import PCA, resized
from residual.store.base import Store
from residual.tracing.linearization import Linearization

TAILS = ("drop", "keep")
MEANS = ("drop", "keep")
OTHERS = ("keep", "mean", "zero")
WRITE_BACKS = ("equation", "transposed")
INITS = ("randn", "ones", "eigenvalues")
BASES_KINDS = ("mlp", "head")

Rank = int | float | Sequence[int] | np.ndarray | None


def _is_rank(rank: str | int | float | None) -> bool:
    if isinstance(rank, str):
        return rank == "all"
    return rank is None or (0 < rank < 1 if isinstance(rank, float) else rank >= 1)


@dataclass(frozen=True)
class AdapterSettings:
    """How adapters are made; None is as the method has it in Basile et al. 2025, arXiv 2411.00246.

    Args:
        rank: of ResiDual, ResiDual* and the spectral map: "all" components, an int, or a float in (0, 1) of
            explained variance.
        others: of ResiDual, ResiDual* and Coarse, units without a basis: "keep", "mean" or "zero".
        tail: components beyond the rank, and what is outside a basis: "drop" or "keep".
        mean: of the re-weighted units: "drop" or "keep".
        init: of λ: "randn", "ones" or "eigenvalues" (Coarse: "randn" or "ones").
        l1: of Coarse, its penalty on Σ|λ|.
        write_back: of ResiDual, ResiDual* and the spectral map: "equation", or "transposed" as in the code
            that was published with the paper.

    Raises:
        ResidualError: an unknown choice, or a number that is out of range.

    Example:
        >>> AdapterSettings(rank="all", init="ones").chosen("rank", "others", "init")
        {'rank': None, 'init': 'ones'}
    """

    rank: str | int | float | None = setting(
        None,
        holds=_is_rank,
        takes="'all', a whole number, at least 1, a number above 0 and below 1, or None",
        source=PAPER,
    )
    others: str | None = setting(None, choices=OTHERS, source=PAPER)
    tail: str = setting("drop", choices=TAILS, source=PAPER)
    mean: str = setting("drop", choices=MEANS, source=PAPER)
    init: str = setting("randn", choices=INITS, source=PAPER)
    l1: float | int = setting(0.0, least=0, source=PAPER)
    write_back: str = setting("equation", choices=WRITE_BACKS, source=PAPER)

    def __post_init__(self):
        check_settings(self)

    def chosen(self, *names: str) -> dict[str, Any]:
        """Those of these settings that aren't left to the method, as its class takes them."""
        values = {name: getattr(self, name) for name in names}
        return {name: None if v == "all" else v for name, v in values.items() if v is not None}


@dataclass(frozen=True)
class Reference:
    """Principal components that adapters are made of: ImageNet's in the paper.

    Args:
        bases: of all heads and MLPs.
        output: of the output; None where the bases come from a file.
        heads: positions of the heads.
        skipped: ids of pictures that could not be read.
        linearization: the map of the encoder's units; None if it isn't known.
    """

    bases: SpectralBases
    output: PCA | None
    heads: tuple[int, ...]
    skipped: tuple[str, ...] = ()
    linearization: Linearization | None = None

    @classmethod
    def of(
        cls, store: Store, device: str | torch.device | None = None, progress: Progress | None = None
    ) -> Reference:
        """Those of a store's pictures; `progress` is told of the samples that are done."""
        heads = tuple(store.linearization.units.positions("head"))
        bases = fit_bases(store, BASES_KINDS, device=device, progress=progress)
        output = fit_output(store, progress=named(progress, "fit bases of the output"))
        return cls(bases, output, heads, tuple(store.skipped), store.linearization)

    def of_heads(self, whole: bool = False) -> SpectralBases:
        """The bases of the heads alone; `whole`: such that they hold all that the heads can write."""
        bases = self.bases.select(self.heads)
        return bases.spanning(self.linearization) if whole and self.linearization is not None else bases

    def with_zeros(self) -> Reference:
        """With as many components as the published code keeps, those without variance too: of `n` samples
        `min(n, d)` of an MLP and of the output, `min(n, h)` of a head.
        """
        bases, output = self.bases, self.output
        most = min(bases.dim, bases.dim if bases.origin is None else bases.origin.samples)
        counts = dict.fromkeys(bases.units, most)
        width = None if self.linearization is None else self.linearization.head_width
        for head, known in zip(bases.units, bases.ranks, strict=True):
            if head in self.heads:
                counts[head] = min(most, width or known)
        if output is not None:
            components, eigenvalues = resized(output.components, output.eigenvalues, most)
            output = replace(output, components=components, eigenvalues=eigenvalues)
        return replace(self, bases=bases.resized([*counts.values()]), output=output)


def check_choice(what: str, choice: str, known: Sequence[str]) -> None:
    """Refuse a choice that isn't known.

    Raises:
        ResidualError: it isn't.
    """
    if choice not in known:
        raise ResidualError(f"{what} is {' or '.join(map(repr, known))}, got {choice!r}.")
