"""Intrinsic dimension by neighbours beside other libraries, and experiment 1 of a ViT-L/14 from a store.

    uv run --with scikit-dimension --with dadapy python benchmarks/geometry.py \\
        --out benchmarks/results/geometry-cpu.json --folder /tmp/geometry --sections two_nn
    python benchmarks/geometry.py --out benchmarks/results/geometry.json --folder /tmp/geometry

"two_nn" runs each library in a process of its own, whose memory is counted whole, on the same samples:
"manifold" are samples of a curved 10-dimensional manifold in 768 dimensions, "noise" fill all 768, so that
neighbours are hard to tell apart. A library that isn't installed is left out. "experiment" is
`unit_geometry` of 409 units of open_clip's ViT-L/14 with random weights, on images of noise that were encoded
to a store before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import parser_of, run_sections, spread
from speed import MODELS
from store import random_store

from residual.spectral import geometry
from residual.store.disk import ResidualStore


def manifold(count: int, width: int) -> np.ndarray:
    """Random smooth functions of ten coordinates."""
    rng = np.random.default_rng(0)
    inner = rng.uniform(-1, 1, (count, 10))
    waves = np.sin(inner @ rng.standard_normal((10, 64)) / 2 + rng.uniform(0, 6, 64))
    return (waves @ rng.standard_normal((64, width)) / 8).astype(np.float32)


def noise(count: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, width), np.float32)


_ALONE = """
import json, re, sys, time
import numpy as np
x, rounds, times = np.load(sys.argv[1]), int(sys.argv[2]), []
{prepare}
for _ in range(rounds):
    start = time.perf_counter()
    found = float({call})
    times.append(time.perf_counter() - start)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e3
print(json.dumps({{"dimension": found, "seconds": times, "peak_resident_megabytes": peak, **dict({extra})}}))
"""
_OURS = "import torch; from residual.spectral import two_nn; x = torch.from_numpy(x)"
_WAYS = {  # of which package, what comes before, the call, what else is told
    "residual": ("residual-vit", _OURS, "two_nn(x)", ""),
    "residual, GPU": (
        "residual-vit",
        f"{_OURS}.cuda(); two_nn(x[:5000]); torch.cuda.reset_peak_memory_stats()",
        "two_nn(x)",
        "peak_megabytes_on_card=torch.cuda.max_memory_allocated() / 1e6",
    ),
    "scikit-dimension": (
        "scikit-dimension",
        "from skdim.id import TwoNN",
        "TwoNN().fit(x).dimension_",
        "",
    ),
    "dadapy": (
        "dadapy",
        "from dadapy import IdEstimation",
        "IdEstimation(x, maxk=3).compute_id_2NN()[0]",
        "",
    ),
}


def two_nn(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds, memory and dimension of each library's TwoNN."""
    result: dict[str, Any] = {"samples": options.points, "width": options.width, "ways": {}}
    for make in (manifold, noise):
        path, found = options.folder / "x.npy", {}
        np.save(path, make(options.points, options.width))
        for name, (package, prepare, call, extra) in _WAYS.items():
            theirs = package != "residual-vit"
            if (theirs and (not _installed(package) or make is noise)) or (
                "GPU" in name and not torch.cuda.is_available()
            ):
                continue
            code = _ALONE.format(prepare=prepare, call=call, extra=extra)
            words = [sys.executable, "-c", code, str(path), str(1 if theirs else options.rounds)]
            told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            values = json.loads(told.splitlines()[-1])
            if theirs:
                values["version"] = version(package)
            found[name] = {**values, "seconds": spread(values["seconds"])}
            print(make.__name__, name, found[name], flush=True)
        result["ways"][make.__name__] = found
    path.unlink()
    return result


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def experiment(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of experiment 1 from a store, and of its parts."""
    on_card = torch.cuda.is_available()
    place, encoded = random_store(options)
    spent: dict[str, float] = defaultdict(float)

    def clocked(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            _wait()
            start = time.perf_counter()
            found = work(*given, **named)
            _wait()
            spent[name] += time.perf_counter() - start
            return found

        return timed

    geometry.two_nn_scales = clocked("TwoNN at four scales", geometry.two_nn_scales)  # ty: ignore[invalid-assignment]
    geometry._spectrum = clocked("spectra", geometry._spectrum)  # ty: ignore[invalid-assignment]
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    table = geometry.unit_geometry(ResidualStore.open(place), progress=_told)
    whole = time.perf_counter() - start
    shutil.rmtree(place)
    heads = table[table["kind"] == "head"]
    return {
        "model": options.model,
        "samples": options.samples,
        "units": len(table),
        "seconds_to_encode": encoded,
        "seconds": whole,
        "seconds_of": {**spent, "reading and mapping": whole - sum(spent.values())},
        "peak_megabytes_on_card": torch.cuda.max_memory_allocated() / 1e6 if on_card else None,
        "means_of_heads": {name: float(heads[name].mean()) for name in geometry.MEASURES},
        "undefined": int(table["two_nn"].isna().sum()),
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _told(_: str, done: int, total: int) -> None:
    if done % 50 == 0 or done == total:
        print(f"{done} of {total} units", flush=True)


SECTIONS = {"two_nn": two_nn, "experiment": experiment}


def main() -> None:
    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--folder", type=Path, required=True, help="on the disk that the store is to be on")
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="ViT-L/14", choices=MODELS)
    parser.add_argument("--samples", type=int, default=50_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    run_sections(options, SECTIONS, options)


if __name__ == "__main__":
    main()
