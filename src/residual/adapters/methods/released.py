"""The methods as the code has them that was published with the paper, where it differs from the equations.

They are there to hold its numbers against. ResiDual* is the same in both. What each difference changes is on
the documentation's page "Beside the published code".
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from residual.adapters.adapter_settings import AdapterSettings, Rank, Reference
from residual.adapters.methods.coarse import Coarse
from residual.adapters.methods.linear import LinearMap
from residual.adapters.methods.residual import ResiDual
from residual.adapters.methods.spectral import SpectralMap
from residual.spectral.bases import Origin, SpectralBases
from residual.spectral.pca import PCA

_AS = ", as in the code published with the paper"


class ReleasedLinearMap(LinearMap):
    """`o' = o M + b`, from a random start."""

    method: ClassVar[str] = "linear_released"
    label: ClassVar[str] = "linear map (released)"
    about: ClassVar[str] = LinearMap.about + _AS
    look: ClassVar[tuple[str, str, str]] = ("#56B4E9", "d", ":")
    released: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        init: str | Tensor = "random",
        origin: Origin | None = None,
        bias: bool = True,
        seed: int = 0,
    ):
        super().__init__(dim, init, origin, bias, seed)

    @classmethod
    def make(cls, reference: Reference, settings: AdapterSettings, seed: int) -> ReleasedLinearMap:
        """From the seed's random start; there is nothing to choose."""
        return cls(reference.bases.dim, origin=reference.bases.origin, seed=seed)


class ReleasedSpectralMap(SpectralMap):
    """`o' = (o − m) ⊙ λ`, along the output's own coordinates, where there are as many components."""

    method: ClassVar[str] = "spectral_released"
    label: ClassVar[str] = "spectral map (released)"
    about: ClassVar[str] = "a spectral map: the output's coordinates, each re-weighted by one number" + _AS
    trained: ClassVar[str] = "weighting {:,} coordinates of its output"
    look: ClassVar[tuple[str, str, str]] = ("#CC79A7", "<", ":")
    takes: ClassVar[tuple[str, ...]] = ("init",)
    released: ClassVar[bool] = True

    def __init__(
        self,
        pca: PCA,
        rank: Rank = None,
        tail: str = "drop",
        init: str | Tensor = "randn",
        seed: int = 0,
        mean: str = "drop",
        origin: Origin | None = None,
        write_back: str = "transposed",
    ):
        super().__init__(pca, rank, tail, init, seed, mean, origin, write_back)

    @classmethod
    def make(cls, reference: Reference, settings: AdapterSettings, seed: int) -> SpectralMap:
        """Of all components, those without variance too; only the first λ is chosen."""
        own = AdapterSettings(init=settings.init, write_back="transposed")
        return super().make(reference.with_zeros(), own, seed)


class ReleasedCoarse(Coarse):
    """`o' = Σ_i λ_i c_i`, without subtracting means."""

    method: ClassVar[str] = "coarse_released"
    label: ClassVar[str] = "Coarse (released)"
    about: ClassVar[str] = Coarse.about + _AS
    look: ClassVar[tuple[str, str, str]] = ("#E69F00", ">", ":")
    takes: ClassVar[tuple[str, ...]] = ("init", "l1")
    released: ClassVar[bool] = True

    def __init__(
        self,
        bases: SpectralBases,
        init: str | Tensor = "randn",
        seed: int = 0,
        l1: float | int = 0.0,
        centred: bool = False,
        others: str = "zero",
        tail: str = "drop",
        mean: str = "drop",
    ):
        super().__init__(bases, init, seed, l1, centred, others, tail, mean)

    @classmethod
    def make(cls, reference: Reference, settings: AdapterSettings, seed: int) -> ReleasedCoarse:
        """A weight for each head; only the first λ and the penalty are chosen."""
        return cls(reference.of_heads(whole=True), seed=seed, **settings.chosen(*cls.takes))


class ReleasedResiDual(ResiDual):
    """ResiDual with the transposed write-back, weights of components without variance, and tails kept."""

    method: ClassVar[str] = "residual_released"
    label: ClassVar[str] = "ResiDual (released)"
    about: ClassVar[str] = ResiDual.about + _AS
    look: ClassVar[tuple[str, str, str]] = ("#0072B2", "*", ":")
    takes: ClassVar[tuple[str, ...]] = ("rank", "init")
    released: ClassVar[bool] = True

    def __init__(
        self,
        bases: SpectralBases,
        rank: Rank = None,
        others: str = "keep",
        tail: str = "keep",
        init: str | Tensor = "randn",
        seed: int = 0,
        mean: str = "drop",
        write_back: str = "transposed",
    ):
        super().__init__(bases, rank, others, tail, init, seed, mean, write_back)

    @classmethod
    def make(cls, reference: Reference, settings: AdapterSettings, seed: int) -> ReleasedResiDual:
        """Of heads and MLPs, with the components kept there; only rank and first λ are chosen."""
        return cls(reference.with_zeros().bases, seed=seed, **settings.chosen(*cls.takes))
