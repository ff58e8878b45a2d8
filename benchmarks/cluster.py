"""From a dataset to a finished store in several processes: what Ray costs, and what a second GPU brings.

    python benchmarks/cluster.py --out benchmarks/results/cluster.json

"ray's own cost" runs the command `residual encode …` and the same with `--on ray`, a cluster that it starts
on this machine with one worker, in turns, from the first import to the finished store.

"several workers" calls `encode_dataset` in this process (on one GPU), with all GPUs of this machine, a
process each, and with Ray; from image files and from pixels in memory. Where there is no GPU, it does so on
the CPU and with `--workers` processes. The receipts of the stores, which hold the SHA-256 of every file, must
be the same. Each way has encoded a few before ("seconds of a few", which on files holds the start of its
processes). "whole" is over the call, with all that is sent to workers; "steady" is between a fifth and four
fifths of the receipts, by their times. Weights are random: time doesn't depend on them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from common import parser_of, run_sections, seconds, spread
from PIL import Image

import residual
from residual.data import PixelDataset
from residual.devices import best_dtype, find_device
from residual.encoders.encoder import Encoder
from residual.encoders.load import wrap_encoder
from residual.executors import opened

DISTINCT = 300


def main() -> None:
    sections = {"ray's own cost": own_cost, "several workers": several}
    parser = parser_of(__doc__, sections)
    parser.add_argument("--folder", type=Path, default=Path("cluster-benchmark"), help="for files and stores")
    parser.add_argument("--model", default="ViT-L-14", help="of open_clip, with random weights; or picto")
    parser.add_argument("--images", type=int, default=60_000, help="files of several workers")
    parser.add_argument("--pixels", type=int, default=60_000, help="pictures in memory of several workers")
    parser.add_argument("--commands", type=int, default=20_000, help="files of Ray's own cost")
    parser.add_argument("--size", type=int, nargs=2, default=(454, 382), help="of files, width and height")
    parser.add_argument("--rounds", type=int, default=3, help="of the commands")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, help="by default one a GPU, else 2 processes")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    about = {name: str(value) for name, value in vars(options).items() if name not in ("out", "sections")}
    run_sections(options, sections, options, settings=about)


def own_cost(options: argparse.Namespace) -> dict[str, Any]:
    files = files_of(options, options.commands, "commands")
    cpus = "" if torch.cuda.is_available() else f",cpus={len(os.sched_getaffinity(0))}"
    ways = {"plain": [], "ray": ["--on", f"ray,workers=1{cpus}"]}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        receipts = []
        for name, more in ways.items():
            out = options.folder / f"store-{name}"
            shutil.rmtree(out, ignore_errors=True)
            words = [sys.executable, "-m", "residual", "encode", "--encoder", "picto", "--dataset"]
            words += [f"folder:{files}", "--out", str(out), *more]
            took[name].append(seconds(lambda words=words: subprocess.run(words, check=True)))
            receipts.append(receipts_of(out))
        assert receipts[0] == receipts[1], "the stores differ"
    of = {name: spread(values) for name, values in took.items()}
    return {
        "samples": options.commands,
        "seconds": of,
        "ratio of the medians": of["ray"]["median"] / of["plain"]["median"],
        "ratio of the least": of["ray"]["least"] / of["plain"]["least"],
        "stores": "the same bytes",
    }


def several(options: argparse.Namespace) -> dict[str, Any]:
    gpus = torch.cuda.device_count()
    workers = options.workers or gpus or 2
    own = f"gpus:{workers}" if gpus else f"processes:{workers}"
    with ExitStack() as stack:  # each begun once, for both sources
        places = {"plain": None, own: own, "ray": f"ray,workers={workers}"}
        ways = {name: stack.enter_context(opened(where)) for name, where in places.items()}
        return sources(options, ways, gpus, workers)


def sources(options: argparse.Namespace, ways: dict[str, Any], gpus: int, workers: int) -> dict[str, Any]:
    encoder, result = encoder_of(options.model), {"gpus": gpus, "workers": workers}
    files = residual.load_dataset(f"folder:{files_of(options, options.images, 'files')}", "train")
    result["files"] = {**compared(options, encoder, files, ways), "samples": len(files)}
    height, width = encoder.image_size
    pixels = torch.randn(DISTINCT, 3, height, width).to(encoder.dtype)
    pixels = pixels[torch.arange(options.pixels) % DISTINCT]
    dataset = PixelDataset(pixels, np.arange(len(pixels)) % 2, ["one", "other"])
    result["pixels in memory"] = {**compared(options, encoder, dataset, ways), "samples": len(dataset)}
    return result


def compared(options: argparse.Namespace, encoder: Encoder, dataset: Any, ways: dict[str, Any]) -> Any:
    """Each way once, from start to finish; then what they are of the plain one."""
    found: dict[str, Any] = {}
    expected = None
    few = dataset.subset(range(min(len(dataset), 8 * options.batch_size)))
    for name, where in ways.items():
        out, how = options.folder / "store", {"batch_size": options.batch_size, "executor": where}
        # What has begun and has seen a batch; on the first source, with the start of processes.
        first = seconds(lambda out=out, how=how: again(encoder, few, out, **how))
        whole = seconds(lambda out=out, how=how: again(encoder, dataset, out, **how))
        found[name] = {"whole": len(dataset) / whole, "steady": steady(out), "seconds": whole}
        found[name]["seconds of a few, before"] = first
        print(name, found[name], flush=True)
        receipts = receipts_of(out)
        expected = expected or receipts
        assert receipts == expected, "the stores differ"
    for name in list(ways)[1:]:
        for what in ("whole", "steady"):
            found[name][f"{what}, of plain"] = found[name][what] / found["plain"][what]
    return {"images a second": found, "stores": "the same bytes"}


def again(encoder: Encoder, dataset: Any, out: Path, **how: Any) -> None:
    shutil.rmtree(out, ignore_errors=True)
    residual.encode_dataset(encoder, dataset, out, **how)


def steady(store: Path) -> float:
    """Images a second between a fifth and four fifths of the receipts."""
    rows = residual.ResidualStore.open(store).layout.rows
    times = sorted(path.stat().st_mtime_ns / 1e9 for path in (store / "receipts").iterdir())
    first, last = len(times) // 5, len(times) * 4 // 5
    return (last - first) * rows / (times[last] - times[first]) if last > first else float("nan")


def receipts_of(store: Path) -> dict[str, bytes]:
    names = [store / "manifest.json", *sorted((store / "receipts").iterdir())]
    return {path.name: path.read_bytes() for path in names}


def encoder_of(model: str) -> Encoder:
    device = find_device(None)
    if model == "picto":
        return residual.load_encoder("picto")
    torch.manual_seed(0)
    return wrap_encoder(open_clip.create_model(model).eval().to(device, best_dtype(device)))


def files_of(options: argparse.Namespace, count: int, name: str) -> Path:
    """A folder of JPEGs in two classes, links to a few that differ."""
    root, random = options.folder / name, np.random.default_rng(0)
    shutil.rmtree(root, ignore_errors=True)
    originals = root.with_name(f"{name}-originals")
    originals.mkdir(exist_ok=True)
    for number in range(DISTINCT):
        width, height = options.size
        coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        noise = random.integers(-24, 24, (height, width, 3))
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        picture = (smooth.astype(np.int64) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(originals / f"{number}.jpg", quality=90)
    for split, many in {"train": count, "val": 4, "test": 4}.items():
        for number in range(many):
            place = root / split / ("one", "other")[number % 2] / f"{number:06d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(originals / f"{number % DISTINCT}.jpg", place)
    return root


if __name__ == "__main__":
    main()
