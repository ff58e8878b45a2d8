"""What looking through a store found, and what that says of the shards that weren't looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from residual.errors import ResidualError
from residual.finite import whole


@dataclass(frozen=True)
class Damage:
    """A file that isn't what was written, the samples whose numbers it spoils, and what is wrong."""

    file: str
    samples: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        ids = self.samples
        spoilt = f" Spoilt: {len(ids)} samples, {ids[0]!r} to {ids[-1]!r}." if ids else ""
        return f"{self.file} {self.reason}.{spoilt}"


class Verified(list[Damage]):
    """The damages of a store, none where it is whole as far as it was looked at.

    Args:
        damages: that were found.
        shards: the numbers of the shards that were read.
        of: how many the store has.
        bad: those of `shards` that are damaged.

    Example:
        >>> from residual.store.damage import Verified
        >>> Verified([], range(0, 10_000, 100), 10_000, []).shown.split(": ")[1]
        'with 95 % certainty fewer than 3 % of all are (the rule of three, 3 / 100).'
    """

    def __init__(self, damages: Iterable[Damage], shards: Sequence[int], of: int, bad: Sequence[int]):
        super().__init__(damages)
        self.shards, self.of, self.bad = tuple(shards), of, tuple(bad)

    @property
    def shown(self) -> str:
        """What was looked at, and what that shows, in two sentences; nothing where it was everything."""
        n = len(self.shards)
        if n == self.of:
            return ""
        read = f"{n:,} of {self.of:,} shards were read, chosen at random, and all that isn't of coordinates. "
        if self.bad:
            return f"{read}{len(self.bad):,} of them are damaged; the others of the store may be, too."
        if n <= 3:
            return f"{read}None of them is damaged, which says nothing of so many others."
        most = f"with 95 % certainty fewer than {300 / n:.2g} % of all are (the rule of three, 3 / {n:,})"
        return f"{read}None of them is damaged: {most}."


def chosen(shards: Sequence[int], sample: int | None, seed: int) -> list[int]:
    """So many shards at random, ascending; all by default, and where there are no more.

    Raises:
        ResidualError: `sample` or `seed` is no such number.
    """
    if sample is None:
        return sorted(shards)
    try:
        number, generator = whole(sample), np.random.default_rng(whole(seed))
    except (TypeError, ValueError):
        raise ResidualError(f"sample and seed are whole numbers, got {sample!r} and {seed!r}.") from None
    if number < 1:
        raise ResidualError(f"A sample has one shard or more, got {number}.")
    if number >= len(shards):
        return sorted(shards)
    return np.sort(generator.choice(np.array(sorted(shards)), number, replace=False)).tolist()
