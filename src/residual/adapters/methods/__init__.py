"""The methods that are compared, one file each: what is trained, what it is called, the paper's defaults.

CONTRIBUTING shows how to add one.
"""

from __future__ import annotations

from typing import ClassVar

from residual.adapters.adapter import Adapter, Method
from residual.adapters.adapter_settings import BASES_KINDS, AdapterSettings, Reference
from residual.adapters.methods.coarse import Coarse
from residual.adapters.methods.edited import Edited, UnitEdit
from residual.adapters.methods.linear import LinearMap
from residual.adapters.methods.released import (
    ReleasedCoarse,
    ReleasedLinearMap,
    ReleasedResiDual,
    ReleasedSpectralMap,
)
from residual.adapters.methods.residual import ResiDual, ResiDualStar
from residual.adapters.methods.spectral import SpectralMap
from residual.errors import unknown_name

__all__ = [
    "ADAPTERS",
    "BASES_KINDS",
    "FINE_TUNING",
    "METHODS",
    "AdapterSettings",
    "Coarse",
    "Edited",
    "FineTuning",
    "LinearMap",
    "Reference",
    "ReleasedCoarse",
    "ReleasedLinearMap",
    "ReleasedResiDual",
    "ReleasedSpectralMap",
    "ResiDual",
    "ResiDualStar",
    "SpectralMap",
    "UnitEdit",
    "kept_method",
    "make_adapter",
]


class FineTuning(Method):
    """All weights of the image tower (`fine_tune`): no adapter, but compared with them."""

    method: ClassVar[str] = "fine_tuning"
    label: ClassVar[str] = "fine-tuning"
    about: ClassVar[str] = "full fine-tuning: these are the weights of the image tower"
    trained: ClassVar[str] = "training all its {:,} weights"
    look: ClassVar[tuple[str, str, str]] = ("#009E73", "X", "-")


# From the fewest weights that look inside the encoder to all of them.
METHODS: dict[str, type[Method]] = {
    each.method: each
    for each in (
        LinearMap, ReleasedLinearMap, SpectralMap, ReleasedSpectralMap, Coarse, ReleasedCoarse, ResiDualStar,
        ResiDual, ReleasedResiDual, FineTuning,
    )
}  # fmt: skip
ADAPTERS: dict[str, type[Adapter]] = {
    name: each for name, each in METHODS.items() if issubclass(each, Adapter)
}
FINE_TUNING = FineTuning.method
Edited.adapters = ADAPTERS


def kept_method(name: str) -> type[Method] | None:
    """What a folder may be of: a method, or what is set by hand and never fitted or compared."""
    return Edited if name == Edited.method else METHODS.get(name)


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
    if method not in ADAPTERS:
        raise unknown_name("method", method, ADAPTERS)
    return ADAPTERS[method].make(reference, settings or AdapterSettings(), seed)
