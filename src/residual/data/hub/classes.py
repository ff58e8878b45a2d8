"""From a source's classes to ours: the same names in our order, however the source spells and orders them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from residual.data.hub.catalogue import Classes
from residual.errors import ResidualError

ODD = 0.05  # of the names may be spelt as we don't know, where all others are at their places


def plain(name: str) -> str:
    """A class name without what sources write differently: case, spaces, signs, SUN397's `/a/` in front."""
    head, _, tail = name.lstrip("/").partition("/")
    return "".join(c for c in (tail if len(head) == 1 and tail else name).lower() if c.isalnum())


def matched(names: Sequence[str], classes: Classes, where: str) -> np.ndarray:
    """Our number `(c,)` of each of a source's classes.

    The source's names are ours in any order and in one of the spellings that we know, or the numbers of the
    classes; where all but a few are at their places, those few are taken for other spellings.

    Raises:
        ResidualError: they aren't; it says which names are on one side only.
    """
    given = [plain(name) for name in names]
    known = [[plain(name) for name in spelling] for spelling in (classes.names, *classes.spellings)]
    in_place = np.arange(len(given))
    for ours in known:
        if len(set(ours)) == len(ours) == len(given) and set(ours) == set(given):
            number = {name: index for index, name in enumerate(ours)}
            return np.array([number[name] for name in given])
    if len(given) == len(classes.names) and given == [str(index) for index in in_place]:
        return in_place
    for ours in known:
        if len(ours) != len(given):
            continue
        odd = [index for index in in_place if ours[index] != given[index]]
        elsewhere = set(ours).intersection(given[index] for index in odd)
        if len(odd) <= ODD * len(given) and not elsewhere:
            return in_place
    nearest = max(known, key=lambda ours: len(set(ours) & set(given)))
    theirs = [name for name in names if plain(name) not in nearest]
    missing = [classes.names[index] for index, name in enumerate(nearest) if name not in given]
    raise ResidualError(
        f"{where} has other classes than ours ({len(names)} there, {len(classes.names)} here): only there "
        f"{_few(theirs)}; only here {_few(missing)}. Load it as hf:REPOSITORY to use its own."
    )


def _few(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
