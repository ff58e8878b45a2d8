"""Stores of many samples with tiny coordinates: every file that a store has, in its own formats, without an
encoder. Of 10,000 shards only the digests, ids and receipts differ, so that they are made in minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from residual.hashing import sha256
from residual.store.layout import Layout, listed_chunks, pack_ids, zarr_files
from residual.store.manifest import LINEARIZATION, MANIFEST, UNITS, Receipt, StoreManifest, versions
from residual.store.shard_file import ShardedArray
from residual.tracing.linearization import Linearization

ROWS = 10_240  # samples of a shard
CHUNK = 128
CLASSES = 1000
WIDTH = 2


def tiny_linearization() -> Linearization:
    """One layer with one head of width 1, in a stream of two."""
    state = {
        "attention_weight": torch.ones(1, 1, 1, WIDTH),
        "attention_bias": torch.zeros(1, WIDTH),
        "norm_weight": torch.ones(WIDTH),
        "norm_bias": torch.zeros(WIDTH),
        "projection_weight": torch.eye(WIDTH)[None],
        "projection_bias": torch.zeros(WIDTH),
    }
    return Linearization(state)


def tiny_layout(samples: int, rows: int = ROWS) -> Layout:
    tails = {"z": (1, 1, 1), "mlp": (1, WIDTH), "emb": (WIDTH,), "mean": (), "std": ()}
    dtypes = {"mean": "float32", "std": "float32"}
    axes = {"z": 0, "mlp": 0}
    arrays = {
        name: ShardedArray(rows, tail, dtypes.get(name, "float16"), min(rows, CHUNK), tail, axes.get(name))
        for name, tail in tails.items()
    }
    return Layout(samples, rows, {**arrays, "digest": ShardedArray(rows, (), "uint64", rows, ())})


def identity(samples: int) -> dict[str, dict]:
    weights = sha256(b"no encoder")
    encoder = {"name": "tiny", "weights": weights, "split": "shared", "precision": "float32"}
    names = [f"class {number}" for number in range(CLASSES)]
    return {
        "encoder": {**encoder, "preprocessing": "none"},
        "dataset": {
            **{"name": "made-up", "split": "train", "samples": samples, "checksum": sha256(b"made up")},
            **{"class_names": names, "group_names": [], "groups": None, "licence": "made up"},
        },
        "settings": {"pooling": "own", "kinds": ["emb", "mlp", "head"], "dtype": "float16"},
    }


def id_of(position: int) -> str:
    """As LAION's: twelve digits."""
    return f"{position:012d}"


def label_of(positions: np.ndarray) -> np.ndarray:
    return (positions * 7919 % CLASSES).astype(np.int64)


def make_store(
    folder: Path,
    samples: int,
    rows: int = ROWS,
    skipped: Callable[[range], dict[int, str]] = lambda samples: {samples[0] + 17: "cut off"},
    without: frozenset[int] = frozenset(),
) -> None:
    """Write a store; `skipped` tells what of a shard couldn't be read, `without` which aren't there."""
    layout, linearization = tiny_layout(samples, rows), tiny_linearization()
    ids = [id_of(position) for position in range(samples)]
    whole = {"label": label_of(np.arange(samples)), **pack_ids(ids)}
    files = zarr_files(layout, whole)
    files[LINEARIZATION] = linearization.pack()
    files[UNITS] = f"{linearization.units.table.to_json(orient='records', indent=1)}\n".encode()
    checksums = {name: sha256(files[name]) for name in sorted(files)}
    chunks = listed_chunks(files, whole)
    manifest = StoreManifest(identity(samples), layout, versions(), checksums, chunks)
    for name, data in {MANIFEST: manifest.pack(), **files}.items():
        _put(folder / name, data)
    del files, whole, ids
    packed: dict[tuple[str, int], tuple[bytearray, str, str]] = {}
    for shard in range(layout.shards):
        if shard in without:
            continue
        of, left_out = layout.samples_of(shard), skipped(layout.samples_of(shard))
        sizes, sums, chunks = {}, {}, {}
        for name, array in layout.arrays.items():
            key = name, len(of)
            if name == "digest" or key not in packed:
                data = array.pack(values_of(name, array, of))
                packed[key] = data, sha256(data), array.checksums(data)
            data, sums[name], chunks[name] = packed[key]
            sizes[name] = len(data)
            _put(folder / layout.file(name, shard), data)
        receipt = Receipt(manifest.mark, shard, sizes, sums, left_out, {}, chunks)
        _put(folder / Receipt.file(shard), receipt.pack())


def values_of(name: str, array: ShardedArray, samples: range) -> np.ndarray:
    """What a shard holds; but for digests it is the same in all shards."""
    if name == "digest":
        return np.arange(samples.start + 1, samples.stop + 1, dtype=np.uint64)
    numbers = np.arange(len(samples) * int(np.prod(array.tail))).reshape(len(samples), *array.tail)
    return (1 + numbers % 997 / 997).astype(array.dtype)


def _put(path: Path, data: bytes | bytearray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
