"""The arrays of a store: their shapes, how they are cut into shards and chunks, and the bytes of a shard.

All arrays of samples are cut into shards of the same samples, so that a shard of samples is whole when its
file is there in every array. Inside a shard, chunks are of some samples and layers, of a megabyte at most;
each has its CRC-32C. The files are Zarr v3 (`sharding_indexed` around `bytes` and `crc32c`): a shard is its
chunks, each with its checksum behind it, and then an index of where each chunk is and how long, with a
checksum, too. Zarr reads them, and is slower at a few layers or samples (docs/stores.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np

from residual.store.storage import Storage
from residual.tracing.coordinates import KIND_OF
from residual.tracing.linearization import Linearization

SHARD_BYTES = 64 * 2**20  # of coordinates; what a kill loses at most
CHUNK_BYTES = 2**20
MOST_ROWS, MOST_CHUNK_ROWS = 1024, 128
_PER_LAYER = {"z": 3, "mlp": 2}  # and how many axes from the end the layers are
_KEPT_IN_FLOAT32 = ("mean", "std")
_CRC = 4
_ABSENT = 2**64 - 1

Read = Callable[[int, int], bytes | memoryview]  # so many bytes of a file from a place on


class ChangedByteError(ValueError):
    """A checksum that doesn't fit; `rows` are those of its chunk in the shard, or all for the index."""

    def __init__(self, rows: range):
        super().__init__(f"rows {rows.start} to {rows.stop - 1} hold a changed byte")
        self.rows = rows


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

    @classmethod
    def cut(cls, name: str, rows: int, tail: tuple[int, ...], dtype: str) -> ShardedArray:
        """With chunks of a megabyte at most, of all samples first and then of as many layers as fit."""
        most = min(MOST_CHUNK_ROWS, rows)
        if name not in _PER_LAYER:
            return cls(rows, tail, dtype, _power_of_two(CHUNK_BYTES // _bytes(tail, dtype), most), tail)
        axis = len(tail) - _PER_LAYER[name]
        layer = _bytes((*tail[:axis], *tail[axis + 1 :]), dtype)
        chunk_rows = _power_of_two(CHUNK_BYTES // layer, most)
        fit = max(1, CHUNK_BYTES // (chunk_rows * layer))
        layers = max(count for count in range(1, tail[axis] + 1) if tail[axis] % count == 0 and count <= fit)
        return cls(rows, tail, dtype, chunk_rows, (*tail[:axis], layers, *tail[axis + 1 :]), axis)

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
        return _bytes(self.chunk, self.dtype)

    @property
    def index_bytes(self) -> int:
        """Of the index at a shard's end."""
        return math.prod(self.counts) * 16 + _CRC

    def pack(self, values: np.ndarray) -> bytearray:
        """The file of a shard of `values (n, *tail)`, with `n` at most `rows`.

        What is missing of the last chunk is filled; chunks that would be nothing else aren't there.
        """
        count = -(-len(values) // self.chunk_rows) * math.prod(self.counts[1:])
        each = self.chunk_bytes + _CRC
        data = bytearray(count * each + self.index_bytes)
        index = np.full((math.prod(self.counts), 2), _ABSENT, "<u8")
        for number, place in enumerate(itertools.islice(self._places(), count)):
            start = number * each
            chunk = self._chunk_in(data, start)
            part = values[self._slices(place)]
            chunk[len(part) :] = _fill(np.dtype(self.dtype))
            chunk[: len(part)] = part
            data[start + self.chunk_bytes : start + each] = _crc(chunk)
            index[number] = start, each
        data[count * each : -_CRC] = index.tobytes()
        data[-_CRC:] = _crc(index)
        return data

    def unpack(self, read: Read, size: int, rows: range, layers: Sequence[int] | None = None) -> np.ndarray:
        """Some rows of a shard, all of them or some layers.

        Args:
            read: gives the bytes of the file from a place on, so many.
            size: of the file.
            rows: which, in the shard.
            layers: which, ascending; None for all there is.

        Raises:
            ChangedByteError: a chunk that is needed, or the index, isn't what was written.
        """
        index = self._index(read, size)
        axis = None if layers is None or self.layer_axis is None else self.layer_axis + 1
        shape = [len(rows), *self.tail]
        if layers is not None and axis is not None:
            shape[axis] = len(layers)
        result = np.empty(shape, self.dtype)
        for run in self._runs(self._wanted(rows, layers, axis), index):
            begin, end = index[run[0][0], 0], index[run[-1][0]].sum()
            data = read(int(begin), int(end - begin))
            for number, place in run:
                inside = self._slices(place)
                chunk = self._checked_chunk(data, int(index[number, 0] - begin), inside[0])
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
        chunks = [(number, place) for number, place in enumerate(self._places()) if first <= place[0] <= last]
        if layers is None or axis is None:
            return chunks
        among = {layer // self.chunk[axis] for layer in layers}
        return [(number, place) for number, place in chunks if place[axis] in among]

    def _index(self, read: Read, size: int) -> np.ndarray:
        data = read(size - self.index_bytes, self.index_bytes) if size >= self.index_bytes else b""
        if len(data) != self.index_bytes:
            raise ChangedByteError(range(self.rows))
        index = np.frombuffer(data, "<u8", (self.index_bytes - _CRC) // 8).reshape(-1, 2)
        if data[-_CRC:] != _crc(index):
            raise ChangedByteError(range(self.rows))
        return index

    def _checked_chunk(self, data: bytes | memoryview, start: int, rows: slice) -> np.ndarray:
        end = start + self.chunk_bytes
        if len(data) >= end + _CRC:
            chunk = self._chunk_in(data, start)
            if data[end : end + _CRC] == _crc(chunk):
                return chunk
        raise ChangedByteError(range(rows.start, rows.stop))

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


@dataclass(frozen=True)
class Layout:
    """All arrays of a store.

    Args:
        samples: `n`, of the whole split.
        rows: samples of a shard.
        arrays: by name.
    """

    samples: int
    rows: int
    arrays: dict[str, ShardedArray]

    @classmethod
    def of(
        cls,
        linearization: Linearization,
        tokens: int | None,
        kinds: Sequence[str],
        samples: int,
        dtype: str,
    ) -> Layout:
        """For the coordinates of an encoder.

        Args:
            linearization: tells widths.
            tokens: how many are kept of each sample, where there is a token axis.
            kinds: of unit.
            samples: `n`.
            dtype: of `z`, `mlp`, `emb`: "float16" or "float32".
        """
        of = linearization
        axis = (of.pool_heads,) if of.units.pool_mlp else () if tokens is None else (tokens,)
        tails: dict[str, tuple[int, ...]] = {
            "z": (*axis, of.units.layers, of.units.heads, of.head_width),
            "mlp": (*axis, of.units.layers, of.width),
            "emb": (*axis, of.width),
            "mean": axis,
            "std": axis,
        }
        if of.units.pool_mlp:
            tails["pool_mlp"] = (of.width,)
        tails = {name: tail for name, tail in tails.items() if KIND_OF.get(name) in (None, *kinds)}
        dtypes = {name: "float32" if name in _KEPT_IN_FLOAT32 else dtype for name in tails}
        each = sum(_bytes(tail, dtypes[name]) for name, tail in tails.items())
        rows = _power_of_two(SHARD_BYTES // each, MOST_ROWS)
        while rows // 2 >= samples:  # no larger than needed
            rows //= 2
        arrays = {name: ShardedArray.cut(name, rows, tail, dtypes[name]) for name, tail in tails.items()}
        arrays["digest"] = ShardedArray(rows, (), "uint64", rows, ())
        return cls(samples, rows, arrays)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.samples // self.rows)

    def samples_of(self, shard: int) -> range:
        """The samples of a shard."""
        return range(shard * self.rows, min((shard + 1) * self.rows, self.samples))

    def file(self, name: str, shard: int) -> str:
        """The file of a shard of an array."""
        return f"{name}/c/{shard}" + "/0" * len(self.arrays[name].tail)

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        arrays = {
            name: {"shape": [self.samples, *array.tail], "dtype": array.dtype, "chunk": list(array.chunk)}
            for name, array in self.arrays.items()
        }
        return {"samples": self.samples, "samples_per_shard": self.rows, "arrays": arrays}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Layout:
        """Read what `as_json` made."""
        rows, arrays = content["samples_per_shard"], {}
        for name, about in content["arrays"].items():
            tail, chunk = tuple(about["shape"][1:]), about["chunk"]
            axis = len(tail) - _PER_LAYER[name] if name in _PER_LAYER else None
            arrays[name] = ShardedArray(rows, tail, about["dtype"], chunk[0], tuple(chunk[1:]), axis)
        return cls(content["samples"], rows, arrays)


def zarr_files(layout: Layout, whole: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """What isn't of samples, made by zarr in memory: the description of every array, and the `whole` arrays,
    each in one shard.
    """
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3)

    def create(name: str, shape: Any, dtype: str, shard: Any, chunk: Any) -> Any:
        return group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            shards=shard,
            chunks=chunk,
            compressors=[Crc32cCodec()],
            fill_value=_fill(np.dtype(dtype)),
            config={"write_empty_chunks": True},
        )

    for name, array in layout.arrays.items():
        create(name, (layout.samples, *array.tail), array.dtype, (array.rows, *array.tail), array.chunk)
    for name, values in whole.items():
        chunk = max(1, min(len(values), 2**16))
        shard = -(-max(1, len(values)) // chunk) * chunk
        create(name, values.shape, str(values.dtype), (shard,), (chunk,))[...] = values
    return {name: value.to_bytes() for name, value in files.items()}


def read_with_zarr(storage: Storage, name: str) -> np.ndarray:
    """An array of the store, as zarr reads it."""
    import zarr

    group: Any = zarr.open_group(storage.zarr(), mode="r", zarr_format=3)
    return group[name][...]


def pack_ids(ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts as two arrays of numbers: their bytes one after another, and where each ends."""
    texts = [text.encode(errors="surrogateescape") for text in ids]
    return {
        "sample_id": np.frombuffer(b"".join(texts), np.uint8),
        "sample_id_end": np.cumsum([len(text) for text in texts], dtype=np.int64),
    }


def unpack_ids(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Read what `pack_ids` made."""
    text, ends = arrays["sample_id"].tobytes(), arrays["sample_id_end"].tolist()
    return [text[a:b].decode(errors="surrogateescape") for a, b in itertools.pairwise([0, *ends])]


def _fill(dtype: np.dtype) -> float | int:
    """What zarr gives where there is no file: nothing that coordinates, labels or digests can be."""
    if dtype.kind == "f":
        return math.nan
    return -1 if dtype.kind == "i" else int(np.iinfo(dtype).max)


def _crc(values: np.ndarray) -> bytes:
    return google_crc32c.value(np.ascontiguousarray(values).reshape(-1).view("u1")).to_bytes(_CRC, "little")


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _power_of_two(wanted: int, most: int) -> int:
    """The largest power of two that is neither above `wanted` nor above `most`, and 1 at least."""
    return 1 << max(0, min(wanted, most).bit_length() - 1)
