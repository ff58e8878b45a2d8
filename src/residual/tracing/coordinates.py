"""What is kept of a forward pass: the small numbers from which every unit's contribution follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Coordinates:
    """Raw coordinates of `n` samples at the pooled token.

    Args:
        z: each head's numbers before the output projection of its attention.
        mlp: each MLP's output, before a layer scale.
        emb: the stream before the first block.
        mean: `μ`, mean of the stream before the last LayerNorm.
        std: `s = sqrt(var + ε)` of it.
    """

    z: Float[Tensor, "n l h w"]
    mlp: Float[Tensor, "n l D"]
    emb: Float[Tensor, "n D"]
    mean: Float[Tensor, " n"]
    std: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, samples: slice | Sequence[int] | Shaped[Tensor, " m"]) -> Coordinates:
        """Those samples (a slice gives views, anything else copies)."""
        if not isinstance(samples, slice | Tensor):
            samples = torch.as_tensor(samples, dtype=torch.long)
        return self._each(lambda value: value[samples])

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Coordinates:
        """The same elsewhere, or in another precision."""
        return self._each(lambda value: value.to(device=device, dtype=dtype))

    @staticmethod
    def cat(parts: Sequence[Coordinates]) -> Coordinates:
        """Samples of several, one after the other."""
        names = [field.name for field in fields(Coordinates)]
        return Coordinates(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def _each(self, change) -> Coordinates:
        return Coordinates(**{field.name: change(getattr(self, field.name)) for field in fields(self)})
