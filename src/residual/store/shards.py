"""The bytes of one shard of an array, as Zarr v3 has them: `sharding_indexed` around `bytes` and `crc32c`.

Zarr reads these, and makes others like them, but too slowly beside an encoder on a GPU (docs/stores.md). A
shard is its chunks, each with its CRC-32C behind it, and then an index of where each chunk is and how long,
with a CRC-32C, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import google_crc32c
import numpy as np

_CRC = 4
_ABSENT = 2**64 - 1


class ChangedByteError(ValueError):
    """A checksum that doesn't fit; `rows` are those of its chunk in the shard, or all for the index."""

    def __init__(self, rows: range):
        super().__init__(f"rows {rows.start} to {rows.stop - 1} hold a changed byte")
        self.rows = rows


class Grid:
    """How a shard of `(rows, *tail)` is cut into chunks of `(chunk_rows, *chunk_tail)`; all divide evenly.

    Args:
        rows: of a whole shard.
        tail: the other axes.
        chunk_rows: of a chunk.
        chunk_tail: the other axes of a chunk.
        dtype: of the numbers, little-endian in the file.
    """

    def __init__(
        self, rows: int, tail: tuple[int, ...], chunk_rows: int, chunk_tail: tuple[int, ...], dtype: str
    ):
        self.rows, self.tail, self.dtype = rows, tail, np.dtype(dtype).newbyteorder("<")
        self.chunk = (chunk_rows, *chunk_tail)
        self.counts = tuple(whole // part for whole, part in zip((rows, *tail), self.chunk, strict=True))
        self.chunk_bytes = math.prod(self.chunk) * self.dtype.itemsize

    @property
    def index_bytes(self) -> int:
        """Of the index at a shard's end."""
        return math.prod(self.counts) * 16 + _CRC

    def pack(self, values: np.ndarray, fill: Any) -> bytearray:
        """The file of a shard of `values (n, *tail)`, with `n` at most `rows`.

        What is missing of the last chunk is `fill`; chunks that would be nothing else aren't there.
        """
        present = -(-len(values) // self.chunk[0]) * math.prod(self.counts[1:])
        each = self.chunk_bytes + _CRC
        data = bytearray(present * each + self.index_bytes)
        index = np.full((math.prod(self.counts), 2), _ABSENT, "<u8")
        for number, at in enumerate(itertools.islice(self._places(), present)):
            start = number * each
            chunk = np.frombuffer(data, self.dtype, math.prod(self.chunk), start).reshape(self.chunk)
            part = values[self._slices(at)]
            if part.shape != self.chunk:
                chunk[len(part) :] = fill
            chunk[: len(part)] = part
            data[start + self.chunk_bytes : start + each] = _crc(chunk)
            index[number] = start, each
        end = present * each
        data[end : end + index.nbytes] = index.tobytes()
        data[end + index.nbytes :] = _crc(index)
        return data

    def unpack(
        self,
        read: Callable[[int, int], bytes | memoryview],
        size: int,
        rows: range,
        layers: Sequence[int] | None = None,
        axis: int = 0,
    ) -> np.ndarray:
        """Some rows of a shard, all of them or some layers.

        Args:
            read: gives the bytes of the file from a place on, so many.
            size: of the file.
            rows: which, in the shard.
            layers: which, ascending; None for all there is.
            axis: of the layers in `tail`.

        Raises:
            ChangedByteError: a chunk that is needed, or the index, isn't what was written.
        """
        index = self._index(read, size)
        tail = self.tail if layers is None else (*self.tail[:axis], len(layers), *self.tail[axis + 1 :])
        result = np.empty((len(rows), *tail), self.dtype)
        wanted = [
            (number, at)
            for number, at in enumerate(self._places())
            if at[0] * self.chunk[0] < rows.stop and rows.start < (at[0] + 1) * self.chunk[0]
            if layers is None or any(layer // self.chunk[axis + 1] == at[axis + 1] for layer in layers)
        ]
        for run in _runs(wanted, index):
            first, last = run[0][0], run[-1][0]
            begin = int(index[first, 0])
            data = read(begin, int(index[last, 0] + index[last, 1]) - begin)
            for number, at in run:
                start = int(index[number, 0]) - begin
                inside = range(at[0] * self.chunk[0], (at[0] + 1) * self.chunk[0])
                if len(data) < start + self.chunk_bytes + _CRC:
                    raise ChangedByteError(inside)
                chunk = np.frombuffer(data, self.dtype, math.prod(self.chunk), start).reshape(self.chunk)
                if data[start + self.chunk_bytes : start + self.chunk_bytes + _CRC] != _crc(chunk):
                    raise ChangedByteError(inside)
                low, high = max(rows.start, inside.start), min(rows.stop, inside.stop)
                part = chunk[low - inside.start : high - inside.start]
                where: list[Any] = [slice(low - rows.start, high - rows.start), *self._slices(at)[1:]]
                if layers is not None:
                    held = where[axis + 1]
                    where[axis + 1] = [i for i, layer in enumerate(layers) if held.start <= layer < held.stop]
                    part = part.take([layers[i] - held.start for i in where[axis + 1]], axis + 1)
                result[tuple(where)] = part
        return result

    def _index(self, read: Callable[[int, int], bytes | memoryview], size: int) -> np.ndarray:
        count = math.prod(self.counts)
        data = read(size - self.index_bytes, self.index_bytes) if size >= self.index_bytes else b""
        if len(data) != self.index_bytes:
            raise ChangedByteError(range(self.rows))
        index = np.frombuffer(data, "<u8", 2 * count).reshape(count, 2)
        if data[index.nbytes :] != _crc(index):
            raise ChangedByteError(range(self.rows))
        return index

    def _places(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*map(range, self.counts))

    def _slices(self, at: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(slice(i * part, (i + 1) * part) for i, part in zip(at, self.chunk, strict=True))


def _runs(
    wanted: list[tuple[int, tuple[int, ...]]], index: np.ndarray
) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
    """Chunks that stand one behind the other are read at once."""
    run: list[tuple[int, tuple[int, ...]]] = []
    for number, at in wanted:
        if run and index[number, 0] != index[run[-1][0]].sum():
            yield run
            run = []
        run.append((number, at))
    if run:
        yield run


def _crc(values: np.ndarray) -> bytes:
    return google_crc32c.value(np.ascontiguousarray(values).reshape(-1).view("u1")).to_bytes(_CRC, "little")
