"""The ids of a store of many samples: they look like a tuple of texts, and are read as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import eq, index
from typing import Any, SupportsIndex, overload

import numpy as np

from residual.errors import DamagedStoreError
from residual.store.positions import Positions
from residual.store.whole import WholeArray, WholeFiles

MOST_IN_MEMORY = 2**20  # ids, of which a store makes a tuple
_BLOCK = 2**16  # ids whose bytes are read at once
_KEPT = 8  # blocks


class IdTexts:
    """Every sample's id, as a store keeps them: their bytes one after another, and where each ends.

    Args:
        files: of the store.
        samples: how many there are.
    """

    def __init__(self, files: WholeFiles, samples: int):
        self._files = files
        self._ends = WholeArray(files, "sample_id_end", samples)
        self._texts: WholeArray | None = None
        self._blocks: dict[int, tuple[list[int], bytes]] = {}

    def of(self, positions: np.ndarray) -> list[str]:
        """Of some samples, in their order.

        Raises:
            DamagedStoreError: they aren't what was written.
        """
        found: list[str] = []
        numbers = positions // _BLOCK
        for part in np.split(positions, np.flatnonzero(np.diff(numbers)) + 1) if len(positions) else ():
            block = int(part[0]) // _BLOCK
            ends, text = self._block(block)
            for place in (part - block * _BLOCK).tolist():
                found.append(text[ends[place] : ends[place + 1]].decode(errors="surrogateescape"))
        return found

    def _block(self, number: int) -> tuple[list[int], bytes]:
        """Where each of some ids begins in their bytes, with the end of the last; and those."""
        if (held := self._blocks.get(number)) is not None:
            return held
        n = len(self._ends)
        start, stop = number * _BLOCK, min((number + 1) * _BLOCK, n)
        ends = self._ends.read(range(max(0, start - 1), stop))
        ends = ends if start else np.r_[0, ends]
        if ends[0] < 0 or (np.diff(ends) < 0).any():
            raise DamagedStoreError(f"{self._files.where('sample_id_end')} holds no places in a text.")
        if self._texts is None:
            (last,) = self._ends.read(range(n - 1, n)).tolist()
            self._texts = WholeArray(self._files, "sample_id", max(0, last))
        if ends[-1] > len(self._texts):
            raise DamagedStoreError(f"{self._files.where('sample_id_end')} holds no places in a text.")
        text = self._texts.read(range(int(ends[0]), int(ends[-1]))).tobytes()
        held = (ends - ends[0]).tolist(), text
        for oldest in list(self._blocks)[: -_KEPT + 1]:  # several threads may be at it
            self._blocks.pop(oldest, None)
        self._blocks[number] = held
        return held


class SampleIds(Sequence[str]):
    """The ids of the samples that are in a store, read as they are asked for.

    It is equal to the tuple of the same texts, and has that one's hash; a slice is a tuple, and so is what is
    pickled.

    Args:
        texts: of all samples.
        positions: of those that are in the store.
    """

    def __init__(self, texts: IdTexts, positions: Positions):
        self._texts, self._positions = texts, positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, which: SupportsIndex) -> str: ...

    @overload
    def __getitem__(self, which: slice) -> tuple[str, ...]: ...

    def __getitem__(self, which: SupportsIndex | slice) -> str | tuple[str, ...]:
        if isinstance(which, slice):
            return tuple(self._texts.of(self._positions[which]))
        return self._texts.of(self._positions[[index(which)]])[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            yield from self[start : start + _BLOCK]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | SampleIds):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __add__(self, other: Sequence[str]) -> tuple[str, ...]:
        return (*self, *other) if isinstance(other, tuple | SampleIds) else NotImplemented

    def __radd__(self, other: Sequence[str]) -> tuple[str, ...]:
        return (*other, *self) if isinstance(other, tuple) else NotImplemented

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return tuple, (list(self),)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:2])) + ", …" * (len(self) > 2)
        return f"<{len(self):,} sample ids: {shown}>"
