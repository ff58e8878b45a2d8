"""Heads by layer and head, as people write them, and what can't be described."""

from __future__ import annotations

from residual.errors import ResidualError
from residual.store.base import Store
from residual.tracing.units import Units, UnitsLike


def parse_heads(names: UnitsLike, store: Store) -> list[int]:
    """Positions of heads, in whichever form they are given ("11.4"); one that comes twice is taken once.

    Raises:
        ResidualError: none is named, there is no such unit, or it is no head.
    """
    check_heads(store)
    return checked_heads(names, store.linearization.units)


def checked_heads(names: UnitsLike, units: Units) -> list[int]:
    """The same of the units of an encoder.

    Raises:
        ResidualError: as `parse_heads`.
    """
    heads, every = units.checked(names), units.of_field["z"]
    if not heads:
        raise ResidualError("No head was named: name one at least, or none at all for the best.")
    if wrong := [units.name(unit) for unit in heads if unit not in every]:
        raise ResidualError(
            f"No head: {', '.join(wrong)}. Heads are {units.name(every[0])} to {units.name(every[-1])}, or "
            f"units {every[0]} to {every[-1]}."
        )
    return list(dict.fromkeys(heads))


def check_heads(store: Store) -> None:
    """Refuse a store without heads.

    Raises:
        ResidualError: it has none.
    """
    if "head" not in store.kinds:
        raise ResidualError(
            f"{store.dataset} was encoded without heads, only with units of kind {', '.join(store.kinds)}: "
            "encode it with heads."
        )


def check_atoms(atoms: int, entries: int) -> None:
    """Refuse to choose more texts than there are.

    Raises:
        ResidualError: it would.
    """
    if atoms > entries:
        raise ResidualError(
            f"The dictionary has {entries} entries, so {atoms} texts can't be chosen of it: ask for fewer "
            "atoms or take a longer one."
        )
