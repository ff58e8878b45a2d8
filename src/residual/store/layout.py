"""The arrays of a store: their shapes, and how they are cut into shards and chunks.

All arrays of samples are cut into shards of the same samples, so that a shard of samples is whole when its
file is there in every array. Inside a shard, chunks are of some samples and layers, of a megabyte at most
(`shard_file.py`). The files are Zarr v3. Zarr reads them, and is slower at a few layers or samples
(docs/stores.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from residual.store.form import FormError, check_form, check_range
from residual.store.shard_file import ShardedArray, bytes_of, fill_of
from residual.tracing.coordinates import KIND_OF
from residual.tracing.linearization import Linearization

SHARD_BYTES = 64 * 2**20  # of coordinates; what a kill loses at most
CHUNK_BYTES = 2**20
MOST_ROWS, MOST_CHUNK_ROWS = 1024, 128
WHOLE = {
    "label": "int64",
    "group": "int64",
    "sample_id": "uint8",
    "sample_id_end": "int64",
}
_WHOLE_CHUNK = 2**16
_PER_LAYER = {"z": 3, "mlp": 2}  # and how many axes from the end the layers are
_AXES = {"z": 3, "mlp": 2, "emb": 1, "pool_mlp": 1, "mean": 0, "std": 0, "digest": 0}  # behind that of tokens
_KEPT_IN_FLOAT32 = ("mean", "std")
_DTYPES = {"mean": ("float32",), "std": ("float32",), "digest": ("uint64",)}
# What no store has more of; others' may say anything.
_MOST_SAMPLES, _MOST_SHARD_ROWS, _MOST_CHUNKS, _MOST_BYTES = 2**29, 2**16, 2**16, 2**31
_FORM = {
    "samples": int,
    "samples_per_shard": int,
    "arrays": {str: {"shape": [int], "dtype": str, "chunk": [int]}},
}


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
        shard_bytes: int = SHARD_BYTES,
    ) -> Layout:
        """For the coordinates of an encoder.

        Args:
            linearization: tells widths.
            tokens: how many are kept of each sample, where there is a token axis.
            kinds: of unit.
            samples: `n`.
            dtype: of `z`, `mlp`, `emb`: "float16" or "float32".
            shard_bytes: of the coordinates of a shard, at most; with more than by default, more samples, too.
        """
        tails = _tails(linearization, tokens)
        tails = {name: tail for name, tail in tails.items() if KIND_OF.get(name) in (None, *kinds)}
        dtypes = {name: "float32" if name in _KEPT_IN_FLOAT32 else dtype for name in tails}
        each = sum(bytes_of(tail, dtypes[name]) for name, tail in tails.items())
        rows = _power_of_two(shard_bytes // each, max(MOST_ROWS, MOST_ROWS * shard_bytes // SHARD_BYTES))
        while rows // 2 >= samples:  # no larger than needed
            rows //= 2
        arrays = {name: _cut(name, rows, tail, dtypes[name]) for name, tail in tails.items()}
        arrays["digest"] = ShardedArray(rows, (), "uint64", rows, ())
        return cls(samples, rows, arrays)

    def is_for(self, linearization: Linearization) -> bool:
        """Whether the coordinates are as wide as those of an encoder."""
        axis = self.arrays["mean"].tail
        tails = _tails(linearization, axis[0] if axis else None)
        return all(tails.get(name) == each.tail for name, each in self.arrays.items() if name != "digest")

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.samples // self.rows)

    def samples_of(self, shard: int) -> range:
        """The samples of a shard."""
        return range(shard * self.rows, min((shard + 1) * self.rows, self.samples))

    def sizes_of(self, n: int) -> tuple[dict[str, int], dict[str, int]]:
        """Of a shard of `n` samples, by array: bytes of its file, and digits of its chunks' checksums."""
        if n not in self._sizes:
            sizes = {name: array.size_of(n) for name, array in self.arrays.items()}
            self._sizes[n] = sizes, {name: 8 * array.chunks_of(n) for name, array in self.arrays.items()}
        return self._sizes[n]

    @cached_property
    def _sizes(self) -> dict[int, tuple[dict[str, int], dict[str, int]]]:
        return {}  # of a whole shard, and of the last

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
    def from_json(cls, content: Any) -> Layout:
        """Read what `as_json` made; nothing of it is believed.

        Raises:
            FormError: no store is laid out so.
        """
        check_form(content, _FORM, "the layout")
        samples, rows, arrays = content["samples"], content["samples_per_shard"], {}
        check_range(samples, 1, _MOST_SAMPLES, "the number of samples")
        check_range(rows, 1, _MOST_SHARD_ROWS, "the number of samples of a shard")
        if missing := {"mean", "std", "digest"} - content["arrays"].keys():
            raise FormError(f"it has no array {min(missing)!r}")
        axis = tuple(content["arrays"]["mean"]["shape"][1:])
        for name, about in content["arrays"].items():
            if name not in _AXES:
                raise FormError(f"no store has an array {name[:40]!r}")
            array = _described(name, samples, rows, about)
            shared = () if name in ("digest", "pool_mlp") else axis
            if len(array.tail) != len(shared) + _AXES[name] or array.tail[: len(shared)] != shared:
                raise FormError(f"the array {name!r} has other axes")
            arrays[name] = array
        return cls(samples, rows, arrays)


