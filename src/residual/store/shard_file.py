"""The bytes of one shard of one array: its chunks, each with its CRC-32C behind it, and where each is.

These are the bytes of Zarr v3's `sharding_indexed` around `bytes` and `crc32c`. The chunks' checksums, listed
elsewhere, tell whether a file is that of its store, array and place, at no further reading.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np

_CRC = 4
_ABSENT = 2**64 - 1

# Several pieces of a file, each so many bytes from a place on, asked for at once; shorter where it ends.
Read = Callable[[Sequence[tuple[int, int]]], Sequence[bytes | memoryview]]


class BadChunkError(ValueError):
    """A chunk that isn't what was written; `rows` are those of it in the shard, or all for the index."""

    reason = "holds a changed byte"

    def __init__(self, rows: range):
        super().__init__(f"rows {rows.start} to {rows.stop - 1}: {self.reason}")
        self.rows = rows


class ForeignChunkError(BadChunkError):
    """A whole chunk, of another place, array or store."""

    reason = "isn't the file that was written, but one like it"


@dataclass(frozen=True)
class ShardedArray:
    """One array `(samples, *tail)`: how its shards are cut into chunks, which divide them evenly.

    Args:
        rows: samples of a whole shard.
        tail: the axes behind that of samples.
        dtype: of the numbers, little-endian in the file.
        chunk_rows: samples of a chunk.
        chunk_tail: the other axes of a chunk.
        layer_axis: which axis of `tail` is that of layers, if any.
    """

    rows: int
    tail: tuple[int, ...]
    dtype: str
    chunk_rows: int
    chunk_tail: tuple[int, ...]
    layer_axis: int | None = None

    @property
    def chunk(self) -> tuple[int, ...]:
        """The shape of a chunk."""
        return (self.chunk_rows, *self.chunk_tail)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many chunks there are along each axis of a whole shard."""
        return tuple(whole // part for whole, part in zip((self.rows, *self.tail), self.chunk, strict=True))

    @property
    def chunk_bytes(self) -> int:
        """Of a chunk, without its checksum."""
        return bytes_of(self.chunk, self.dtype)

    @property
    def index_bytes(self) -> int:
        """Of the index at a shard's end."""
        return math.prod(self.counts) * 16 + _CRC

    def chunks_of(self, n: int) -> int:
        """How many chunks the file of `n` samples has."""
        return -(-n // self.chunk_rows) * math.prod(self.counts[1:])

    def size_of(self, n: int) -> int:
        """Bytes of the file of `n` samples."""
        return self.chunks_of(n) * (self.chunk_bytes + _CRC) + self.index_bytes

    def pack(self, values: np.ndarray) -> bytearray:
        """The file of a shard of `values (n, *tail)`, with `n` at most `rows`.

        What is missing of the last chunk is filled; chunks that would be nothing else aren't there.
        """
        count, each = self.chunks_of(len(values)), self.chunk_bytes + _CRC
        data = bytearray(self.size_of(len(values)))
        index = self._packed_index(len(data))
        for number, place in enumerate(itertools.islice(self._places(), count)):
            start = number * each
            chunk = self._chunk_in(data, start)
            part = values[self._slices(place)]
            chunk[len(part) :] = fill_of(np.dtype(self.dtype))
            chunk[: len(part)] = part
            data[start + self.chunk_bytes : start + each] = _crc(chunk)
        data[count * each : -_CRC] = index.tobytes()
        data[-_CRC:] = _crc(index)
        return data

    def checksums(self, packed: bytes | bytearray) -> str:
        """The chunks' CRC-32C in what `pack` made, in their order, eight hex digits each."""
        each = self.chunk_bytes + _CRC
        ends = range(each, len(packed) - self.index_bytes + 1, each)
        return b"".join(packed[end - _CRC : end] for end in ends).hex()

    def unpack(
        self,
        read: Read,
        size: int,
        rows: range,
        layers: Sequence[int] | None = None,
        checksums: str | None = None,
        indexed: bool = True,
    ) -> np.ndarray:
        """Some rows of a shard, all of them or some layers.

        Args:
            read: gives pieces of the file.
            size: of the file.
            rows: which, in the shard.
            layers: which, ascending; None for all there is.
            checksums: of the chunks, from `checksums`; None where they aren't known.
            indexed: look into the index; else chunks are where `pack` puts them, and `checksums` tell if not.

        Raises:
            BadChunkError: a chunk that is needed, or the index, isn't what was written.
        """
        index = self._index(read, size) if indexed else self._packed_index(size)
        axis = None if layers is None or self.layer_axis is None else self.layer_axis + 1
        shape = [len(rows), *self.tail]
        if layers is not None and axis is not None:
            shape[axis] = len(layers)
        wanted = self._wanted(rows, layers, axis)
        if (index[[number for number, _ in wanted], 0] == _ABSENT).any():
            raise BadChunkError(range(self.rows))
        result = np.empty(shape, self.dtype)
        runs = list(self._runs(wanted, index))
        ends = [(int(index[run[0][0], 0]), int(index[run[-1][0]].sum())) for run in runs]
        pieces = read([(begin, end - begin) for begin, end in ends])
        for run, (begin, _), data in zip(runs, ends, pieces, strict=True):
            for number, place in run:
                inside = self._slices(place)
                at, known = int(index[number, 0] - begin), _listed(checksums, number)
                chunk = self._checked_chunk(data, at, range(inside[0].start, inside[0].stop), known)
                low, high = max(rows.start, inside[0].start), min(rows.stop, inside[0].stop)
                part = chunk[low - inside[0].start : high - inside[0].start]
                target: list[Any] = [slice(low - rows.start, high - rows.start), *inside[1:]]
                if layers is not None and axis is not None:
                    of_chunk = range(inside[axis].start, inside[axis].stop)
                    target[axis] = [at for at, layer in enumerate(layers) if layer in of_chunk]
                    part = part.take([layers[at] - of_chunk.start for at in target[axis]], axis)
                result[tuple(target)] = part
        return result

    def _wanted(
        self, rows: range, layers: Sequence[int] | None, axis: int | None
    ) -> list[tuple[int, tuple[int, ...]]]:
        """The chunks that hold any of it, by number and place in the grid."""
        first, last = rows.start // self.chunk_rows, (rows.stop - 1) // self.chunk_rows
        places = itertools.product(range(first, last + 1), *map(range, self.counts[1:]))
        chunks = list(enumerate(places, start=first * math.prod(self.counts[1:])))
        if layers is None or axis is None:
            return chunks
        among = {layer // self.chunk[axis] for layer in layers}
        return [(number, place) for number, place in chunks if place[axis] in among]

    def _index(self, read: Read, size: int) -> np.ndarray:
        """`(chunks, 2)`: where each is and how long, or absent; nothing in it leads out of the file."""
        [data] = read([(size - self.index_bytes, self.index_bytes)]) if size >= self.index_bytes else [b""]
        if len(data) != self.index_bytes:
            raise BadChunkError(range(self.rows))
        index = np.frombuffer(data, "<u8", (self.index_bytes - _CRC) // 8).reshape(-1, 2)
        there, each = index[index[:, 0] != _ABSENT], self.chunk_bytes + _CRC
        outside = (there[:, 1] != each).any() or (there[:, 0] > max(0, size - self.index_bytes - each)).any()
        if outside or data[-_CRC:] != _crc(index):
            raise BadChunkError(range(self.rows))
        return index

    def _packed_index(self, size: int) -> np.ndarray:
        """As `pack` makes it, for a file of that size."""
        each = self.chunk_bytes + _CRC
        count = (size - self.index_bytes) // each
        index = np.full((math.prod(self.counts), 2), _ABSENT, "<u8")
        index[:count, 0], index[:count, 1] = np.arange(count) * each, each
        return index

    def _checked_chunk(
        self, data: bytes | memoryview, start: int, rows: range, known: str | None
    ) -> np.ndarray:
        end = start + self.chunk_bytes
        if len(data) < end + _CRC:
            raise BadChunkError(rows)
        chunk, checksum = self._chunk_in(data, start), data[end : end + _CRC]
        if checksum != _crc(chunk):
            raise BadChunkError(rows)
        if known is not None and checksum.hex() != known:
            raise ForeignChunkError(rows)
        return chunk

    def _chunk_in(self, data: bytes | bytearray | memoryview, start: int) -> np.ndarray:
        little = np.dtype(self.dtype).newbyteorder("<")
        return np.frombuffer(data, little, math.prod(self.chunk), start).reshape(self.chunk)

    def _places(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*map(range, self.counts))

    def _slices(self, place: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(slice(i * part, (i + 1) * part) for i, part in zip(place, self.chunk, strict=True))

    @staticmethod
    def _runs(
        wanted: list[tuple[int, tuple[int, ...]]], index: np.ndarray
    ) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
        """Chunks that stand one behind the other are read at once."""
        run: list[tuple[int, tuple[int, ...]]] = []
        for number, place in wanted:
            if run and index[number, 0] != index[run[-1][0]].sum():
                yield run
                run = []
            run.append((number, place))
        if run:
            yield run


def in_memory(data: bytes) -> Read:
    """Gives pieces of a file that was read whole."""
    return lambda pieces: [data[start : start + count] for start, count in pieces]


def _listed(checksums: str | None, number: int) -> str | None:
    """That of one chunk, where they are known."""
    return checksums[8 * number : 8 * number + 8] if checksums else None


def bytes_of(shape: tuple[int, ...], dtype: str) -> int:
    """Of an array."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def fill_of(dtype: np.dtype) -> float | int:
    """What zarr gives where there is no file: nothing that coordinates, labels or digests can be."""
    if dtype.kind == "f":
        return math.nan
    return -1 if dtype.kind == "i" else int(np.iinfo(dtype).max)


def _crc(values: np.ndarray) -> bytes:
    return google_crc32c.value(np.ascontiguousarray(values).reshape(-1).view("u1")).to_bytes(_CRC, "little")
