"""An encoder with only some units in its output: it is one like any other, wherever encoders are taken."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.encoders.ablation import Ablation
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.finite import check_finite
from residual.tracing.linearization import Linearization, linearization_of
from residual.tracing.trace import trace
from residual.tracing.units import Units, UnitsLike

MODES = ("zero", "mean")


class AblatedEncoder(Encoder, ablates=True):
    """Runs as the encoder that it was made of, and gives the sum of the units that are kept.

    The same as `ablate(decompose(…).contributions, keep)`, for as little as the full output costs. It takes
    the encoder's place everywhere: units that are left out contribute zero, or their mean, to `decompose`, to
    stores and to adapters. It is another encoder, with a fingerprint of its own. The text tower is whole.

    Args:
        encoder: the whole; of one that is ablated, units that it leaves out stay where they are.
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
        encoder: Encoder,
        keep: UnitsLike,
        mode: str = "zero",
        means: Float[Tensor, "u d"] | None = None,
    ):
        check_mode(mode)
        about = encoder.module, encoder.family, encoder.preprocess, encoder._tokenize, encoder.centering
        super().__init__(encoder.name, *about)
        self.encoder, self.compiling = encoder, encoder.compiling
        self.units = Units.of(self.parts)
        before = encoder.ablation
        constants = {} if before is None else dict(zip(before.units, before.constants, strict=True))
        stay = set(self.units.checked(keep))
        if mode == "mean" and (means is None or len(means) != len(self.units)):
            raise ResidualError(f"Mean ablation needs the means (u, d) of all {len(self.units)} units.")
        at = torch.zeros(len(self.units), self.output_dim, dtype=torch.float64)
        if mode == "mean" and means is not None:
            at = check_finite(means, "The means").detach().double().cpu()
        constants |= {unit: at[unit] for unit in range(len(at)) if unit not in stay | constants.keys()}
        left_out = tuple(sorted(constants))
        self.kept = tuple(unit for unit in range(len(at)) if unit not in constants)
        rows = [constants[unit] for unit in left_out]
        self.ablation = Ablation(left_out, torch.stack(rows) if rows else at[:0])
        self.name = f"{_whole(encoder).name} with {len(self.kept)} of {len(at)} units"

    @staticmethod
    def all_but(encoder: Encoder, units: UnitsLike) -> list[int]:
        """Positions of an encoder's other units."""
        every = Units.of(encoder.parts)
        left_out = set(every.checked(units))
        return [unit for unit in range(len(every)) if unit not in left_out]

    @property
    def linearization(self) -> Linearization:
        """From coordinates to the contributions that are left."""
        return linearization_of(self, self.parts, "image", "own")

    def run(self, tower: str, inputs: Tensor) -> Tensor:
        """A tower on inputs that are ready for it; of images, the sum of the kept units."""
        return trace(self, inputs)[1] if tower == "image" else super().run(tower, inputs)

    def around(self, module: nn.Module) -> AblatedEncoder:
        """See `Encoder.around`."""
        other = AblatedEncoder(self.encoder.around(module), self.kept)
        other.ablation = self.ablation
        return other

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
