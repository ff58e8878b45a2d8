"""Labels as people have them (names, numbers of any library), made class numbers and names of classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from residual.data.dataset import MOST_CLASSES
from residual.errors import ResidualError, unknown_name
from residual.finite import plain
from residual.texts import distinct, folded, why_no_name


def numbered(
    values: Iterable[Any], names: Sequence[str] | None, where: str, what: str = "label"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers `(n,)` int64 and the names of the classes.

    Texts are numbered by `names`, or else by their sorted names, those that look the same as one. Whole
    numbers stay as they are; without `names` the classes are "class 0" up to the largest.

    Args:
        values: one a sample: whole numbers or texts, of Python, NumPy, pandas or torch (on a GPU, too).
        names: of the classes, if they are known.
        where: names the source in errors.
        what: they are, a "label" or a "group".

    Raises:
        ResidualError: they are neither (one-hot rows, fractions, nothing), of no class, or no names.

    Example:
        >>> from residual.data.labels import numbered
        >>> numbered(["cat", "ant", "cat"], None, "mine")
        (array([1, 0, 1]), ('ant', 'cat'))
    """
    listed = [plain(one) for one in plain(values)]
    names = None if names is None else tuple(map(str, names))
    texts = [isinstance(one, str) for one in listed]
    if listed and all(texts):
        return _of_texts(listed, names, where, what)
    odd = [place for place, one in enumerate(listed) if not isinstance(one, int)]
    if odd:
        place = next((place for place in odd if not texts[place]), odd[0])
        raise ResidualError(*_why_not(listed[place], place, where, what))
    if listed and (min(listed) < 0 or (names is None and max(listed) >= MOST_CLASSES)):
        wrong = next(one for one in listed if not 0 <= one < MOST_CLASSES)
        raise ResidualError(
            f"{where}: the {what} of sample {listed.index(wrong)} is {wrong}; class numbers are from 0 to "
            f"{MOST_CLASSES - 1:,}.",
            "Leave out samples that have none, and number the others anew or give names in place of numbers.",
        )
    numbers = np.array(listed, np.int64)
    if names is None:
        kind = "class" if what == "label" else what
        names = tuple(f"{kind} {number}" for number in range(int(numbers.max(initial=-1)) + 1))
    if (wrong := np.flatnonzero(numbers >= len(names))).size:
        raise ResidualError(
            f"{where}: the {what} of sample {wrong[0]} is {numbers[wrong[0]]}; there are names for 0 to "
            f"{len(names) - 1}."
        )
    return numbers, names


def _of_texts(
    texts: Sequence[str], names: Sequence[str] | None, where: str, what: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    if names is None:
        names = tuple(distinct(" ".join(text.split()) for text in set(texts)))
        for name in names:
            if why := why_no_name(name):
                raise ResidualError(f"{where}: the {what} {name!r} {why}.")
    number = {folded(name): index for index, name in enumerate(names)}
    if len(number) < len(names):
        raise ResidualError(f"{where}: {what}s that are texts need names that differ; got {list(names)}.")
    for text in dict.fromkeys(texts):
        if folded(text) not in number:
            raise unknown_name(f"{what} of {where}", text, names)
    return np.array([number[folded(text)] for text in texts], np.int64), tuple(names)


def _why_not(one: Any, place: int, where: str, what: str) -> tuple[str, str]:
    """Message and hint for what is no label."""
    begin = f"{where}: the {what} of sample {place}"
    if isinstance(one, list | tuple):
        hint = "Of one-hot rows take the column of the 1: labels.argmax(1)."
        return f"{begin} is a row of {len(one)} numbers; every sample has one {what}.", hint
    if isinstance(one, float) and one.is_integer():
        return f"{begin} is {one}, a fraction's number.", "Make them whole numbers: labels.astype(int)."
    if isinstance(one, str):
        return f"{begin} is {one!r}, where others are no texts: all are, or all are whole numbers.", ""
    shown = "missing" if one is None or one != one else repr(one)
    return f"{begin} is {shown}; wanted is a whole number or a text for each.", ""
