"""What is kept of a forward pass: the small numbers from which every unit's contribution follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from residual.errors import ResidualError
from residual.tracing.units import KIND_OF, Units


@dataclass(frozen=True)
class Coordinates:
    """Raw coordinates of `n` samples: of the pooled token; of each token where several are kept; or of each
    head of an attention pool (then `t` of them, see `residual.tracing.token_choice`).

    Args:
        z: each head's numbers before the output projection of its attention. This, `mlp` or `emb` is None
            where that kind of unit was left out.
        mlp: what each MLP adds to the stream: its output, times its layer scale if it has one.
        emb: the stream before the first block.
        mean: `μ`, mean of the stream before the last LayerNorm; 0 before an RMS norm, which subtracts none.
        std: `s = sqrt(var + ε)` of it, or `sqrt(mean(x²) + ε)`.
        pool_mlp: the output of an attention pool's own MLP, or None.
        rounding: how much of the stream, by norm, a half-precision model lost where it added units up; that
            is shared out evenly over `emb` and `mlp`, so that units sum to the stream there was. None in
            float32, where nothing is.
    """

    z: Float[Tensor, "n *t l h w"] | None
    mlp: Float[Tensor, "n *t l D"] | None
    emb: Float[Tensor, "n *t D"] | None
    mean: Float[Tensor, "n ..."]
    std: Float[Tensor, "n ..."]
    pool_mlp: Float[Tensor, "n D"] | None = None
    rounding: Float[Tensor, "n ..."] | None = None

    def __len__(self) -> int:
        return len(self.mean)

    def field(self, name: str) -> Tensor:
        """The field of that name.

        Raises:
            ResidualError: it was left out.
        """
        value = getattr(self, name)
        if value is None:
            raise ResidualError(
                f"These coordinates were kept without {name}, so there are no units of kind "
                f"{KIND_OF[name]!r} in them: encode again with that kind."
            )
        return value

    def of(self, unit: int, units: Units) -> Float[Tensor, "n *t w"]:
        """A unit's own vector, as a view: `z` of a head, what an MLP adds, the embedding.

        Raises:
            ResidualError: units of its kind were left out.
        """
        name = units.field(unit)
        value = self.field(name)
        if name == "z":
            layer, head = units.layer_head(unit)
            return value[..., layer, head, :]
        return value[..., unit - units.of_field["mlp"].start, :] if name == "mlp" else value

    def only(self, kinds: Sequence[str]) -> Coordinates:
        """The same without the units of other kinds, and without `rounding`."""
        left_out: dict[str, Any] = {name: None for name, kind in KIND_OF.items() if kind not in kinds}
        if "head" not in kinds and isinstance(self, SourcedCoordinates):
            left_out |= {"attention": None, "sources": None, "spread": None}
        return replace(self, rounding=None, **left_out)

    def __getitem__(self, samples: slice | Sequence[int] | Shaped[Tensor, " m"]) -> Coordinates:
        """Those samples (a slice gives views, anything else copies)."""
        if not isinstance(samples, slice | Tensor):
            samples = torch.as_tensor(samples, dtype=torch.long)
        return self._each(lambda value: value[samples])

    def to(
        self,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> Coordinates:
        """The same on another device, or in another precision."""
        return self._each(lambda value: value.to(device=device, dtype=dtype, non_blocking=non_blocking))

    def tokens_as_samples(self) -> Coordinates:
        """The same with the token axis, if there is one, run into that of samples."""
        if self.mean.ndim == 1:
            return self
        return self._each(lambda value: value.flatten(0, 1))

    def finite(self) -> Bool[Tensor, " n"]:
        """Which samples hold neither NaN nor infinity."""
        good = torch.ones(len(self), dtype=torch.bool, device=self.mean.device)
        for field in fields(self):
            if (value := getattr(self, field.name)) is not None:
                good &= value.reshape(len(self), -1).isfinite().all(1)
        return good

    def room(self, n: int) -> Coordinates:
        """Memory for `n` samples such as these, holding nothing yet."""
        return self._each(lambda value: value.new_empty(n, *value.shape[1:]))

    def put(self, start: int, samples: Coordinates) -> None:
        """Write `samples` over these from position `start`."""
        for field in fields(self):
            if (value := getattr(self, field.name)) is not None:
                value[start : start + len(samples)] = samples.field(field.name)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Coordinates:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: None if value is None else change(value) for name, value in values.items()
        }
        return type(self)(**changed)


@dataclass(frozen=True)
class SourcedCoordinates(Coordinates):
    """Coordinates whose heads are split by the token `j` that they attend to (`trace(…, sources=True)`).

    Args:
        attention: what a head's query gives to each token; of several tokens that were pooled, the mean by
            their shares.
        sources: `a_j v_j`, what sums to `z` over `j`.
        spread: each token's share of what depends on none: even over those that may be attended to.
    """

    attention: Float[Tensor, "n *t l h j"] | None = None
    sources: Float[Tensor, "n *t l h j w"] | None = None
    spread: Float[Tensor, "n *t l h j"] | None = None
