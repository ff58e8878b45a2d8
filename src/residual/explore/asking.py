"""From what a page asks to a method of the exploration and its arguments."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from residual.errors import ResidualError

# By path. Each is a method of `Exploration`; those of `POSTED` also take what comes with the request.
ASKED = ("about", "heads", "unit", "spectrum", "picture", "pictures", "text", "words", "drop", "map", "moves")
POSTED = ("turn", "save", "drop", "pictures")


def arguments(method: Callable[..., Any], query: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Of a method, from a query: by its parameters' names (`class` is `class_`) and types.

    Raises:
        ResidualError: one is unknown, missing, comes twice, or isn't of its type.
    """
    takes, given = _parameters(method), {}
    for name, value in query:
        if name not in takes:
            raise ResidualError(f"Unknown parameter {name!r:.40}. Known: {', '.join(takes)}.")
        own, kind, _ = takes[name]
        if own in given:
            raise ResidualError(f"The parameter {name!r} comes twice.")
        given[own] = _converted(name, value, kind)
    if missing := [name for name, (own, _, needed) in takes.items() if needed and own not in given]:
        raise ResidualError(f"Parameters are missing: {', '.join(missing)}.")
    return given


@cache
def _of_function(function: Callable[..., Any]) -> dict[str, tuple[str, type, bool]]:
    hints = typing.get_type_hints(function)
    found = {}
    for own, parameter in inspect.signature(function).parameters.items():
        if own == "self" or hints.get(own) not in _KINDS:
            continue
        needed = parameter.default is inspect.Parameter.empty
        found[own.rstrip("_")] = own, _KINDS[hints[own]], needed
    return found


def _parameters(method: Callable[..., Any]) -> Mapping[str, tuple[str, type, bool]]:
    return _of_function(getattr(method, "__func__", method))


_KINDS: dict[Any, type] = {
    **{kind: kind for kind in (str, int, float, bool)},
    str | None: str,
    int | None: int,
    float | None: float,
}


def _converted(name: str, value: str, kind: type) -> Any:
    try:
        if kind is bool:
            return {"1": True, "0": False, "true": True, "false": False}[value]
        if kind is int and len(value) > 12:
            raise ValueError
        return kind(value)
    except (ValueError, KeyError):
        what = "0 or 1" if kind is bool else "a whole number" if kind is int else "a number"
        raise ResidualError(f"{name} is {what}, got {value!r:.40}.") from None
