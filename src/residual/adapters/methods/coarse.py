"""Coarse: one weight a unit, the baseline that ResiDual refines."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.adapters.adapter import initial_weights
from residual.adapters.adapter_settings import AdapterSettings, Reference
from residual.adapters.methods.residual import ResiDual
from residual.errors import ResidualError
from residual.spectral.bases import Origin, SpectralBases

_NOTHING = 1e-10  # of a mean's length


class Coarse(ResiDual):
    """Re-weighted units: `o' = Σ_i λ_i (c_i − m_i)`, by default with all other units dropped.

    That is ResiDual with all components and one λ a unit (Basile et al. 2025, arXiv 2411.00246), so it is
    fitted on the same scores. With others, tail and means kept, λ = 1 is the encoder itself.

    Args:
        bases: of the units that are weighted, all components. What of a contribution is outside their span
            is lost: `SpectralBases.spanning` widens those of few samples.
        init: of λ: "randn", N(1, 1); "ones"; or a tensor `(r,)`.
        seed: of "randn".
        l1: `l1 Σ|λ_i|` is added to the loss, so that units that don't help end near zero.
        centred: False for `Σ_i λ_i c_i`, without subtracting means.
        others, tail, mean: as for `ResiDual`; the tail is what is outside the bases.

    Attributes:
        lambdas: `(r,)`, one a unit of `bases.units`.

    Raises:
        ResidualError: an unknown `init`, or one of another shape; or a negative `l1`.
    """

    method: ClassVar[str] = "coarse"
    label: ClassVar[str] = "Coarse"
    about: ClassVar[str] = "Coarse: the encoder's heads, each re-weighted by one number"
    trained: ClassVar[str] = "weighting its {:,} heads"
    look: ClassVar[tuple[str, str, str]] = ("#E69F00", "v", "-")
    inits: ClassVar[tuple[str, ...]] = ("randn", "ones")
    of_components: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("init", "l1", "others", "tail", "mean")

    def __init__(
        self,
        bases: SpectralBases,
        init: str | Tensor = "randn",
        seed: int = 0,
        l1: float | int = 0.0,
        centred: bool = True,
        others: str = "zero",
        tail: str = "drop",
        mean: str = "drop",
    ):
        bases = bases if centred else _uncentred(bases)
        super().__init__(bases, rank=None, others=others, tail=tail, init="ones", mean=mean)
        if not isinstance(init, Tensor) and init not in self.inits:
            raise ResidualError(f"init of Coarse is 'randn', 'ones' or a tensor, got {init!r}.")
        if not 0 <= l1 < math.inf:
            raise ResidualError(f"l1 must be 0 or more, got {l1}.")
        first = initial_weights(bases.eigenvalues, [1] * len(bases), init, seed)
        self.lambdas, self.l1, self.centred = nn.Parameter(first.float()), float(l1), centred
        self._indicators: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    @classmethod
    def make(cls, reference: Reference, settings: AdapterSettings, seed: int) -> Coarse:
        """A weight for each head."""
        return cls(reference.of_heads(whole=True), seed=seed, **settings.chosen(*cls.takes))

    def choices(self) -> tuple[object, ...]:
        """Whether means are subtracted, and the number of components too: units are weighted whole."""
        return (*super().choices(), self.centred, self.ranks)

    def expand(self, lambdas: Float[Tensor, "*f r"]) -> Float[Tensor, "*f K"]:
        """A unit's weight for each of its components.

        By a product with ones and zeros: its gradient is summed in the same order every time, which that of a
        repetition isn't on a GPU.
        """
        key = lambdas.dtype, lambdas.device
        if key not in self._indicators:
            unit = torch.arange(len(self.ranks)).repeat_interleave(torch.tensor(self.ranks))
            self._indicators[key] = torch.nn.functional.one_hot(unit, len(self.ranks)).T.to(lambdas)
        return lambdas @ self._indicators[key]

    def penalty(self, weights: Float[Tensor, "f r"]) -> Float[Tensor, " f"] | float:
        """`l1 Σ|λ_i|`."""
        return self.l1 * weights.abs().sum(1) if self.l1 else 0.0

    def to_saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Those of ResiDual, and the penalty."""
        tensors, choices = super().to_saved()
        return tensors, choices | {"l1": self.l1}

    @classmethod
    def from_saved(cls, tensors: dict[str, Tensor], choices: dict[str, Any], origin: Origin | None) -> Coarse:
        """On the same bases."""
        bases = SpectralBases.from_tensors(tensors, tensors["counts"], origin)
        own = {name: choices[name] for name in ("l1", "others", "tail", "mean")}
        return cls(bases, tensors["lambdas"], **own)


def _uncentred(bases: SpectralBases) -> SpectralBases:
    """Bases of the same contributions about zero: what of a mean is outside the components is one more."""
    components, eigenvalues = [], []
    for mean, rows, values in zip(bases.means, bases.components, bases.eigenvalues, strict=True):
        outside = mean - mean @ rows.T @ rows
        outside = outside - outside @ rows.T @ rows  # what rounding left of the components
        more = outside.norm() > _NOTHING * mean.norm()
        components.append(torch.cat([rows, (outside / outside.norm())[None]]) if more else rows)
        eigenvalues.append(torch.cat([values, values.new_zeros(int(more))]))
    none = torch.zeros_like(bases.means)
    return SpectralBases(
        bases.units, none, components, eigenvalues, bases.all_means, bases.origin, bases.structure
    )
