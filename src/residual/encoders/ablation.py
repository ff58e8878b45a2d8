"""Which units of an encoder are left out, and where they stand: all that this room knows of ablation.

How units are taken out needs tracing, a room below: the class there that makes ablated encoders of others
says so where it is declared (`ablates=True`), and `keep` and `without` call it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError
from residual.hashing import sha256


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
    def at_means(self) -> bool:
        """Whether some stand elsewhere than at zero."""
        return bool(self.constants.any())

    def __str__(self) -> str:
        """As fingerprints hold it."""
        at = sha256(self.constants.to(torch.float64).numpy().tobytes()) if self.at_means else "zero"
        return f"without {self.units} at {at}"


class Ablatable:
    """An encoder's side of ablation."""

    ablation: Ablation | None = None  # of the image tower's units
    _made_by: ClassVar[Any] = None  # the subclass that is an encoder without some units

    def __init_subclass__(cls, ablates: bool = False, **how: Any):
        super().__init_subclass__(**how)
        if ablates:
            Ablatable._made_by = cls

    def keep(self, units: Any, mode: str = "zero", means: Float[Tensor, "u d"] | None = None) -> Any:
        """This encoder with these units alone in its output: an `AblatedEncoder`, see there.

        Example:
            >>> import residual
            >>> residual.load_encoder("picto", device="cpu").keep(["emb", "7.2"]).name
            'picto with 2 of 57 units'
        """
        return self._ablating(self, units, mode, means)

    def without(self, units: Any, mode: str = "zero", means: Float[Tensor, "u d"] | None = None) -> Any:
        """This encoder without these units in its output: an `AblatedEncoder`, see there."""
        return self._ablating(self, self._ablating.all_but(self, units), mode, means)

    @property
    def _ablating(self) -> Any:
        if self._made_by is None:
            raise ResidualError(
                "Which units an encoder has isn't known before residual.tracing is loaded.",
                "Say `import residual.tracing` first, or load encoders by residual.load_encoder.",
            )
        return self._made_by


def checked_encoder(encoder: Any) -> Any:
    """Refuse what is no `Encoder`, with how it becomes one.

    Raises:
        ResidualError: it isn't.
    """
    if isinstance(encoder, Ablatable):
        return encoder
    kind = type(encoder).__name__
    if isinstance(getattr(encoder, "encoder", None), Ablatable):  # an AdaptedEncoder
        way = "Take the encoder inside, adapted.encoder: the adapter itself re-weights its units."
    else:
        way = "wrap_encoder(model) makes one of a model, load_encoder(name) one of a name."
    raise ResidualError(f"An Encoder is needed, got a{'n' * (kind[0] in 'AEIOU')} {kind}.", way)
