"""Encoders whose units contribute otherwise, and that with only some units in its output: encoders like any
other, wherever these are taken.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.encoders.changes import Ablation, Change, EncoderLike, checked_encoder
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.finite import check_finite
from residual.tracing.linearization import Linearization, linearization_of
from residual.tracing.trace import trace
from residual.tracing.units import Units, UnitsLike

MODES = ("zero", "mean")


class ChangedEncoder(Encoder):
    """Runs as the encoder that it was made of, and gives the sum of what changes make of its contributions.

    Args:
        encoder: that one.
        changes: all of them, with those that the encoder has itself.
        name: how messages and files call it.
    """

    def __init__(self, encoder: Encoder, changes: tuple[Change, ...], name: str):
        about = encoder.module, encoder.family, encoder.preprocess, encoder._tokenize, encoder.centering
        super().__init__(name, *about)
        self.encoder, self.compiling, self.changes = encoder, encoder.compiling, changes

    @property
    def linearization(self) -> Linearization:
        """From coordinates to the contributions as they are now."""
        return linearization_of(self, self.parts, "image", "own")

    def run(self, tower: str, inputs: Tensor) -> Tensor:
        """A tower on inputs that are ready for it; of images, the sum of the contributions."""
        return trace(self, inputs)[1] if tower == "image" else super().run(tower, inputs)

    def around(self, module: nn.Module) -> ChangedEncoder:
        """See `Encoder.around`."""
        return ChangedEncoder(self.encoder.around(module), self.changes, self.name)


class AblatedEncoder(ChangedEncoder):
    """Runs as the encoder that it was made of, and gives the sum of the units that are kept.

    The same as `ablate(decompose(…).contributions, keep)`, for as little as the full output costs. It takes
    the encoder's place everywhere: units that are left out contribute zero, or their mean, to `decompose`, to
    stores and to adapters. It is another encoder, with a fingerprint of its own. The text tower is whole.

    Args:
        encoder: the whole, or what wraps one; of one that is ablated, units that it leaves out stay where
            they are.
        keep: the units that stay, see `Units.checked`.
        mode: "zero" leaves the others out, "mean" puts them at `means`.
        means: `(u, d)`, of all units (`mean_contributions`, or the `all_means` of bases).

    Attributes:
        kept: positions of the units that stay.

    Raises:
        ResidualError: a unit that isn't there, an unknown mode, or "mean" without means that are finite.

    Example:
        >>> import residual, torch
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> residual.heads.AblatedEncoder(encoder, keep=["2.5", "5.2"])  # as encoder.keep(["2.5", "5.2"])
        AblatedEncoder(Encoder('picto', transformers CLIP, 8 layers of 6 heads, 192 -> 192), 2 of 57 units)
        >>> encoder.without("mlp.7").encode_image(torch.zeros(1, 3, *encoder.image_size)).shape
        torch.Size([1, 192])
    """

    def __init__(
        self,
        encoder: EncoderLike,
        keep: UnitsLike,
        mode: str = "zero",
        means: Float[Tensor, "u d"] | None = None,
    ):
        check_mode(mode)
        whole: Encoder = checked_encoder(encoder)
        self.units = Units.of(whole.parts)
        *others, last = whole.changes or (None,)
        before = last if isinstance(last, Ablation) else None
        constants = {} if before is None else dict(zip(before.units, before.constants, strict=True))
        stay = set(self.units.checked(keep))
        if mode == "mean" and (means is None or len(means) != len(self.units)):
            raise ResidualError(f"Mean ablation needs the means (u, d) of all {len(self.units)} units.")
        at = torch.zeros(len(self.units), whole.output_dim, dtype=torch.float64)
        if mode == "mean" and means is not None:
            at = check_finite(means, "The means").detach().double().cpu()
        constants |= {unit: at[unit] for unit in range(len(at)) if unit not in stay | constants.keys()}
        left_out = tuple(sorted(constants))
        self.kept = tuple(unit for unit in range(len(at)) if unit not in constants)
        rows = [constants[unit] for unit in left_out]
        self.ablation = Ablation(left_out, torch.stack(rows) if rows else at[:0])
        earlier = whole.changes if before is None else tuple(others)
        name = f"{_whole(whole).name} with {len(self.kept)} of {len(at)} units"
        super().__init__(whole, (*earlier, self.ablation), name)

    @staticmethod
    def all_but(encoder: EncoderLike, units: UnitsLike) -> list[int]:
        """Positions of an encoder's other units."""
        every = Units.of(checked_encoder(encoder).parts)
        left_out = set(every.checked(units))
        return [unit for unit in range(len(every)) if unit not in left_out]

    def __repr__(self) -> str:
        return f"AblatedEncoder({_whole(self)!r}, {len(self.kept)} of {len(self.units)} units)"


def _whole(encoder: Encoder) -> Encoder:
    while isinstance(encoder, AblatedEncoder):
        encoder = encoder.encoder
    return encoder


def check_mode(mode: str) -> None:
    """Refuse an unknown kind of ablation.

    Raises:
        ResidualError: it is unknown.
    """
    if mode not in MODES:
        raise ResidualError(f"Unknown mode {mode!r}. Known: {', '.join(MODES)}.")
