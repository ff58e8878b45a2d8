"""Settings that tell of themselves: what each takes and means, when it counts, where its default is from.

A class of settings is a frozen dataclass whose fields are made by `setting` and checked by `check_settings`
where it is made. The same few words then refuse a value in Python, in a file and on the command line, and
`listed` shows them.
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any

from residual.errors import ResidualError

PAPER = "the paper"
PAPER_IS = "Basile et al., TMLR 2025, arXiv 2411.00246"
OWN = "this library"
MOST_SEEDS = 1_000
_ABOUT = "setting"


class SettingError(ResidualError):
    """A value that a setting doesn't take; the message begins with the setting's name."""


@dataclass(frozen=True)
class Setting:
    """What is known of a setting beyond its type; see `setting`."""

    source: str = OWN
    least: float | int | None = None
    above: float | int | None = None
    most: float | int | None = None
    below: float | int | None = None
    choices: tuple[str, ...] = ()
    takes: str = ""
    holds: Callable[[Any], bool] | None = None
    only: Mapping[str, tuple[Any, ...]] | None = None


def setting(default: Any, **more: Any) -> Any:
    """A field of a dataclass of settings; what it means is in the `Args:` of the class's docstring.

    Args:
        default: its default; a list is copied for each.
        more: `source` of the default, by default `OWN`; the range of a number, or of each in a list: `least`,
            `above`, `most`, `below`; the `choices` of a text; where these can't tell, `takes` in words, and
            `holds`, a function of the value; `only`, other settings with values of them that this one counts
            for, of which a list has to hold one.

    Example:
        >>> @dataclass(frozen=True)
        ... class Climb:
        ...     steps: int = setting(30, least=1)
        ...     def __post_init__(self):
        ...         check_settings(self)
        >>> Climb("many")
        Traceback (most recent call last):
        residual.settings.SettingError: Climb.steps takes a whole number, at least 1; got 'many'.
    """
    known = {_ABOUT: Setting(**more)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=known)
    return field(default=default, metadata=known)


def check_settings(settings: Any) -> None:
    """Refuse what one of the fields doesn't take, and make numbers of numpy and torch plain ones.

    Raises:
        SettingError: it has a value of another type than its field, or one that is out of range.
    """
    for name in settings_of(type(settings)):
        object.__setattr__(settings, name, checked(type(settings), name, getattr(settings, name)))


def checked(kind: type[Any], name: str, value: Any, said: str = "") -> Any:
    """The value as a field of a class of settings holds it; `said` is what messages call it.

    Raises:
        SettingError: as `check_settings`.
    """
    told, parts, said = settings_of(kind)[name], _parts(_types(kind)[name]), said or f"{called(kind)}.{name}"
    made = _made(value, parts)
    if made is _WRONG or not _holds(made, told):
        said_of = value if isinstance(value, tuple | list) else (value,)
        unknown = [each for each in said_of if isinstance(each, str) and each not in told.choices]
        near = difflib.get_close_matches(unknown[0], told.choices, 1) if unknown else []
        as_list = isinstance(value, str) and _made([value], parts) is not _WRONG
        listed_as = f"A list of one is [{value!r}]." if as_list else ""
        raise SettingError(
            f"{said} takes {taken(kind, name)}; got {reprlib.repr(value)}.",
            f"Did you mean {near[0]!r}?" if near else listed_as,
        )
    if isinstance(made, tuple | list) and (twice := [each for each in made if made.count(each) > 1]):
        named = ", ".join(dict.fromkeys(map(str, twice)))
        raise SettingError(f"{said} takes each value once. Named twice: {named}.")
    return made


def called(kind: type[Any]) -> str:
    """What a class of settings is called where they are bound: options by the command, others as they are.

    Example:
        >>> class RunOptions: ...
        >>> called(RunOptions)
        'run'
    """
    command = kind.__name__.removesuffix("Options")
    return kind.__name__ if command == kind.__name__ else command.lower()


@cache
def settings_of(kind: type[Any]) -> dict[str, Setting]:
    """What is known of each field."""
    return {each.name: each.metadata.get(_ABOUT, Setting()) for each in fields(kind) if each.init}


@cache
def meanings(kind: type[Any]) -> dict[str, str]:
    """What each field means: its sentence in the `Args:` of the docstring of the class, or of those above."""
    _, _, told = inspect.cleandoc(kind.__doc__ or "").partition("\nArgs:\n")
    found = {name: text for base in kind.__bases__ for name, text in meanings(base).items()}
    for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", told, re.MULTILINE):
        sentence = re.split(r"\. (?=[A-Z])", " ".join(text.split()))[0].rstrip(".")
        found |= dict.fromkeys(names.split(", "), sentence)
    return found


def default_of(kind: type[Any], name: str) -> Any:
    """What a field is where nothing is said."""
    its = next(each for each in fields(kind) if each.name == name)
    if its.default_factory is not MISSING:
        return its.default_factory()
    return None if its.default is MISSING else its.default


def idle(settings: Any) -> dict[str, str]:
    """Fields that have no effect beside the others, each with what it counts for."""
    found = {}
    for name, told in settings_of(type(settings)).items():
        for other, values in (told.only or {}).items():
            has = getattr(settings, other)
            if not any(each in values for each in (has if isinstance(has, tuple | list) else (has,))):
                found[name] = counts(told)
    return found


def counts(told: Setting) -> str:
    """When a setting counts, or nothing where it always does: "only where optimizer is 'adamw'"."""
    where = [
        f"{other} {'has' if other.endswith('s') and other != 'bases' else 'is'} {_or(map(repr, values))}"
        for other, values in (told.only or {}).items()
    ]
    return f"only where {' and '.join(where)}" if where else ""


def taken(kind: type[Any], name: str) -> str:
    """What a field takes, in words.

    Example:
        >>> from residual.adapters import FitSettings
        >>> taken(FitSettings, "warmup"), taken(FitSettings, "or_start")
        ('a number, at least 0 and below 1', 'True or False')
    """
    told = settings_of(kind)[name]
    return told.takes or _words(_parts(_types(kind)[name]), told)


@dataclass(frozen=True)
class Listed:
    """A setting as it is listed: its whole name, what it takes and means, when it counts, its value and from
    where that is.
    """

    name: str
    takes: str
    about: str
    counts: str
    default: Any
    source: str
    value: Any
    place: str


def listed(
    kind: type[Any], values: Mapping[str, Any] | None = None, places: Mapping[str, str] | None = None
) -> list[Listed]:
    """All settings of a class; `values` that aren't the defaults, with the `places` that they are from."""
    rows = []
    for name, told in settings_of(kind).items():
        default = default_of(kind, name)
        value, place = (values or {}).get(name, default), (places or {}).get(name, told.source)
        about = taken(kind, name), meanings(kind).get(name, ""), counts(told)
        rows.append(Listed(f"{called(kind)}.{name}", *about, default, told.source, value, place))
    return rows


