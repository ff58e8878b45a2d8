"""Shards are what zarr reads; of a file nothing is read but what is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from residual.store.shard_file import BadChunkError, ShardedArray

DTYPES = ("float16", "float32", "uint64", "int64")
FILL = {"float16": np.nan, "float32": np.nan, "uint64": 2**64 - 1, "int64": -1}


def values_of(n: int, tail: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((n, *tail)) * 100).astype(dtype)


def through_zarr(grid: ShardedArray, values: np.ndarray, packed: bytes) -> tuple[np.ndarray, int]:
    """What zarr reads where its own file is replaced by that one, and how long its own was."""
    files = {}
    array = zarr.create_array(
        MemoryStore(files),
        shape=values.shape,
        dtype=values.dtype,
        shards=(grid.rows, *grid.tail),
        chunks=grid.chunk,
        compressors=[Crc32cCodec()],
        fill_value=FILL[str(values.dtype)],
        config={"write_empty_chunks": True},
    )
    array[...] = values
    [name] = [name for name in files if name.startswith("c/")]
    length = len(files[name].to_bytes())
    files[name] = type(files[name]).from_bytes(packed)
    return array[...], length


def cut(data, longest: int) -> tuple[int, int]:
    """A length and that of its parts."""
    part, count = data.draw(st.integers(1, longest)), data.draw(st.integers(1, 3))
    return part * count, part


def reader(data: bytes, seen: list[range]):
    def read(pieces):
        seen.extend(range(start, start + length) for start, length in pieces)
        return [bytes(data[start : start + length]) for start, length in pieces]

    return read


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_zarr_reads_what_is_packed(data):
    rows, chunk_rows = cut(data, 4)
    tail, chunk_tail = [], []
    for _ in range(data.draw(st.integers(0, 3), "axes")):
        whole, part = cut(data, 3)
        tail.append(whole)
        chunk_tail.append(part)
    dtype = data.draw(st.sampled_from(DTYPES), "dtype")
    grid = ShardedArray(rows, tuple(tail), dtype, chunk_rows, tuple(chunk_tail))
    values = values_of(data.draw(st.integers(1, rows), "n"), tuple(tail), dtype)
    packed = bytes(grid.pack(values))
    read, length = through_zarr(grid, values, packed)
    np.testing.assert_array_equal(read, values)
    assert length == len(packed)  # but zarr has the chunks in another order
    start = data.draw(st.integers(0, len(values) - 1), "start")
    wanted = range(start, data.draw(st.integers(start + 1, len(values)), "stop"))
    got = grid.unpack(reader(packed, []), len(packed), wanted)
    np.testing.assert_array_equal(got, values[wanted.start : wanted.stop])
    if tail:
        axis = data.draw(st.integers(0, len(tail) - 1), "axis")
        layers = sorted(data.draw(st.sets(st.integers(0, tail[axis] - 1)), "layers"))
        got = replace(grid, layer_axis=axis).unpack(reader(packed, []), len(packed), wanted, layers)
        np.testing.assert_array_equal(got, values[wanted.start : wanted.stop].take(layers, axis + 1))


def test_only_the_chunks_that_are_asked_for_are_read():
    grid = ShardedArray(16, (6, 5), "float32", 4, (2, 5), 0)
    values = values_of(16, (6, 5), "float32")
    packed = bytes(grid.pack(values))
    for rows, layers, chunks in (
        (range(4, 8), [3], 1),
        (range(4, 8), [2, 3], 1),
        (range(4, 8), [1, 2], 2),
        (range(5, 6), [0], 1),
        (range(3, 5), [2], 2),
        (range(0, 16), [5], 4),
        (range(4, 8), None, 3),
    ):
        seen = []
        grid.unpack(reader(packed, seen), len(packed), rows, layers)
        assert sum(map(len, seen)) == grid.index_bytes + chunks * (grid.chunk_bytes + 4)


def test_every_changed_byte_is_found_and_only_where_it_is():
    grid = ShardedArray(8, (2, 3), "float16", 4, (1, 3), 0)
    values = values_of(7, (2, 3), "float16")
    packed = bytearray(grid.pack(values))
    each = grid.chunk_bytes + 4
    for position in range(len(packed)):
        packed[position] ^= 1 << position % 8
        chunk = position // each
        bad = range(8) if chunk >= 4 else range(chunk // 2 * 4, chunk // 2 * 4 + 4)
        for rows in (range(0, 4), range(4, 7)):
            for layer in (0, 1):
                spoilt = chunk >= 4 or (rows.start in bad and layer == chunk % 2)
                try:
                    got = grid.unpack(reader(packed, []), len(packed), rows, [layer])
                except BadChunkError as error:
                    found = error.rows
                    got = None
                assert (got is None) == spoilt, (position, rows, layer)
                if got is None:
                    assert found == bad
                else:
                    np.testing.assert_array_equal(got, values[rows.start : rows.stop, [layer]])
        packed[position] ^= 1 << position % 8


def test_a_file_that_ends_early():
    grid = ShardedArray(8, (3,), "float32", 4, (3,))
    packed = bytes(grid.pack(values_of(8, (3,), "float32")))
    for length in range(len(packed)):
        for size in (length, len(packed)):  # its size may be that of a moment ago
            with pytest.raises(BadChunkError, match="holds a changed byte"):
                grid.unpack(reader(packed[:length], []), size, range(8))
