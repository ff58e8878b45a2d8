"""Where a store stops scaling, and what large datasets cost.

    python benchmarks/scale.py --out benchmarks/results/scale.json --sections simulation --folder /tmp/scale

"simulation" makes a store of 10,000 shards and 102 million samples with tiny arrays (`large_store.py`, 4 GB)
and takes each step on it in a process of its own: seconds without imports, and the peak of memory above that
after imports.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from large_store import tiny_linearization

from residual.store.arrays import CheckedArrays
from residual.store.disk import ResidualStore
from residual.store.encoding import Part
from residual.store.manifest import MANIFEST, Receipt, StoreManifest
from residual.store.resume import spread
from residual.store.storage import Storage
from residual.store.writer import begin

MISSING = range(5000, 5100)  # shards, of 10,000, that "resume" finds missing


def listing(store: Path) -> dict[str, Any]:
    return {"files": len(Storage(store).sizes())}


def manifest(store: Path) -> dict[str, Any]:
    data = Storage(store).read(MANIFEST)
    held = StoreManifest.unpack(data, MANIFEST)
    return {"bytes": len(data), "same": held.pack() == data}


def opened(store: Path) -> dict[str, Any]:
    return {"complete": ResidualStore.open(store, cut_off=True).complete}


def length(store: Path) -> dict[str, Any]:
    return {"samples": len(ResidualStore.open(store, cut_off=True))}


def labels(store: Path) -> dict[str, Any]:
    return {"sum": int(ResidualStore.open(store, cut_off=True).labels.sum())}


def some_ids(store: Path) -> dict[str, Any]:
    ids = ResidualStore.open(store, cut_off=True).sample_ids
    return {"first": ids[0], "last": ids[-1], "middle": len(ids[len(ids) // 2 : len(ids) // 2 + 1000])}


def all_ids(store: Path) -> dict[str, Any]:
    return {"letters": sum(map(len, ResidualStore.open(store, cut_off=True).sample_ids))}


def some_samples(store: Path) -> dict[str, Any]:
    held = ResidualStore.open(store, cut_off=True)
    chosen = np.random.default_rng(0).integers(0, len(held), 100)
    return {"read": list(held.contributions(samples=chosen).shape)}


def one_unit(store: Path) -> dict[str, Any]:
    held = ResidualStore.open(store, cut_off=True)
    start = len(held) // 2
    samples = slice(start, start + min(1_000_000, len(held) - start))
    return {"read": list(held.contributions(samples=samples, units=["0.0"]).shape)}


def verified(store: Path) -> dict[str, Any]:
    held = ResidualStore.open(store, cut_off=True)
    return {"damages": len(held.verify(sample=100, seed=0))}


def resumed(store: Path) -> dict[str, Any]:
    """Up to the first sample that would be encoded, some shards taken away before."""
    held = StoreManifest.unpack(Storage(store).read(MANIFEST), MANIFEST)
    missing = [shard for shard in MISSING if shard < held.layout.shards]
    aside = [(store / Receipt.file(shard), store.parent / f"aside-{shard}") for shard in missing]
    for receipt, place in aside:
        receipt.rename(place)
    begun = time.perf_counter()
    try:
        found = begin(
            Storage(store), held.identity, None, tiny_linearization(), held.layout, Part(1, 1), "own"
        )
        arrays = CheckedArrays(found.storage, found.manifest, found.whole, {})
        looked_at = arrays.read("digest", spread(arrays.positions))
        seconds = time.perf_counter() - begun
        return {
            "pending": len(found.pending),
            "looked at": len(looked_at),
            "missing": len(missing),
            "seconds": seconds,
        }
    finally:
        for receipt, place in aside:
            place.rename(receipt)


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "list every file": listing,
    "read and sign the manifest": manifest,
    "open": opened,
    "count samples": length,
    "all labels": labels,
    "some ids": some_ids,
    "all ids": all_ids,
    "100 samples anywhere": some_samples,
    "one unit of a million samples": one_unit,
    "verify 100 shards": verified,
    "find what is pending": resumed,
}


def step(name: str, store: Path) -> dict[str, Any]:
    """One step in this process."""
    before, begun = memory("VmRSS"), time.perf_counter()
    found = STEPS[name](store)
    seconds = found.pop("seconds", time.perf_counter() - begun)
    return {"seconds": round(seconds, 2), "mb": round(memory("VmHWM") - before), **found}


def memory(field: str) -> float:
    """Of this process, in MB (10⁶ bytes)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--store", type=Path)
    given = parser.parse_args()
    print(json.dumps(step(given.step, given.store)))
