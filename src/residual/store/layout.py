"""The arrays of a store: their shapes, how they are cut into shards and chunks, and their bytes.

All arrays of samples are cut into shards of the same samples, so that a shard of samples is whole when its
file is there in every array. Inside a shard, chunks are of some samples and layers, of a megabyte at most,
since zarr takes half a millisecond for a chunk of any size. Each has its CRC-32C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from residual.store.shards import Grid
from residual.store.storage import Place
from residual.tracing.coordinates import KIND_OF
from residual.tracing.linearization import Linearization

SHARD_BYTES = 64 * 2**20  # of coordinates; what a kill loses at most
CHUNK_BYTES = 2**20
MOST_ROWS, MOST_CHUNK_ROWS = 1024, 128
_PER_LAYER = {"z": 3, "mlp": 2}  # and how many axes from the end the layers are
_KEPT_IN_FLOAT32 = ("mean", "std")


@dataclass(frozen=True)
class Array:
    """One array: `(samples, *tail)`, with chunks of `(chunk_rows, *chunk_tail)` inside of shards."""

    tail: tuple[int, ...]
    dtype: str
    chunk_rows: int
    chunk_tail: tuple[int, ...]


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
    arrays: dict[str, Array]

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
        arrays = {name: _array(name, tail, dtypes[name], rows) for name, tail in tails.items()}
        arrays["digest"] = Array((), "uint64", rows, ())
        return cls(samples, rows, arrays)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.samples // self.rows)

    def samples_of(self, shard: int) -> range:
        """The samples of a shard."""
        return range(shard * self.rows, min((shard + 1) * self.rows, self.samples))

    def has_layers(self, name: str) -> bool:
        """Whether an array has an axis of layers."""
        return name in _PER_LAYER

    def layer_axis(self, name: str) -> int:
        """Which axis behind that of samples the layers of `z` or `mlp` are."""
        return len(self.arrays[name].tail) - _PER_LAYER[name]

    def grid(self, name: str) -> Grid:
        """How a shard of an array is cut into chunks."""
        array = self.arrays[name]
        return Grid(self.rows, array.tail, array.chunk_rows, array.chunk_tail, array.dtype)

    def pack(self, name: str, values: np.ndarray) -> bytearray:
        """The file of one shard of an array: `values` of its samples."""
        return self.grid(name).pack(values, _fill(np.dtype(self.arrays[name].dtype)))

    def file(self, name: str, shard: int) -> str:
        """The file of a shard of an array."""
        return f"{name}/c/{shard}" + "/0" * len(self.arrays[name].tail)

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        arrays = {
            name: {
                "shape": [self.samples, *array.tail],
                "dtype": array.dtype,
                "chunk": [array.chunk_rows, *array.chunk_tail],
            }
            for name, array in self.arrays.items()
        }
        return {"samples": self.samples, "samples_per_shard": self.rows, "arrays": arrays}

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> Layout:
        """Read what `as_json` made."""
        arrays = {
            name: Array(
                tuple(about["shape"][1:]), about["dtype"], about["chunk"][0], tuple(about["chunk"][1:])
            )
            for name, about in held["arrays"].items()
        }
        return cls(held["samples"], held["samples_per_shard"], arrays)


class Packer:
    """Zarr, writing into memory: it makes the description of every array, and small arrays whole."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self._files: dict[str, Any] = {}
        self._group = _group(self._files)
        for name, array in layout.arrays.items():
            _create(
                self._group,
                name,
                shape=(layout.samples, *array.tail),
                dtype=array.dtype,
                shard=(layout.rows, *array.tail),
                chunk=(array.chunk_rows, *array.chunk_tail),
            )

    def add(self, name: str, values: np.ndarray) -> None:
        """An array of its own shape that is written whole, in one shard."""
        chunk = (max(1, min(len(values), 2**16)), *values.shape[1:])
        shard = (-(-max(1, len(values)) // chunk[0]) * chunk[0], *values.shape[1:])
        array = _create(
            self._group, name, shape=values.shape, dtype=str(values.dtype), shard=shard, chunk=chunk
        )
        array[...] = values

    def files(self) -> dict[str, bytes]:
        """The files made so far."""
        return {name: value.to_bytes() for name, value in self._files.items()}


def opened(place: Place) -> Any:
    """The store's arrays as zarr reads them, by name."""
    import zarr

    return zarr.open_group(place.zarr(), mode="r", zarr_format=3)


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
    return [text[a:b].decode(errors="surrogateescape") for a, b in zip([0, *ends], ends, strict=False)]


def _group(files: dict[str, Any]) -> Any:
    import zarr
    from zarr.storage import MemoryStore

    return zarr.create_group(MemoryStore(files), zarr_format=3)


def _create(group: Any, name: str, *, shape: Any, dtype: str, shard: Any, chunk: Any) -> Any:
    from zarr.codecs import Crc32cCodec

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


def _fill(dtype: np.dtype) -> float | int:
    """What zarr gives where there is no file: nothing that coordinates, labels or digests can be."""
    if dtype.kind == "f":
        return math.nan
    return -1 if dtype.kind == "i" else int(np.iinfo(dtype).max)


def _array(name: str, tail: tuple[int, ...], dtype: str, rows: int) -> Array:
    if name not in _PER_LAYER:
        chunk_rows = _power_of_two(CHUNK_BYTES // _bytes(tail, dtype), min(MOST_CHUNK_ROWS, rows))
        return Array(tail, dtype, chunk_rows, tail)
    at = len(tail) - _PER_LAYER[name]
    layer = _bytes((*tail[:at], *tail[at + 1 :]), dtype)
    chunk_rows = _power_of_two(CHUNK_BYTES // layer, min(MOST_CHUNK_ROWS, rows))
    fit = max(1, CHUNK_BYTES // (chunk_rows * layer))
    layers = max(count for count in range(1, tail[at] + 1) if tail[at] % count == 0 and count <= fit)
    return Array(tail, dtype, chunk_rows, (*tail[:at], layers, *tail[at + 1 :]))


def _bytes(tail: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(tail, dtype=np.int64)) * np.dtype(dtype).itemsize


def _power_of_two(wanted: int, most: int) -> int:
    """The largest power of two that is neither above `wanted` nor above `most`, and 1 at least."""
    return 1 << max(0, min(wanted, most).bit_length() - 1)
