"""What is asked for, as an address has it (from anyone): checked, or one sentence on it."""

from __future__ import annotations

from residual.errors import ResidualError, unknown_name
from residual.workflows.exploration.parts import Parts

LONGEST = 500  # letters of a text that is typed


def unit_of(parts: Parts, name: str) -> int:
    """The position of a unit that the store keeps.

    Raises:
        ResidualError: there is no such unit, or the store doesn't keep its kind.
    """
    unit = parts.units.named(name)
    if (kind := parts.units.kind(unit)) not in parts.store.kinds:
        raise ResidualError(
            f"{parts.store.dataset} was encoded without units of kind {kind}: it keeps "
            f"{', '.join(parts.store.kinds)}."
        )
    return unit


def within(number: int, what: str, least: int, most: int) -> int:
    """A number within bounds.

    Raises:
        ResidualError: it is beyond them.
    """
    if not least <= number <= most:
        raise ResidualError(f"{what} is from {least} to {most:,}, got {number:,}.")
    return number


def position_of(parts: Parts, value: int) -> int:
    """The place of a sample in the store.

    Raises:
        ResidualError: there is none.
    """
    return within(value, "A picture's place in the store", 0, len(parts.store) - 1)


def class_of(parts: Parts, value: int) -> int:
    """The number of a class.

    Raises:
        ResidualError: there is none.
    """
    return within(value, "The number of a class", 0, len(parts.store.class_names) - 1)


def text_of(value: str) -> str:
    """A text that someone typed, without what is around it.

    Raises:
        ResidualError: there is nothing in it, or too much.
    """
    text = " ".join(value.split())
    if not text:
        raise ResidualError("There is no text to look for: type a word or a few.")
    if len(text) > LONGEST:
        raise ResidualError(f"A text may have {LONGEST} letters, got {len(text):,}.")
    return text


def one_of(value: str, what: str, known: tuple[str, ...]) -> str:
    """A value that is one of a few.

    Raises:
        ResidualError: it isn't.
    """
    if value not in known:
        raise unknown_name(what, value, known)
    return value
