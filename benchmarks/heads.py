"""Scores of all heads of a ViT-L/14 from a store, and matching pursuit beside its plain form.

    python benchmarks/heads.py --out benchmarks/results/heads.json --folder /tmp/heads

"scores" are (U), (U|T) and (S) of 384 heads for 100 classes, from a store of 50,000 samples, in a process of
its own, whose memory is counted whole. On a GPU the store is of images of noise by open_clip's ViT-L/14 with
random weights; on a CPU, where encoding takes hours, of random coordinates. "somp" chooses 10 of 3,500 random
texts for 50,000 random samples; "plain" is the published algorithm as it is written: a product of what is
left with all texts, and a least-squares fit, for each of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import parser_of, run_sections, seconds, spread
from speed import MODELS
from store import random_store
from torch import Tensor

from residual.devices import find_device
from residual.text import somp

_SCORES = """
import json, re, sys, time
import torch
import residual
from residual.heads import score_units
from residual.text import ZeroShotClassifier
if torch.cuda.is_available():
    torch.zeros(1, device="cuda")
store, times, classes = residual.ResidualStore.open(sys.argv[1]), {}, int(sys.argv[2])
names = [f"class {k}" for k in range(classes)]
rows = torch.randn(classes, store.linearization.output_dim, generator=torch.Generator().manual_seed(0))
classifier = ZeroShotClassifier(rows, names)
for scores in (("correlation", "span"), ("accuracy",), ("correlation", "span", "accuracy")):
    start = time.perf_counter()
    table = score_units(store, classifier, scores)
    times[", ".join(scores)] = time.perf_counter() - start
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e3
card = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None
told = {"seconds": times, "peak_resident_megabytes": peak, "peak_megabytes_on_card": card}
print(json.dumps({**told, "heads": len(table)}))
"""


def scores(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and memory of the scores of all heads."""
    place, _ = random_store(options)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    words = [sys.executable, "-c", _SCORES, str(place), str(options.classes)]
    told = json.loads(
        subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )
    shutil.rmtree(place)
    return {"model": options.model, "samples": options.samples, "classes": options.classes, **told}


def plain_somp(x: Tensor, atoms: Tensor, k: int) -> list[int]:
    x = x - x.mean(0)
    left, chosen = x, []
    for _ in range(k):
        values = (left @ atoms.T).abs().sum(0)
        values[chosen] = -1
        chosen.append(int(values.argmax()))
        weights = torch.linalg.lstsq(atoms[chosen].T, x.T).solution
        left = x - weights.T @ atoms[chosen]
    return chosen


def pursuit(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of `somp` and of its plain form, taking turns, and whether they choose the same."""
    device = find_device(None)
    generator = torch.Generator(device).manual_seed(0)
    atoms = torch.randn(options.texts, options.width, device=device, generator=generator)
    atoms = torch.nn.functional.normalize(atoms, dim=1)
    spectrum = 0.98 ** torch.arange(options.width, device=device)
    x = torch.randn(options.samples, options.width, device=device, generator=generator) * spectrum
    ways: dict[str, Callable[[], list[int]]] = {
        "somp": lambda: somp(x, atoms, options.atoms).atoms.tolist(),
        "plain": lambda: plain_somp(x, atoms, options.atoms),
        "somp, std": lambda: somp(x, atoms, options.atoms, "std").atoms.tolist(),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    chosen = {name: work() for name, work in ways.items()}
    for _ in range(options.rounds):
        for name, work in ways.items():
            times[name].append(seconds(work))
    sizes = {name: getattr(options, name) for name in ("samples", "width", "texts", "atoms")}
    ways_told = {name: {"seconds": spread(values)} for name, values in times.items()}
    return {**sizes, "ways": ways_told, "same_atoms": chosen["somp"] == chosen["plain"]}


SECTIONS = {"scores": scores, "somp": pursuit}


def main() -> None:
    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--folder", type=Path, required=True, help="on the disk that the store is to be on")
    parser.add_argument("--model", default="ViT-L/14", choices=MODELS)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--texts", type=int, default=3_500)
    parser.add_argument("--atoms", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    run_sections(options, SECTIONS, options)


if __name__ == "__main__":
    main()
