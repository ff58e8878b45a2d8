"""From pixels in memory to a tested ResiDual*, beside re-running the encoder at every step; and fits at once.

    python benchmarks/adapters.py --out benchmarks/results/adapters.json

"pipeline": 45,000 training, 2,500 validation and 2,500 test pictures of noise, 100 classes, ViT-L/14 of
open_clip with random weights (accuracies mean nothing, time doesn't depend on them), in `--dtype`.
Ours encodes every picture once, fits the bases of the heads on the training pictures, makes the scores,
trains 30 epochs at batch 64 with the validation pictures tried after each, and tests; then it fits ten seeds
at once. "rerun" trains the same ResiDual* by the same optimiser as the published code does: the frozen
encoder in float32 makes all heads' contributions of every batch of every epoch anew; `--steps` of its steps
and a quarter as many validation batches are timed, and its whole time follows from those.

"many": 1, 2, 5 and 10 fits at once (seeds), on scores of the same size, encoding left out; on a Hopper GPU as
they are and, in turn, without the kernels for its tensor cores ("without kernels"). Short:

    python benchmarks/adapters.py --out many.json --sections many --fits 1 10 --batches 64
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import parser_of, run_sections, seconds, spread
from schedulefree import AdamWScheduleFree
from speed import MODELS
from store import dataset_of
from torch.nn.functional import cross_entropy

import residual
from residual.adapters import (
    FitSettings,
    ResiDualStar,
    Scores,
    compute_scores,
    evaluate,
    fit,
    fit_many,
    steps,
)
from residual.data import PixelDataset
from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.spectral import SpectralBases
from residual.text import ZeroShotClassifier

SHARES = {"train": 0.9, "val": 0.05, "test": 0.05}


def load(options: argparse.Namespace, dtype: torch.dtype) -> Encoder:
    device = find_device(None)
    if options.model == "picto":
        return residual.load_encoder("picto", device=device, dtype=dtype)
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(MODELS[options.model]).visual
    return residual.wrap_encoder(model).to(device, dtype)


def splits_of(encoder: Encoder, options: argparse.Namespace) -> dict[str, PixelDataset]:
    whole = dataset_of(encoder, options.samples, str(encoder.device)).pixels.cpu()  # made faster there
    found, start = {}, 0
    for name, share in SHARES.items():
        part = slice(start, start + round(share * options.samples))
        start = part.stop
        pixels = whole[part]
        labels = np.arange(len(pixels)) % options.classes
        found[name] = PixelDataset(pixels, labels, names_of(options.classes), split=name)
    return found


def names_of(classes: int) -> list[str]:
    return [f"class {k}" for k in range(classes)]


def classifier_of(options: argparse.Namespace, dim: int) -> ZeroShotClassifier:
    rows = torch.randn(options.classes, dim, generator=torch.Generator().manual_seed(0))
    return ZeroShotClassifier(rows, names_of(options.classes))


def ours(
    encoder: Encoder, splits: dict[str, PixelDataset], options: argparse.Namespace
) -> tuple[dict[str, Any], SpectralBases]:
    """Every step of our way, in seconds."""
    times: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times[name] = times.get(name, 0.0) + time.perf_counter() - start
        return result

    stores = {
        name: timed("encode", lambda dataset=dataset: residual.encode_dataset(
            encoder, dataset, kinds=("head",), batch_size=options.encode_batch))
        for name, dataset in splits.items()
    }  # fmt: skip
    bases = timed("bases", lambda: residual.fit_bases(stores["train"]))
    adapter = ResiDualStar(bases)
    scores = {
        name: timed("scores", lambda store=store: compute_scores(adapter, store))
        for name, store in stores.items()
    }
    classifier = classifier_of(options, encoder.output_dim)
    settings = FitSettings(epochs=options.epochs, patience=options.epochs)
    given = (scores["train"], scores["val"], classifier, settings)
    result = timed("fit", lambda: fit(adapter, *given))
    accuracy = timed("test", lambda: evaluate(adapter, scores["test"], classifier))
    assert len(result.history) == options.epochs
    told = {"seconds": dict(times), "total": sum(times.values()), "weights": len(adapter.lambdas)}
    many = [ResiDualStar(bases, seed=k) for k in range(options.seeds)]
    fits = [FitSettings(epochs=options.epochs, patience=options.epochs, seed=k) for k in range(options.seeds)]
    timed("fit many", lambda: fit_many(many, *given[:-1], fits))
    whole = told["total"] - times["fit"] + times["fit many"]
    of_many = {
        "fits": options.seeds,
        "fit": times["fit many"],
        "total": whole,
        "of_one": whole / told["total"],
    }
    return {**told, "test_accuracy": accuracy, "at_once": of_many}, bases


def rerun(
    encoder: Encoder, splits: dict[str, PixelDataset], bases: SpectralBases, options: argparse.Namespace
) -> dict[str, Any]:
    """Seconds a step and a validation batch of training with the encoder in the loop, and of all of it."""
    adapter = ResiDualStar(bases).to(encoder.device)
    classifier = classifier_of(options, encoder.output_dim).to(encoder.device)
    optimizer = AdamWScheduleFree(adapter.parameters(), lr=0.8)
    optimizer.train()
    train = splits["train"]

    def output(start: int) -> torch.Tensor:
        pixels = train.pixels[start : start + 64].float()
        with torch.no_grad():
            contributions = residual.decompose(encoder, pixels).contributions[:, 0]
        return adapter(contributions)

    def step(number: int) -> None:
        start = number * 64 % (len(train) - 64)
        y = torch.from_numpy(train.labels[start : start + 64]).to(encoder.device)
        loss = cross_entropy(classifier.logits(output(start)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def tried(number: int) -> None:
        with torch.no_grad():
            classifier.logits(output(number * 64 % (len(train) - 64))).argmax(1).cpu()

    found = {}
    for name, work in (("step", step), ("validation_batch", tried)):
        count = options.steps if name == "step" else options.steps // 4
        for number in range(3):
            work(number)
        found[name] = seconds(lambda work=work, count=count: [work(k) for k in range(count)]) / count
    steps = -(-len(train) // 64) * options.epochs
    training = found["step"] * steps
    tries = -(-len(splits["val"]) // 64) * options.epochs + -(-len(splits["test"]) // 64)
    return {
        "timed_steps": options.steps,
        "seconds_a_step": found["step"],
        "images_a_second": 64 / found["step"],
        "training": training,
        "validation_and_test": found["validation_batch"] * tries,
        "total": training + found["validation_batch"] * tries,
    }


def pipeline(options: argparse.Namespace) -> dict[str, Any]:
    """Both ways, on the same pictures."""
    encoder = load(options, getattr(torch, options.dtype))
    splits = splits_of(encoder, options)
    with torch.inference_mode():
        residual.trace(encoder, splits["train"].pixels[: options.encode_batch])
    rounds = [ours(encoder, splits, options) for _ in range(options.rounds)]
    print(json.dumps([told for told, _ in rounds]), flush=True)
    slow = rerun(encoder.to(dtype=torch.float32), splits, rounds[0][1], options)
    totals = [told["total"] for told, _ in rounds]
    return {
        "model": options.model,
        "dtype": options.dtype,
        **{f"n_{name}": len(split) for name, split in splits.items()},
        "classes": options.classes,
        "epochs": options.epochs,
        "ours": [told for told, _ in rounds],
        "rerun": slow,
        "times_faster": spread([slow["total"] / total for total in totals]),
        "times_faster_than_its_training_alone": spread([slow["training"] / total for total in totals]),
    }


def many(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds an epoch of several fits at once, on random scores."""
    device = find_device(None)
    units, rank, dim = options.units, options.rank, options.dim
    generator = torch.Generator().manual_seed(0)
    rows = [torch.linalg.qr(torch.randn(dim, rank, generator=generator))[0].T for _ in range(units)]
    bases = SpectralBases(range(units), torch.zeros(units, dim), rows, [torch.ones(rank)] * units)
    classifier = classifier_of(options, dim)
    n = round(0.9 * options.samples)
    first = residual_star_of(bases, 0)
    on_card = torch.Generator(device).manual_seed(0)
    sizes = {"train": n, "val": options.samples - n}
    scores = {
        name: Scores(
            torch.randn(count, units * rank, generator=on_card, device=device),
            first.directions.float().to(device),
            torch.zeros(count, dim, device=device),
            torch.arange(count, device=device) % options.classes,
            "random",
            first.ranks,
        )
        for name, count in sizes.items()
    }
    ways = {"as it is": steps.WORTH_COMPILING}
    if steps.has_hopper(device):
        ways["without kernels"] = float("inf")

    def times_of(fits: int, batch: int, epochs: int) -> float:
        how = {"batch_size": batch, "epochs": epochs, "patience": epochs}
        settings = [FitSettings(seed=k, **how) for k in range(fits)]
        adapters = [residual_star_of(bases, k) for k in range(fits)]
        return seconds(lambda: fit_many(adapters, scores["train"], scores["val"], classifier, settings))

    found: dict[str, dict[str, Any]] = {way: {} for way in ways}
    for batch in options.batches:
        for fits in options.fits:
            # What a fit has before its epochs (recording, compiling) goes out in the difference.
            short, each = options.many_epochs, {way: [] for way in ways}
            for number in range(options.rounds + 1):
                for way, worth_compiling in ways.items():
                    steps.WORTH_COMPILING = worth_compiling
                    less, long = (times_of(fits, batch, epochs) for epochs in (short, 2 * short))
                    if number:  # the first is to warm up
                        each[way].append((long - less) / short)
            for way, times in each.items():
                found[way][f"batch {batch}, {fits} fits"] = {
                    "seconds_an_epoch": spread(times),
                    "samples_a_second": fits * n / spread(times)["median"],
                }
                print(batch, fits, way, spread(times), flush=True)
    sizes = {"samples": n, "components": units * rank, "dim": dim, "classes": options.classes}
    return sizes | found.pop("as it is") | found


def residual_star_of(bases: SpectralBases, seed: int) -> residual.ResiDual:
    return residual.ResiDual(bases, others="zero", seed=seed)


SECTIONS = {"pipeline": pipeline, "many": many}


def main() -> None:
    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--model", default="ViT-L/14", choices=[*MODELS, "picto"])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--encode-batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--units", type=int, default=384)
    parser.add_argument("--rank", type=int, default=30)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--fits", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--many-epochs", type=int, default=8)
    options = parser.parse_args()
    run_sections(options, SECTIONS, options)


if __name__ == "__main__":
    main()
