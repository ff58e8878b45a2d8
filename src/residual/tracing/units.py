"""The units of the residual stream and their order: the embedding, the MLPs, the heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from residual.errors import ResidualError
from residual.finite import plain, whole

KINDS = ("emb", "mlp", "head")

# Which kind of unit each field of `Coordinates` is of.
KIND_OF = {"z": "head", "mlp": "mlp", "emb": "emb", "pool_mlp": "mlp"}


def unit_positions(units: Iterable[Any], count: int | None = None) -> list[int]:
    """Positions of units as plain integers, in their order; where there are `count`, also of a mask of those.

    Raises:
        ResidualError: some aren't whole numbers, or a mask isn't of `count` booleans.
    """
    each = plain(units)
    try:
        each = [plain(unit) for unit in each]
        if each and all(isinstance(unit, bool) for unit in each) and len(each) == count:
            return [unit for unit, chosen in enumerate(each) if chosen]
        return [whole(int(unit) if isinstance(unit, float) and unit.is_integer() else unit) for unit in each]
    except TypeError:
        mask = "" if count is None else f", or a mask of {count} booleans"
        raise ResidualError(f"Units are whole numbers in a row{mask}; got {units!r:.80}.") from None


def checked_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Kinds of unit, one or several, as they were given.

    Raises:
        ResidualError: a kind isn't known, or none is given.
    """
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ResidualError(
            f"Unknown kinds of unit: {', '.join(map(repr, unknown))}. Known: {', '.join(KINDS)}."
        )
    if not kinds:
        raise ResidualError(f"No kind of unit was given. Known: {', '.join(KINDS)}.")
    return kinds


@dataclass(frozen=True)
class Units:
    """Which units a tower has, and which position is whose: the embedding, the MLPs by layer, the heads by
    layer and then head.

    The MLP of an attention pool, where there is one, follows the last layer's: its layer is `layers`.

    Args:
        layers: of the tower.
        heads: in each layer.
        pool_mlp: whether there is the MLP of an attention pool.

    Example:
        >>> units = Units(layers=2, heads=3)
        >>> len(units), units.positions("mlp"), units.head(1, 0)
        (9, [1, 2], 6)
        >>> units.kind(6), units.layer_head(6)
        ('head', (1, 0))
    """

    layers: int
    heads: int
    pool_mlp: bool = False

    def __len__(self) -> int:
        return self.of_field["z"].stop

    @cached_property
    def of_field(self) -> dict[str, range]:
        """The positions of the units that each field of `Coordinates` holds, in the order of its axes."""
        pool_mlp = 1 + self.layers
        first_head = pool_mlp + self.pool_mlp
        return {
            "emb": range(1),
            "mlp": range(1, pool_mlp),
            "pool_mlp": range(pool_mlp, first_head),
            "z": range(first_head, first_head + self.layers * self.heads),
        }

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a unit: its position `unit`, `kind`, `layer` and `head` (NA where there is none)."""
        layer, mlps = np.arange(self.layers), np.arange(self.layers + self.pool_mlp)
        headless = [pd.NA] * (1 + len(mlps))
        return pd.DataFrame(
            {
                "unit": np.arange(len(self)),
                "kind": [self.kind(unit) for unit in range(len(self))],
                "layer": pd.array([pd.NA, *mlps, *layer.repeat(self.heads)], dtype="Int64"),
                "head": pd.array(headless + list(np.tile(np.arange(self.heads), self.layers)), dtype="Int64"),
            }
        )

    def positions(self, kinds: Iterable[str]) -> list[int]:
        """Positions of the units of one kind or several, in order.

        Raises:
            ResidualError: a kind isn't known, or none is given.
        """
        kinds = checked_kinds(kinds)
        return [unit for unit in range(len(self)) if self.kind(unit) in kinds]

    def checked(self, units: Iterable[Any]) -> list[int]:
        """Positions as plain integers, from positions or a mask, if there are such units.

        Raises:
            ResidualError: there aren't; or as `unit_positions`.
        """
        units = unit_positions(units, len(self))
        if wrong := [unit for unit in units if not 0 <= unit < len(self)]:
            raise ResidualError(f"Units are 0 to {len(self) - 1}, got {wrong}.")
        return units

    def field(self, unit: int) -> str:
        """The field of `Coordinates` that holds a unit."""
        return next(name for name, positions in self.of_field.items() if unit in positions)

    def kind(self, unit: int) -> str:
        """Of which kind a unit is."""
        return KIND_OF[self.field(unit)]

    def layer_head(self, unit: int) -> tuple[int, int]:
        """Layer and head of the unit that is a head."""
        return divmod(unit - self.of_field["z"].start, self.heads)

    def head(self, layer: int, head: int) -> int:
        """The position of a head.

        Raises:
            ResidualError: there is no such head.
        """
        if not (0 <= layer < self.layers and 0 <= head < self.heads):
            raise ResidualError(
                f"There is no head {layer}.{head}: layers are 0 to {self.layers - 1} and heads 0 to "
                f"{self.heads - 1}."
            )
        return self.of_field["z"][layer * self.heads + head]

    def share(self, unit: int) -> float:
        """`w_u`, a unit's share of what all have in common: `1/(2L+1)`, and of that `1/H` for a head.

        The MLP of an attention pool lies behind the norm and has none.
        """
        field, stream_units = self.field(unit), 2 * self.layers + 1
        if field == "pool_mlp":
            return 0.0
        return 1 / (stream_units * self.heads) if field == "z" else 1 / stream_units
