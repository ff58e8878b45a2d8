"""Where the samples of a store that could be read are along its arrays, without a list of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

Samples = slice | Sequence[int] | np.ndarray


class Positions:
    """Ascending whole numbers, kept as runs of neighbours: memory grows with what is left out, not with them.

    Args:
        runs: of neighbours, ascending, none within another.
        without: those of them that are left out, in any order.

    Example:
        >>> from residual.store.positions import Positions
        >>> positions = Positions([range(0, 4), range(8, 12)], without=[2])
        >>> len(positions), positions[[0, 2, -1]].tolist(), positions[4:].tolist()
        (7, [0, 3, 11], [9, 10, 11])
    """

    def __init__(self, runs: Sequence[range], without: Collection[int] = ()):
        starts = np.array([run.start for run in runs], np.int64)
        stops = np.array([run.stop for run in runs], np.int64)
        starts, stops = _joined(starts, stops)
        holes = np.fromiter(without, np.int64, len(without))
        self._starts, stops = _joined(np.r_[starts, holes + 1], np.r_[stops, holes])
        self._ends = np.cumsum(stops - self._starts)  # how many there are up to the end of each run

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, which: Samples) -> np.ndarray:
        """Some of them, int64: a slice, places in any order and more than once, or a mask."""
        chosen = positions_of(which, len(self))
        if isinstance(which, slice) and (which.step or 1) == 1 and len(chosen):
            return self._neighbours(int(chosen[0]), int(chosen[-1]) + 1)
        run = np.searchsorted(self._ends, chosen, side="right")
        begun = np.r_[0, self._ends]
        return self._starts[run] + (chosen - begun[run])

    def within(self, part: range) -> np.ndarray:
        """Those of them that are in a range."""
        first, last = (self._below(end) for end in (part.start, part.stop))
        return self[first:last]

    def _neighbours(self, first: int, last: int) -> np.ndarray:
        """From one place on up to another: run by run, ten times as fast as one by one."""
        runs = slice(np.searchsorted(self._ends, first, side="right"), np.searchsorted(self._ends, last) + 1)
        ends = np.clip(self._ends[runs], first, last)
        lengths = np.diff(ends, prepend=first)
        ahead = self._starts[runs] - np.r_[0, self._ends][runs]  # of a run's numbers to their places
        return np.arange(first, last) + np.repeat(ahead, lengths)

    def _below(self, end: int) -> int:
        """How many of them are below a number."""
        run = int(np.searchsorted(self._starts, end))  # those before it begin below
        if not run:
            return 0
        begun = int(self._ends[run - 2]) if run > 1 else 0
        return min(int(self._ends[run - 1]), begun + end - int(self._starts[run - 1]))

    def __repr__(self) -> str:
        return f"Positions({len(self):,} in {len(self._starts):,} runs)"


def _joined(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs that touch as one; one that ends where it begins as none."""
    touching = np.intersect1d(starts, stops)
    return np.setdiff1d(starts, touching), np.setdiff1d(stops, touching)


def positions_of(samples: Samples, n: int) -> np.ndarray:
    """Where some of `n` samples are: a slice, positions in any order and more than once, or a mask.

    Raises:
        IndexError: there is no such sample.
    """
    if isinstance(samples, slice):
        return np.arange(*samples.indices(n))
    chosen = np.asarray(samples)
    if chosen.dtype.kind not in "iu" or not chosen.size:  # masks, what is no number, and nothing
        return np.arange(n)[chosen if chosen.size else chosen.astype(np.int64)]
    if (low := int(chosen.min())) < -n or int(chosen.max()) >= n:
        wrong = low if low < -n else int(chosen.max())
        raise IndexError(f"index {wrong} is out of bounds for axis 0 with size {n}")
    places = chosen.astype(np.int64)
    return np.where(places < 0, places + n, places)
