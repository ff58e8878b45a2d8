"""An adapter as one matrix, from the coordinates that a forward pass leaves to the adapted output.

A unit's contribution is `c = f M + o` in its features `f = (v/s, 1/s, μ/s)` (`Linearization`), and an adapter
is affine in contributions, so all of it is affine in the features of all units: vectors side by side, and
two numbers, `1/s` and `μ/s`, that they have in common. `Adapter.fold` makes the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError
from residual.finite import check_finite
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.units import KIND_OF

OUTPUT = "output"
_STREAM = ("z", "mlp", "emb")  # what goes through the last norm; a pool's MLP lies behind it


@dataclass(frozen=True)
class FoldedMap:
    """`o' = f W + b`, in float64.

    Args:
        fields: what `f` is made of: fields of `Coordinates`, without those that have no weight, as
            `features_of` takes them; or "output", the encoder's own output.
        matrix: `W`. Its rows are those of `features_of`.
        offset: `b`.

    Raises:
        ResidualError: they aren't finite.
    """

    fields: tuple[str, ...]
    matrix: Float[Tensor, "f d"]
    offset: Float[Tensor, " d"]

    def __post_init__(self):
        for part in (self.matrix, self.offset):
            check_finite(part, "The weights or means of the adapter")

    @classmethod
    def of(cls, linearization: Linearization) -> FoldedMap:
        """The sum of all units' maps, with what an adapter made of them (`Adapter.adapted`)."""
        every = range(len(linearization.units))
        kept = [unit for unit in every if unit not in linearization.constants] or [0]
        matrices = {unit: linearization.matrix(unit) for unit in kept}
        offset = torch.stack([linearization.offset(unit) for unit in every]).sum(0)
        of_field = linearization.units.of_field
        fields = [name for name in (*_STREAM, "pool_mlp") if any(unit in matrices for unit in of_field[name])]
        own, shared = [], torch.zeros(())
        for name in fields:
            if name == "pool_mlp":
                continue
            for unit in of_field[name]:
                of_heads = linearization.matrix(unit).unflatten(
                    0, (linearization.pool_heads, -1)
                )  # (P, v + 2, d)
                own.append(of_heads[:, :-2])
                shared = shared + of_heads[:, -2:]  # of 1/s and μ/s
        rows = [torch.cat([*own, shared], dim=1).flatten(0, 1)] if own else []
        rows += [matrices[unit] for unit in of_field["pool_mlp"] if unit in matrices]
        return cls(tuple(fields), torch.cat(rows), offset)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of unit that a forward pass must be captured for; none where the output is enough."""
        return tuple(dict.fromkeys(KIND_OF[name] for name in self.fields if name != OUTPUT))

    def __call__(self, coordinates: Coordinates) -> Float[Tensor, "n d"]:
        """The adapted output, in the precision and on the device of `coordinates.mean`.

        Raises:
            ResidualError: this is a map of the output, or coordinates were kept without a field.
        """
        if self.fields == (OUTPUT,):
            raise ResidualError("A map of the encoder's output takes that (of_output), not coordinates.")
        features = features_of(coordinates, self.fields)
        return torch.addmm(self.offset.to(features), features, self.matrix.to(features))

    def of_output(self, output: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The same where it is a map of the encoder's output.

        Raises:
            ResidualError: it isn't.
        """
        if self.fields != (OUTPUT,):
            raise ResidualError("A map of coordinates takes those; the output alone is not enough.")
        return torch.addmm(self.offset.to(output), output, self.matrix.to(output))


def features_of(coordinates: Coordinates, fields: Sequence[str]) -> Float[Tensor, "n f"]:
    """The features of all units of these fields, in the precision and on the device of `coordinates.mean`.

    In turn: `z/s` of all heads, `v/s` of all MLPs, that of the embedding, `1/s`, `μ/s`; with an attention
    pool all this for each of its heads, and the output of its MLP at the end.
    """
    mean, std = coordinates.mean[..., None], coordinates.std[..., None]  # (n, 1), or (n, P, 1)
    parts = []
    if "z" in fields:
        parts.append(coordinates.field("z").flatten(-3))
    if "mlp" in fields:
        parts.append(coordinates.field("mlp").flatten(-2))
    if "emb" in fields:
        parts.append(coordinates.field("emb"))
    if parts:
        parts = [torch.cat([*(part.to(mean) for part in parts), torch.ones_like(mean), mean], -1) / std]
        parts = [parts[0].flatten(1)]
    if "pool_mlp" in fields:
        parts.append(coordinates.field("pool_mlp").to(mean))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
