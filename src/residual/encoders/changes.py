"""What is an encoder or wraps one, and what changes the contributions of its units.

How contributions are made needs tracing, a room below: an encoder only holds its changes, in turn, and
`Linearization.of` applies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError
from residual.hashing import sha256
from residual.late import late


@runtime_checkable
class Change(Protocol):
    """Of an image tower's contributions, and so of its output. Its `str` is what fingerprints hold of it."""

    @property
    def of_pooled(self) -> bool:
        """Whether it is of those tokens alone that the encoder pools itself."""

    def applied(self, linearization: Any, own: Any) -> Any:
        """A `Linearization` with this change, `own` the encoder's `Units` as it pools itself."""


@dataclass(frozen=True, eq=False)
class Ablation:
    """Units that contribute a constant.

    Args:
        units: their positions, ascending.
        constants: what each contributes, in float64: zeros, or its mean.
    """

    units: tuple[int, ...]
    constants: Float[Tensor, "m d"]

    @property
    def of_pooled(self) -> bool:
        """Where some stand elsewhere than at zero."""
        return bool(self.constants.any())

    def applied(self, linearization: Any, own: Any) -> Any:
        """With another pooling than the encoder's own the output may have another width, and the MLP of an
        attention pool is no unit, so that heads are elsewhere.
        """
        now = linearization.units
        there = [k for k, unit in enumerate(self.units) if now.pool_mlp or own.field(unit) != "pool_mlp"]
        constants = torch.zeros(len(there), linearization.output_dim, dtype=torch.float64)
        if self.of_pooled:
            constants = self.constants[there]
        return linearization.without([now.named(own.name(self.units[k])) for k in there], constants)

    def __str__(self) -> str:
        at = sha256(self.constants.to(torch.float64).numpy().tobytes()) if self.of_pooled else "zero"
        return f"without {self.units} at {at}"


class EncoderLike:
    """What is an encoder, or wraps one: it is taken wherever encoders are."""

    def as_encoder(self) -> Any:
        """The `Encoder` that does what this does."""
        return self

    def keep(self, units: Any, mode: str = "zero", means: Float[Tensor, "u d"] | None = None) -> Any:
        """This encoder with these units alone in its output: an `AblatedEncoder`, see there.

        Example:
            >>> import residual
            >>> residual.load_encoder("picto", device="cpu").keep(["emb", "7.2"]).name
            'picto with 2 of 57 units'
        """
        return late("AblatedEncoder")(self, units, mode, means)

    def without(self, units: Any, mode: str = "zero", means: Float[Tensor, "u d"] | None = None) -> Any:
        """This encoder without these units in its output: an `AblatedEncoder`, see there."""
        ablated = late("AblatedEncoder")
        return ablated(self, ablated.all_but(self, units), mode, means)


def checked_encoder(encoder: Any) -> Any:
    """The `Encoder` that this is or wraps.

    Raises:
        ResidualError: it is neither; says how it becomes one.
    """
    if isinstance(encoder, EncoderLike):
        return encoder.as_encoder()
    kind = type(encoder).__name__
    raise ResidualError(
        f"An Encoder is needed, got a{'n' * (kind[0] in 'AEIOU')} {kind}.",
        "wrap_encoder(model) makes one of a model, load_encoder(name) one of a name.",
    )
