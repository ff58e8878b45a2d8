"""The units of the residual stream, their order (the embedding, the MLPs, the heads) and their names.

Whoever takes units takes them in every form: `"7.2"` (a head by layer and head), `"mlp.3"`, `"emb"`, a
position, a row of the units table, lists and frames of those, or a mask. `Units.checked` resolves them all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from residual.encoders.anatomy import Parts
from residual.errors import ResidualError
from residual.finite import plain, whole

KINDS = ("emb", "mlp", "head")

# Which kind of unit each field of `Coordinates` is of.
KIND_OF = {"z": "head", "mlp": "mlp", "emb": "emb", "pool_mlp": "mlp"}

# One unit; and one or several, in whichever form.
UnitLike = int | np.integer | str | Mapping[str, Any] | pd.Series
UnitsLike = UnitLike | Sequence[Any] | np.ndarray | Tensor | pd.DataFrame

_COLUMNS = ("unit", "kind", "layer", "head")


def unit_positions(units: Any, count: int | None = None, of: Units | None = None) -> list[int]:
    """Positions of units as plain integers, in their order; where there are `count`, also of a mask of those.

    Args:
        units: one or several, see `UnitsLike`; names need `of`.
        count: how many units there are, if that is known.
        of: the units of their encoder, if they are known.

    Raises:
        ResidualError: some aren't units, aren't there, or are named where only positions are known; or a mask
            isn't of `count` booleans.
    """
    count = len(of) if of is not None else count
    each = [units] if is_one_unit(units) else _several(units)
    booleans = bool(each) and all(isinstance(plain(unit), bool) for unit in each)
    if booleans and len(each) == count:
        return [unit for unit, chosen in enumerate(each) if chosen]
    mask = "" if count is None else f", or a mask of {count} booleans"
    try:
        found = [_position(unit, of) for unit in each]
    except TypeError:
        named = "" if of is None else f"names ({of.ranges}), "
        message = f"Units are {named}whole numbers in a row{mask}; got {units!r:.80}."
        raise ResidualError(message) from None
    if count is not None and (wrong := [unit for unit in found if not 0 <= unit < count]):
        raise ResidualError(f"Units are 0 to {count - 1}, got {wrong}.")
    return found


def is_one_unit(units: Any) -> bool:
    """Whether this is a unit, and no row of several: a name, a position, a row of the units table."""
    if isinstance(units, pd.Series):
        return not {"unit", "kind"}.isdisjoint(units.index)
    return isinstance(units, str | Mapping) or (
        not isinstance(plain(units), bool) and isinstance(plain(units), int)
    )


def _several(units: Any) -> list[Any]:
    if isinstance(units, pd.DataFrame):
        columns = [name for name in _COLUMNS if name in units.columns]
        return units[columns].to_dict("records")
    try:
        return list(plain(units))
    except TypeError:
        return [units]


def _position(unit: Any, of: Units | None) -> int:
    """Of one unit.

    Raises:
        TypeError: it is none.
    """
    if isinstance(unit, str):
        if of is None:
            raise ResidualError(
                f"Which unit {unit!r} is can't be told: how many layers and heads there are isn't known.",
                "Give positions, the column 'unit' of a units table.",
            )
        return of.named(unit)
    if isinstance(unit, Mapping | pd.Series):
        return _of_row({name: unit[name] for name in _COLUMNS if name in unit}, of)
    unit = plain(unit)
    return whole(int(unit) if isinstance(unit, float) and unit.is_integer() else unit)


def _of_row(row: dict[str, Any], of: Units | None) -> int:
    """Of a row of a units table: by its column `unit`, which has to be the unit that the others tell of."""
    told = {name: value for name, value in row.items() if not pd.isna(value)}
    name = None
    if "kind" in told:
        numbers = [f"{_position(told[each], None)}" for each in ("layer", "head") if each in told]
        name = ".".join(numbers if told["kind"] == "head" else [str(told["kind"]), *numbers])
    if "unit" not in told:
        if name is None:
            raise ResidualError(f"A row of a units table has {', '.join(_COLUMNS)}; got {row!r:.80}.")
        return _position(name, of)
    position = _position(told["unit"], None)
    if of is not None and name is not None and 0 <= position < len(of) and of.name(position) != name:
        raise ResidualError(
            f"Unit {position} is {of.name(position)!r} here, and {name!r} in the table that this row is of: "
            "it is another encoder's."
        )
    return position


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
        >>> units.kind(6), units.layer_head(6), units.name(6)
        ('head', (1, 0), '1.0')
    """

    layers: int
    heads: int
    pool_mlp: bool = False

    @classmethod
    def of(cls, parts: Parts) -> Units:
        """Those of an encoder's tower."""
        return cls(len(parts.blocks), parts.heads, parts.pool_mlp is not None)

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

    def checked(self, units: UnitsLike) -> list[int]:
        """Positions as plain integers, in the order given, of one unit or several.

        Args:
            units: `"7.2"` (layer and head), `"mlp.3"`, `"emb"`, a position (none negative) or a row of the
                units table; a list, an array or a frame of those; or a mask.

        Raises:
            ResidualError: there is no such unit: the nearest names and the ranges are told; or a row is of
                another encoder's table.

        Example:
            >>> Units(layers=2, heads=3).checked(["emb", "mlp.1", "1.2", 4])
            [0, 2, 8, 4]
        """
        return unit_positions(units, of=self)

    def name(self, unit: int) -> str:
        """How a unit is called: `"7.2"`, `"mlp.3"`, `"emb"`."""
        kind = self.kind(unit)
        if kind == "head":
            return ".".join(map(str, self.layer_head(unit)))
        return kind if kind == "emb" else f"mlp.{unit - 1}"

    def named(self, name: str) -> int:
        """The position of the unit of that name.

        Raises:
            ResidualError: there is none.
        """
        if head := re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,9})", name.strip()):
            return self.head(int(head[1]), int(head[2]))
        position = {"emb": 0} | {self.name(unit): unit for unit in self.positions("mlp")}
        if (found := position.get(name.strip())) is not None:
            return found
        if mlp := re.fullmatch(r"mlp\.([0-9]{1,9})", name.strip()):
            raise ResidualError(f"There is no MLP {mlp[1]}: layers are 0 to {len(position) - 2}.")
        every = [self.name(unit) for unit in range(len(self))]
        near = difflib.get_close_matches(name.lower(), every, n=3, cutoff=0.5)
        meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ResidualError(
            f"Unknown unit {name!r}.{meant} Units are {self.ranges}, or positions 0 to {len(self) - 1}."
        )

    @property
    def ranges(self) -> str:
        """The names of all units, for messages."""
        mlps, heads = self.positions("mlp"), self.of_field["z"]
        return (
            f"'emb', '{self.name(mlps[0])}' to '{self.name(mlps[-1])}', heads as layer and head, "
            f"'{self.name(heads[0])}' to '{self.name(heads[-1])}'"
        )

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
