"""What is turned: units switched off or weighted, single components re-weighted, an adapter applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from residual.errors import ResidualError
from residual.finite import whole
from residual.tracing.ablated import check_mode
from residual.tracing.units import Units

_FIELDS = ("off", "weights", "lambdas", "adapter", "mode")
_LARGEST = 1e6


@dataclass(frozen=True)
class Edit:
    """What is done to one unit, see `UnitEdit`.

    Args:
        weight: `w`; 0 switches it off.
        lambdas: components and their `λ`, without those that are 1, in order.
    """

    weight: float = 1.0
    lambdas: tuple[tuple[int, float], ...] = ()


PLAIN = Edit()


@dataclass(frozen=True)
class State:
    """What is turned, to compare and to look up by.

    Args:
        edits: units, by position, and what is done to each; none that is as it was.
        adapter: that is applied before, by its key.
        mode: "zero", or "mean": what is taken off a unit is put at its mean.
    """

    edits: tuple[tuple[int, Edit], ...] = ()
    adapter: str | None = None
    mode: str = "zero"

    @classmethod
    def of(
        cls,
        units: Units,
        off: Any = (),
        weights: Mapping[str, Any] | None = None,
        lambdas: Mapping[str, Mapping[str, Any]] | None = None,
        adapter: str | None = None,
        mode: str = "zero",
    ) -> State:
        """From names: units that are off, weights of others, and λ by unit and component.

        Raises:
            ResidualError: an unknown unit or mode, or what isn't a number.
        """
        check_mode(mode)
        edits: dict[int, Edit] = {}
        for name, each in (lambdas or {}).items():
            own = {_component(name, k): _number(f"λ of {name}:{k}", value) for k, value in each.items()}
            kept = tuple(sorted((k, value) for k, value in own.items() if value != 1))
            edits[units.named(str(name))] = Edit(lambdas=kept)
        given = {**(weights or {}), **dict.fromkeys(off, 0.0)}
        for name, value in given.items():
            unit = units.named(str(name))
            weight = _number(f"The weight of {name}", value)
            edits[unit] = Edit(weight, edits.get(unit, PLAIN).lambdas if weight else ())
        changed = sorted((unit, edit) for unit, edit in edits.items() if edit != PLAIN)
        return cls(tuple(changed), adapter, mode)

    @classmethod
    def of_json(cls, units: Units, held: Any) -> State:
        """From what a page sends or a file holds; other fields are left aside.

        Raises:
            ResidualError: it isn't of that form; or as `of`.
        """
        held = {name: held[name] for name in _FIELDS if held.get(name) is not None}
        lambdas = held.get("lambdas", {})
        listed = isinstance(held.get("off", []), list)
        mapped = isinstance(held.get("weights", {}), dict) and isinstance(lambdas, dict)
        if not (listed and mapped and all(isinstance(each, dict) for each in lambdas.values())):
            raise ResidualError(
                "What is turned is told by a list of units (off), numbers by unit (weights), and numbers by "
                "unit and component (lambdas)."
            )
        if not all(isinstance(held.get(name, ""), str) for name in ("adapter", "mode")):
            raise ResidualError("An adapter and a mode are told by their names.")
        return cls.of(units, **held)

    def to_json(self, units: Units) -> dict[str, Any]:
        """What `of_json` takes."""
        names = {unit: units.name(unit) for unit, _ in self.edits}
        kept = [(names[unit], edit) for unit, edit in self.edits]
        return {
            "off": [name for name, edit in kept if edit.weight == 0],
            "weights": {name: edit.weight for name, edit in kept if edit.weight not in (0, 1)},
            "lambdas": {
                name: {str(k): value for k, value in edit.lambdas} for name, edit in kept if edit.lambdas
            },
            "adapter": self.adapter,
            "mode": self.mode,
        }


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise ResidualError(f"{what} is a number of at most {_LARGEST:,.0f}, got {value!r:.40}.")
    return float(value)


def _component(name: str, k: Any) -> int:
    try:
        index = int(k) if isinstance(k, str) and k.isascii() and k.isdigit() and len(k) < 7 else whole(k)
    except TypeError:
        index = -1
    if index < 0:
        raise ResidualError(f"Components of {name} are whole numbers from 0, got {k!r:.40}.")
    return index
