"""Units and their weights as words of a command: `7.2,mlp.3`, `7.2=0.5`, `7.2:0=0.5`."""

from __future__ import annotations

from collections.abc import Sequence

from residual.errors import ResidualError


def units(words: Sequence[str] | None) -> list[str]:
    """Names of units, several in a word behind commas."""
    return [name.strip() for word in words or () for name in word.split(",") if name.strip()]


def numbers(words: Sequence[str] | None) -> dict[str, float]:
    """Numbers by name, `NAME=NUMBER`.

    Raises:
        ResidualError: a word is of another form.
    """
    return dict(_number(word, "7.2=0.5") for word in units(words))


def numbers_by_component(words: Sequence[str] | None) -> dict[str, dict[str, float]]:
    """Numbers by unit and component, `NAME:INDEX=NUMBER`.

    Raises:
        ResidualError: a word is of another form.
    """
    found: dict[str, dict[str, float]] = {}
    for word in units(words):
        name, value = _number(word, "7.2:0=0.5")
        unit, colon, component = name.rpartition(":")
        if not colon:
            raise ResidualError(f"A component has the form 7.2:0=0.5, got {word!r:.60}.")
        found.setdefault(unit, {})[component] = value
    return found


def _number(word: str, form: str) -> tuple[str, float]:
    name, equals, value = word.partition("=")
    try:
        return (name.strip(), float(value)) if equals else (name, float(""))
    except ValueError:
        raise ResidualError(f"A weight has the form {form}, got {word!r:.60}.") from None
