"""An encoder with only some units in its output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.encoder import Encoder
from residual.encoders.pixels import Pixels
from residual.errors import ResidualError
from residual.finite import check_finite
from residual.heads.contributions import check_mode, kept_units
from residual.tracing.linearization import Linearization
from residual.tracing.trace import trace


class AblatedEncoder:
    """Runs as the encoder that it was made of, and gives the sum of the units that are kept.

    Their features side by side, times one matrix: the same as `ablate(decompose(…).contributions, keep)`,
    for as little as the full output costs.

    Args:
        encoder: the whole.
        keep: positions of the units that stay, or a mask.
        mode: "zero" leaves the others out, "mean" puts them at `means`.
        means: `(u, d)`, of all units (`mean_contributions`, or the `all_means` of bases).

    Raises:
        ResidualError: a unit that isn't there, an unknown mode, or "mean" without means that are finite.

    Example:
        >>> import residual, torch
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> ablated = residual.heads.AblatedEncoder(encoder, keep=[20, 41])  # two heads
        >>> ablated.encode_image(torch.zeros(1, 3, *encoder.image_size)).shape
        torch.Size([1, 192])
    """

    def __init__(
        self,
        encoder: Encoder,
        keep: Sequence[int] | np.ndarray | Tensor,
        mode: str = "zero",
        means: Float[Tensor, "u d"] | None = None,
    ):
        check_mode(mode)
        self.encoder, self.preprocess, self.name = encoder, encoder.preprocess, encoder.name
        self.linearization = Linearization.of(encoder)
        mask = kept_units(keep, len(self.linearization.units))
        self.kept: tuple[int, ...] = tuple(mask.nonzero()[:, 0].tolist())
        offset = torch.zeros(encoder.output_dim, dtype=torch.float64)
        if mode == "mean":
            if means is None or len(means) != len(mask):
                raise ResidualError(f"Mean ablation needs the means (u, d) of all {len(mask)} units.")
            offset = offset + check_finite(means, "The means")[~mask].double().cpu().sum(0)
        self._offset = offset + sum(self.linearization.offset(unit) for unit in self.kept)
        matrices = [self.linearization.matrix(unit) for unit in self.kept]
        self._matrix = torch.cat([*matrices, torch.zeros(0, encoder.output_dim, dtype=torch.float64)])

    @property
    def output_dim(self) -> int:
        """Width of the output, `d`."""
        return self.encoder.output_dim

    @property
    def logit_scale(self) -> float | None:
        """That of the encoder."""
        return self.encoder.logit_scale

    def encode_image(self, pixels: Pixels) -> Float[Tensor, "n d"]:
        """The sum of the kept units, in the precision of the statistics (float32, or float64)."""
        coordinates, _ = trace(self.encoder, pixels)
        like = coordinates.mean
        offset, matrix = self._offset.to(like), self._matrix.to(like)
        if not self.kept:
            return offset.expand(len(pixels), -1)
        features = [self.linearization.features(coordinates, unit) for unit in self.kept]
        return torch.addmm(offset, torch.cat(features, dim=-1), matrix)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "c d"]:
        """That of the encoder: only the image side loses units."""
        return self.encoder.encode_text(texts)

    def __repr__(self) -> str:
        return f"AblatedEncoder({self.encoder!r}, {len(self.kept)} of {len(self.linearization.units)} units)"
