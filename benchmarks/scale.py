"""Where a store stops scaling, and what large datasets cost.

    python benchmarks/scale.py --out benchmarks/results/scale.json --sections simulation merge
    python benchmarks/scale.py --out benchmarks/results/scale-costs.json --sections costs --gpu-hour 3

"simulation" makes a store of 10,000 shards and 102 million samples with tiny arrays (`large_store.py`, 6 GB)
and takes each step on it in a process of its own: seconds without imports, and the peak of memory above that
after imports. "merge" merges the moments of 10,000 tasks. "costs" computes bytes, requests, time and money
from the rates in `results/` and from list prices, which are options.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from large_store import ROWS, make_store, tiny_linearization

from residual.spectral.bases import Origin
from residual.spectral.pca import Moments
from residual.spectral.unit_moments import UnitMoments
from residual.store.arrays import CheckedArrays
from residual.store.disk import ResidualStore
from residual.store.encoding import Part
from residual.store.layout import SHARD_BYTES, Layout
from residual.store.manifest import MANIFEST, Receipt, StoreManifest
from residual.store.resume import spread
from residual.store.storage import Storage
from residual.store.writer import begin
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.units import KINDS, Units

RESULTS = Path(__file__).parent / "results"
# layers, heads, width, tokens
MODELS = {
    "ViT-B/16": (12, 12, 768, 197),
    "ViT-L/14": (24, 16, 1024, 257),
    "ViT-H/14": (32, 16, 1280, 257),
}
# samples, and bytes of a file in the mean: ImageNet's archives (138 GB, 1.31 TB), LAION's in 256 pixels
DATASETS = {
    "ImageNet-1k": (1_281_167, 108_000),
    "ImageNet-21k": (14_197_122, 92_000),
    "LAION-400M": (413_000_000, 24_000),
}
GPUS = (1, 8, 64)
SHARD_MB = (64, 256, 1024)
# list prices of a large cloud, us-east, assumed in November 2026: other ones by the options of the same names
PRICES = {
    "gpu_hour": (3.0, "an hour of one GPU"),
    "gb_month": (0.023, "a month of a GB on the object store"),
    "put_1000": (0.005, "1,000 PUT or LIST requests"),
    "get_1000": (0.0004, "1,000 GET requests"),
}
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
            Storage(store), None, held.identity, None, tiny_linearization(), held.layout, Part(1, 1), "own"
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


def simulation(options: argparse.Namespace) -> dict[str, Any]:
    """Every step in a process of its own, on a store that is made first if it isn't there."""
    store, samples = options.folder / "store", options.shards * ROWS
    if not (store / MANIFEST).is_file():
        make_store(store, samples)
    found: dict[str, Any] = {"shards": options.shards, "samples": samples}
    found["bytes"] = sum(Storage(store).sizes().values())
    for name in STEPS:
        words = [sys.executable, __file__, "--step", name, "--store", str(store)]
        found[name] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        print(name, found[name], flush=True)
    return found