def _tails(of: Linearization, tokens: int | None) -> dict[str, tuple[int, ...]]:
    """The axes behind that of samples of each array of coordinates."""
    axis = (of.pool_heads,) if of.attends else () if tokens is None else (tokens,)
    tails: dict[str, tuple[int, ...]] = {
        "z": (*axis, of.units.layers, of.units.heads, of.head_width),
        "mlp": (*axis, of.units.layers, of.width),
        "emb": (*axis, of.width),
        "mean": axis,
        "std": axis,
    }
    if of.units.pool_mlp:
        tails["pool_mlp"] = (of.width,)
    return tails


def _cut(name: str, rows: int, tail: tuple[int, ...], dtype: str) -> ShardedArray:
    """With chunks of a megabyte at most, of all samples first and then of as many layers as fit."""
    most = min(MOST_CHUNK_ROWS, rows)
    if name not in _PER_LAYER:
        return ShardedArray(
            rows, tail, dtype, _power_of_two(CHUNK_BYTES // bytes_of(tail, dtype), most), tail
        )
    axis = len(tail) - _PER_LAYER[name]
    layer = bytes_of((*tail[:axis], *tail[axis + 1 :]), dtype)
    chunk_rows = _power_of_two(CHUNK_BYTES // layer, most)
    fit = max(1, CHUNK_BYTES // (chunk_rows * layer))
    layers = max(count for count in range(1, tail[axis] + 1) if tail[axis] % count == 0 and count <= fit)
    return ShardedArray(rows, tail, dtype, chunk_rows, (*tail[:axis], layers, *tail[axis + 1 :]), axis)


def _described(name: str, samples: int, rows: int, about: dict[str, Any]) -> ShardedArray:
    """An array as a manifest describes it, if a store can have such a one."""
    shape, chunk, dtype = (rows, *about["shape"][1:]), about["chunk"], about["dtype"]
    if about["shape"][:1] != [samples] or len(chunk) != len(shape) or min(*shape, *chunk, 1) < 1:
        raise FormError(f"the array {name!r} is of another shape")
    if any(whole % part for whole, part in zip(shape, chunk, strict=True)):
        raise FormError(f"the chunks of the array {name!r} don't divide it")
    if dtype not in _DTYPES.get(name, ("float16", "float32")):
        raise FormError(f"the array {name!r} is of another dtype")
    check_range(bytes_of(shape, dtype), 1, _MOST_BYTES, f"the size of a shard of {name!r}")
    layers = len(shape) - 1 - _PER_LAYER[name] if name in _PER_LAYER else None
    array = ShardedArray(rows, shape[1:], dtype, chunk[0], tuple(chunk[1:]), layers)
    check_range(array.chunks_of(rows), 1, _MOST_CHUNKS, f"the number of chunks of {name!r}")
    return array


def zarr_files(layout: Layout, whole: Mapping[str, np.ndarray]) -> dict[str, bytes | bytearray]:
    """What isn't of coordinates: the description of every array, made by zarr in memory, and the `whole`
    arrays, each in one shard.
    """
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3)

    def create(name: str, shape: Any, dtype: str, shard: Any, chunk: Any) -> None:
        group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            shards=shard,
            chunks=chunk,
            compressors=[Crc32cCodec()],
            fill_value=fill_of(np.dtype(dtype)),
            config={"write_empty_chunks": True},
        )

    for name, array in layout.arrays.items():
        create(name, (layout.samples, *array.tail), array.dtype, (array.rows, *array.tail), array.chunk)
    for name, values in whole.items():
        array = whole_array(name, len(values))
        create(name, values.shape, array.dtype, (array.rows,), array.chunk)
    described = {name: value.to_bytes() for name, value in files.items()}
    packed = {
        f"{name}/c/0": whole_array(name, len(values)).pack(values)
        for name, values in whole.items()
        if len(values)
    }
    return described | packed


def listed_chunks(files: Mapping[str, bytes | bytearray], whole: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The chunks' checksums in what `zarr_files` made of arrays that have several, to read them in part."""
    arrays = {name: whole_array(name, len(values)) for name, values in whole.items()}
    return {
        name: array.checksums(files[f"{name}/c/0"]) for name, array in arrays.items() if array.counts[0] > 1
    }


def whole_array(name: str, n: int) -> ShardedArray:
    """An array that isn't cut into shards, of `n` numbers."""
    chunk = max(1, min(n, _WHOLE_CHUNK))
    return ShardedArray(-(-max(1, n) // chunk) * chunk, (), WHOLE[name], chunk, ())


def pack_ids(ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts as two arrays of numbers: their bytes one after another, and where each ends."""
    lengths, text = np.empty(len(ids), np.int64), bytearray()
    for number, each in enumerate(ids):
        data = each.encode(errors="surrogateescape")
        lengths[number] = len(data)
        text += data
    return {"sample_id": np.frombuffer(text, np.uint8), "sample_id_end": np.cumsum(lengths)}


def _power_of_two(wanted: int, most: int) -> int:
    """The largest power of two that is neither above `wanted` nor above `most`, and 1 at least."""
    return 1 << max(0, min(wanted, most).bit_length() - 1)