_WRONG = object()


@cache
def _types(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _parts(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _made(value: Any, parts: Sequence[Any]) -> Any:
    """The value as one of some types has it, or `_WRONG`."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # of numpy or torch
        value = value.item()
    for part in parts:
        origin, inner = typing.get_origin(part) or part, typing.get_args(part)[:1]
        if origin in (tuple, list):
            if isinstance(value, tuple | list):
                made = [_made(each, _parts(inner[0]) if inner else (object,)) for each in value]
                return _WRONG if any(each is _WRONG for each in made) else origin(made)
        elif type(value) is origin or origin is object or (origin is float and type(value) is int):
            return value
        elif origin is str and isinstance(value, os.PathLike):
            return os.fspath(value)
    return value if type(value) in parts else _WRONG


def _holds(value: Any, told: Setting) -> bool:
    """Whether a value of the right type is in range."""
    if told.holds is not None:
        return told.holds(value)
    if isinstance(value, tuple | list):
        return all(_holds(each, told) for each in value)
    if isinstance(value, dict):
        return all(_holds(each, told) for each in value.values())
    if isinstance(value, str):
        return not told.choices or value in told.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return (
        (isinstance(value, int) or math.isfinite(value))
        and (told.least is None or value >= told.least)
        and (told.above is None or value > told.above)
        and (told.most is None or value <= told.most)
        and (told.below is None or value < told.below)
    )


def _words(parts: Sequence[Any], told: Setting, many: bool = False) -> str:
    """What is taken of some types; `many`: as what is in a list."""
    said = []
    names = [part if isinstance(part, type) else typing.get_origin(part) or part for part in parts]
    for part, name in zip(parts, names, strict=True):
        if name is str:
            choices = _or(map(repr, told.choices)) if told.choices else ""
            said.append(f"names{', each ' if choices else ''}{choices}" if many else choices or "a text")
        elif name is bool:
            said.append("True or False")
        elif name in (int, float) and not (name is int and float in names):
            one = "whole number" if name is int else "number"
            span, comma = _range(told), "," if told.least is not None and told.most is None else ""
            each = f"{one}s, each" if many and span else f"{one}s" if many else f"a {one}{comma}"
            said.append(f"{each} {span}".rstrip(" ,"))
        elif name in (tuple, list):
            inner = typing.get_args(part)[:1]
            what = _words(_parts(inner[0]), told, many=True) if inner else "values"
            said.append(f"a list of {what}")
        elif name is dict:
            said.append("a dictionary")
    if type(None) in parts:
        said.append("None")
    return _or(said)


def _range(told: Setting) -> str:
    if told.least is not None and told.most is not None:
        return f"from {_number(told.least)} to {_number(told.most)}"
    bounds = {"at least": told.least, "above": told.above, "at most": told.most, "below": told.below}
    return " and ".join(f"{word} {_number(bound)}" for word, bound in bounds.items() if bound is not None)


def _number(bound: float | int) -> str:
    large = isinstance(bound, int) and bound > 2**40 and bound.bit_count() == 1
    return f"2**{bound.bit_length() - 1}" if large else f"{bound:,}"


def _or(words: Any) -> str:
    *first, last = words
    comma = "," if any("," in each for each in first) else ""
    return f"{', '.join(first)}{comma} or {last}" if first else last