def merge(options: argparse.Namespace) -> dict[str, Any]:
    """Moments of as many tasks merged: tiny ones, and one merge of those of real encoders."""
    parts, before = [_moments(seed) for seed in range(100)], memory("VmRSS")
    begun, whole = time.perf_counter(), _moments(0)
    for number in range(options.shards):
        whole.merge(parts[number % len(parts)])
    found: dict[str, Any] = {"merged": options.shards, "seconds": round(time.perf_counter() - begun, 2)}
    found["mb"] = round(memory("VmHWM") - before)
    for name, (layers, heads, width, _) in MODELS.items():
        one, other = (Moments(layers * heads, width // heads + 2) for _ in range(2))
        for each in (one, other):
            each.update(torch.randn(layers * heads, 4, width // heads + 2))
        one.merge(other)
        begun = time.perf_counter()
        for _ in range(5):
            one.merge(other)
        size = layers * heads * (width // heads + 2) ** 2 * 8
        found[name] = {"mb": round(size / 1e6, 1), "seconds": round((time.perf_counter() - begun) / 5, 4)}
    return found


def _moments(seed: int) -> UnitMoments:
    origin = Origin("tiny", "0", "shared", ("made-up/train",), 0)
    made, generator = UnitMoments(tiny_linearization(), KINDS, KINDS, origin), torch.Generator()
    generator.manual_seed(seed)
    shapes = {"z": (1, 1, 1), "mlp": (1, 2), "emb": (2,), "mean": (), "std": ()}
    values = {name: 1 + torch.rand(20, *shape, generator=generator) for name, shape in shapes.items()}
    made.update(Coordinates(**values))
    return made


def rates(model: str) -> dict[str, Any]:
    """Images a second from files to the store on one GPU, and where that is from."""
    file = RESULTS / "files.json"
    roads = json.loads(file.read_text(encoding="utf-8")).get("roads", {}) if file.is_file() else {}
    for name, held in roads.items():
        if name.replace("-", "").replace("/", "") == model.replace("-", "").replace("/", ""):
            ways = {
                way: each["median"] for way, each in held["images_per_second"].items() if way != "forward"
            }
            way = max(ways, key=lambda way: ways[way])
            return {"images_per_second": ways[way], "from": f"files.json, decoded on the {way}"}
    forward, source = _forward(model)
    kept = json.loads((RESULTS / "store.json").read_text(encoding="utf-8"))["encoding"]["pixels on cuda:0"]
    rate = forward * kept["store_of_forward"]
    share = f"{kept['store_of_forward']:.2f} of it to the store (store.json)"
    return {"images_per_second": rate, "forward": forward, "from": f"{source}; {share}; files not measured"}


def _forward(model: str) -> tuple[float, str]:
    for name in ("speed-h200", "speed"):
        result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        runs = [run for run in result["runs"] if run["model"] == model and run["precision"] == "bf16 weights"]
        if runs:
            best = max(run["ways"]["traced"]["images_per_second"] for run in runs)
            return best, f"traced forward of {name}.json ({result['versions']['card']})"
    forward, source = _forward("ViT-L/14")
    ratio = _work("ViT-L/14") / _work(model)
    return forward * ratio, f"ViT-L/14's {source}, times {ratio:.3f} for its operations"


def _work(model: str) -> float:
    """Multiplications of a forward, but for what is outside the blocks."""
    layers, _, width, tokens = MODELS[model]
    return layers * (12 * tokens * width**2 + 2 * tokens**2 * width)


def layout_of(model: str, samples: int, shard_bytes: int) -> Layout:
    layers, heads, width, _ = MODELS[model]
    about = Linearization.__new__(Linearization)  # of its widths alone
    about.__dict__.update(
        attends=False, pool_heads=1, units=Units(layers, heads), head_width=width // heads, width=width
    )
    return Layout.of(about, None, KINDS, samples, "float16", shard_bytes)


def store_of(model: str, samples: int, shard_bytes: int = SHARD_BYTES) -> dict[str, Any]:
    """Bytes, shards and requests of a store; `writes` and so on are what docs/scale.md counts."""
    layout = layout_of(model, samples, shard_bytes)
    sizes, digits = layout.sizes_of(layout.rows)
    shards, arrays = layout.shards, len(layout.arrays)
    receipt = 1000 + sum(digits.values())
    objects = shards * (arrays + 1) + arrays + 10
    return {
        "samples_per_shard": layout.rows,
        "shard_mb": sum(sizes.values()) / 1e6,
        "shards": shards,
        "objects": objects,
        "bytes": shards * (sum(sizes.values()) + receipt),
        "bytes_per_sample": sum(sizes.values()) / layout.rows,
        "puts": objects,
        "gets_open": 1 + shards,
        "lists": -(-shards // 1000) + 2,
        "gets_all": (arrays - 1) * shards,
    }


def costs(options: argparse.Namespace) -> dict[str, Any]:
    """What each dataset costs with each encoder on each number of GPUs."""
    rows = []
    for dataset, (samples, each) in DATASETS.items():
        for model in MODELS:
            rate, held = rates(model)["images_per_second"], store_of(model, samples)
            writing = (held["puts"] + held["lists"]) * options.put_1000 + held["gets_open"] * options.get_1000
            of_gpus = {
                gpus: {
                    "hours": samples / rate / 3600 / gpus,
                    "read_gb_per_second": rate * gpus * each / 1e9,
                    "written_gb_per_second": rate * gpus * held["bytes_per_sample"] / 1e9,
                }
                for gpus in GPUS
            }
            dollars = {
                "gpus": samples / rate / 3600 * options.gpu_hour,
                "writing": writing / 1000,
                "reading": held["gets_all"] * options.get_1000 / 1000,
                "month": held["bytes"] * options.gb_month / 1e9,
            }
            about = {"dataset": dataset, "model": model, "samples": samples, "read_bytes": samples * each}
            rows.append({**about, **held, "of_gpus": of_gpus, "dollars": dollars})
    samples = DATASETS["LAION-400M"][0]
    cuts = [
        {"model": model, "mb": mb, **store_of(model, samples, mb * 2**20)}
        for model in MODELS
        for mb in SHARD_MB
    ]
    prices = {name: getattr(options, name) for name in PRICES}
    return {"prices": prices, "rates": {model: rates(model) for model in MODELS}, "rows": rows, "cuts": cuts}


SECTIONS = {"simulation": simulation, "merge": merge, "costs": costs}


def main() -> None:
    if "--step" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--step", choices=STEPS)
        parser.add_argument("--store", type=Path)
        given = parser.parse_args()
        print(json.dumps(step(given.step, given.store)))
        return
    from common import parser_of, run_sections

    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/scale"))
    parser.add_argument("--shards", type=int, default=10_000)
    for name, (dollars, what) in PRICES.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=float, default=dollars, help=f"dollars {what}"
        )
    given = parser.parse_args()
    run_sections(given, SECTIONS, given)


if __name__ == "__main__":
    main()
