"""A fitted adapter as one matrix, from the coordinates that a forward pass leaves to the adapted output.

A unit's contribution is `c = f M + o` in its features `f = (v/s, 1/s, μ/s)` (`Linearization`), and an adapter
is affine in contributions, so all of it is affine in the features of all units: vectors side by side, and
two numbers, `1/s` and `μ/s`, that they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residual.adapters.adapter import Adapter
from residual.adapters.output_maps import LinearMap, SpectralMap
from residual.adapters.residual import ResiDual
from residual.errors import ResidualError
from residual.tracing.coordinates import KIND_OF, Coordinates
from residual.tracing.linearization import Linearization

OUTPUT = "output"
_STREAM = ("z", "mlp", "emb")  # what goes through the last norm; a pool's MLP lies behind it

Reweigh = Callable[[Float[Tensor, "m d"]], Float[Tensor, "m d"]]


@dataclass(frozen=True)
class FoldedMap:
    """`o' = f W + b`, in float64.

    Args:
        fields: what `f` is made of: fields of `Coordinates`, without those that have no weight, as
            `features_of` takes them; or "output", the encoder's own output.
        matrix: `W`. Its rows are those of `features_of`.
        offset: `b`.
    """

    fields: tuple[str, ...]
    matrix: Float[Tensor, "f d"]
    offset: Float[Tensor, " d"]

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
        parts.append(coordinates.held("z").flatten(-3))
    if "mlp" in fields:
        parts.append(coordinates.held("mlp").flatten(-2))
    if "emb" in fields:
        parts.append(coordinates.held("emb"))
    if parts:
        parts = [torch.cat([*(part.to(mean) for part in parts), torch.ones_like(mean), mean], -1) / std]
        parts = [parts[0].flatten(1)]
    if "pool_mlp" in fields:
        parts.append(coordinates.held("pool_mlp").to(mean))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def fold(adapter: Adapter, linearization: Linearization) -> FoldedMap:
    """The matrix of an adapter on an encoder, so that the adapter isn't needed any more.

    Where an attention pool with `P` heads makes the output, the matrix has `P` times as many rows.

    Args:
        adapter: fitted; later changes of its weights don't reach the matrix.
        linearization: of the encoder's image tower as it pools itself.

    Raises:
        ResidualError: the adapter can't be of this encoder (width, number of units), or its kind isn't known.
    """
    with torch.no_grad():
        if isinstance(adapter, ResiDual):
            return _units(adapter, linearization)
        if not isinstance(adapter, LinearMap | SpectralMap):
            raise ResidualError(f"A {type(adapter).__name__} can't be folded: its kind isn't known.")
        if adapter.dim != linearization.output_dim:
            raise ResidualError(
                f"The map is of width {adapter.dim}, the encoder's output of width "
                f"{linearization.output_dim}."
            )
        if isinstance(adapter, LinearMap):
            matrix = adapter.matrix.detach().to("cpu", torch.float64)
            return FoldedMap((OUTPUT,), matrix.clone(), torch.zeros_like(matrix[0]))
        mean = adapter.pca.mean.to("cpu", torch.float64)
        weights = adapter.lambdas.detach().to("cpu", torch.float64)
        reweigh = _reweighing(adapter.directions, weights, adapter.tail)
        matrix = reweigh(torch.eye(adapter.dim, dtype=torch.float64))
        offset = -mean @ matrix
        return FoldedMap((OUTPUT,), matrix, offset + mean if adapter.mean == "keep" else offset)


def _units(adapter: ResiDual, linearization: Linearization) -> FoldedMap:
    """Every unit's `(M B, (o − m) B)`, with `B` what the adapter does to a centred contribution."""
    n_units = len(linearization.units)
    adapter.check_units(n_units, linearization.output_dim)
    weights = adapter.expand(adapter.lambdas.detach()).to("cpu", torch.float64)
    directions = adapter.directions.detach().to("cpu", torch.float64)
    reweighed = {
        unit: (mean, _reweighing(rows, own, adapter.tail))
        for unit, mean, rows, own in zip(
            adapter.units,
            adapter.bases.means,
            directions.split(adapter.ranks),
            weights.split(adapter.ranks),
            strict=True,
        )
    }
    taken = range(n_units) if adapter.others == "keep" else sorted(adapter.units)
    rows = _Rows(linearization, taken)
    offset = adapter.constant(n_units)
    for unit in taken:
        matrix, constant = linearization.matrix(unit), linearization.offset(unit)
        if unit in reweighed:
            mean, reweigh = reweighed[unit]
            matrix, constant = reweigh(matrix), reweigh((constant - mean)[None])[0]
        rows.add(unit, matrix)
        offset = offset + constant
    return FoldedMap(rows.fields, rows.matrix, offset)


def _reweighing(directions: Float[Tensor, "k d"], weights: Float[Tensor, " k"], tail: str) -> Reweigh:
    """`x Φᵀ diag(λ) Φ`; with the tail kept `x + x Φᵀ diag(λ − 1) Φ`."""
    rows = directions.detach().to("cpu", torch.float64)
    if tail == "drop":
        return lambda x: (x @ rows.T * weights) @ rows
    return lambda x: x + (x @ rows.T * (weights - 1)) @ rows


class _Rows:
    """The matrix that goes with `features_of`, filled unit by unit."""

    def __init__(self, linearization: Linearization, units: Sequence[int]):
        of = linearization
        self._units = of.units
        field_of = {of.units.field(unit) for unit in units}
        self.fields = tuple(name for name in (*_STREAM, "pool_mlp") if name in field_of)
        self._widths = {"z": of.head_width, "mlp": of.width, "emb": of.width}
        self._starts, at = {}, 0
        for name in _STREAM:
            if name in self.fields:
                self._starts[name] = at
                at += len(of.units.of_field[name]) * self._widths[name]
        self._shared = at
        stream_rows = at + 2 if self._starts else 0
        self._blocks = torch.zeros(of.pool_heads, stream_rows, of.output_dim, dtype=torch.float64)
        self._behind = torch.zeros(0, of.output_dim, dtype=torch.float64)

    def add(self, unit: int, matrix: Float[Tensor, "g d"]) -> None:
        """Put the rows of one unit in their place; those of `1/s` and `μ/s` are summed over units."""
        name = self._units.field(unit)
        if name == "pool_mlp":
            self._behind = matrix
            return
        of_heads = matrix.unflatten(0, (len(self._blocks), -1))  # (P, v + 2, d)
        width = self._widths[name]
        start = self._starts[name] + self._units.of_field[name].index(unit) * width
        self._blocks[:, start : start + width] = of_heads[:, :-2]
        self._blocks[:, self._shared :] += of_heads[:, -2:]

    @property
    def matrix(self) -> Float[Tensor, "f d"]:
        """All rows."""
        return torch.cat([self._blocks.flatten(0, 1), self._behind])
