"""Whether an adapter is ever worse than the encoder that it is made of, by the paper's recipe and by one that
starts at the encoder and decays towards it (docs/adapters.md). On one GPU:

    python benchmarks/harm.py --out benchmarks/results/harm.json --folder CIFAR10 --encoder hf:DINOV2

goes over the ten datasets of the suite by the embedded encoder, and a folder of class folders by an encoder
without text, if one is given. "choose" chooses the weight decays: by accuracy on the val part and on copies
of its pictures in other styles, never on test. "report" then tests them, and the paper's recipe, once. An
interval is of the difference to zero-shot, over seeds and over the choice of test pictures. Of a large part
of a dataset a sample is taken. `--small` is a rehearsal.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from common import parser_of, run_sections
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from residual import load_encoder
from residual.adapters import (
    Adapter,
    AdapterSettings,
    FitSettings,
    LinearMap,
    Reference,
    SpectralMap,
    adapted_output,
    compute_scores,
    evaluate,
    fit_many,
    make_adapter,
)
from residual.adapters.methods import ADAPTERS
from residual.data import ImageDataset, dataset_names
from residual.encoders.encoder import Encoder
from residual.files import shareable
from residual.intervals import mean_and_interval
from residual.store.base import Store
from residual.workflows.task import Pictures, Task, load_splits, make_task, reference_from

METHODS = ("coarse", "residual_star", "residual", "spectral", "linear")
OF_OUTPUT = (SpectralMap, LinearMap)  # whose learning rate is another
DECAYS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
GENTLE = AdapterSettings(mean="keep", init="ones", others="keep", tail="keep")
MOST = {"train": 10_000, "val": 5_000, "test": 10_000}  # pictures of a part
MOST_SHIFTED = 2_000  # of the val part in each style
Config = tuple[str, str, float]  # method, recipe, decay


def turned(image: Image.Image) -> Image.Image:
    """Every hue a third of the circle on."""
    hue, *others = image.convert("HSV").split()
    return Image.merge("HSV", [hue.point(lambda value: (value + 85) % 256), *others]).convert("RGB")


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "grey": lambda image: image.convert("L").convert("RGB"),
    "hue": turned,
    "inverted": ImageOps.invert,
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 32)),
    "thick": lambda image: image.filter(ImageFilter.MinFilter(3)),
    "posterised": lambda image: ImageOps.posterize(image, 2),
}


class Styled(ImageDataset):
    """The pictures of a dataset in another style."""

    def __init__(self, dataset: ImageDataset, style: str):
        self.dataset, self.style = dataset, style
        super().__init__(
            f"{dataset.name} {style}", dataset.split, dataset.class_names, dataset.templates, dataset.labels,
            dataset.sample_ids, dataset.licence,
        )  # fmt: skip

    def load(self, index: int) -> Image.Image:
        return STYLES[self.style](self.dataset.load(index))


@dataclass
class Case:
    """A dataset as its encoder sees it, in other styles too, and the adapters that were fitted on it."""

    task: Task
    reference: Reference
    shifted: dict[str, Store]
    device: torch.device
    fitted: dict[Config, list[Adapter]] = field(default_factory=dict)
    epochs: dict[Config, list[int]] = field(default_factory=dict)


class Bench:
    """All cases, with what was chosen on them."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.start = options, time.perf_counter()
        self.seeds = 2 if options.small else 5
        self.decays = DECAYS[:3] if options.small else DECAYS
        self.cases: list[Case] = []
        self.chosen: dict[str, float] = {}

    def choose(self) -> dict[str, Any]:
        """Fit all, and choose the decays by val and its copies in other styles."""
        rows = []
        for case in self._made():
            self.cases.append(case)
            for method in METHODS:
                rows += self._fitted(case, method)
            print(case.task.name, round(time.perf_counter() - self.start, 1), flush=True)
        found = {
            "methods": {method: _best(rows, [method]) for method in METHODS},
            "groups": {name: _best(rows, methods) for name, methods in _groups().items()},
        }
        for name, methods in _groups().items():
            self.chosen |= dict.fromkeys(methods, found["groups"][name]["decay"])
        seconds = round(time.perf_counter() - self.start, 1)
        return {**found, "styles": list(STYLES), "rows": rows, "seconds": seconds}

    def report(self) -> dict[str, Any]:
        """Test the paper's recipe and the one that was chosen."""
        rows = []
        for case in self.cases:
            task, test = case.task, case.task.stores["test"]
            labels = torch.as_tensor(test.labels)
            before = _right(task, test.output(), labels)
            for method in METHODS:
                for recipe, decay in (("paper", 0.0), ("gentle", self.chosen[method])):
                    adapters = case.fitted[method, recipe, decay]
                    scores = compute_scores(adapters[0], test, device=case.device)
                    right = torch.stack([_right(task, adapted_output(a, scores), labels) for a in adapters])
                    rows.append(
                        {"dataset": shareable(task.name), "method": method, "recipe": recipe, "decay": decay}
                        | {"zero_shot": before.mean().item(), "n_test": len(labels)}
                        | _difference(right, before)
                        | {"kept_start": case.epochs[method, recipe, decay].count(0)}
                    )
        for row in rows:
            if row["below"]:
                print("below zero-shot:", row, flush=True)
        means = {
            f"{method}, {recipe}": statistics.fmean(
                row["accuracy"] for row in rows if (row["method"], row["recipe"]) == (method, recipe)
            )
            for method in METHODS
            for recipe in ("paper", "gentle")
        }
        zero_shot = statistics.fmean({row["dataset"]: row["zero_shot"] for row in rows}.values())
        seconds = round(time.perf_counter() - self.start, 1)
        return {"chosen": self.chosen, "mean": {"zero-shot": zero_shot, **means}, "rows": rows} | {
            "seconds": seconds
        }

    def _made(self) -> Iterator[Case]:
        """Of each dataset in turn."""
        encoder = load_encoder("picto", dtype=torch.float32)
        reference = reference_from(encoder, per_dataset=20 if self.options.small else 200, batch_size=256)
        for name in ["digits", "emoji-concepts"] if self.options.small else dataset_names():
            yield self._case(encoder, name, reference)
        if self.options.folder:
            other = load_encoder(self.options.encoder, dtype=torch.float32)
            yield self._case(other, f"folder:{self.options.folder}", None)

    def _case(self, encoder: Encoder, name: str, reference: Reference | None) -> Case:
        pictures, datasets = Pictures(encoder, 256), load_splits(name, encoder)
        most = dict.fromkeys(MOST, 120) if self.options.small else MOST
        datasets = {split: each.sample(most[split], every_class=True) for split, each in datasets.items()}
        task = make_task(encoder, name, datasets, pictures.splits(datasets), 0.0)
        few = datasets["val"].sample(MOST_SHIFTED, every_class=True)
        shifted = {style: pictures.encode(Styled(few, style), style) for style in STYLES}
        made = reference or Reference.of(task.stores["train"])
        return Case(task, made, shifted, encoder.device)

    def _fitted(self, case: Case, method: str) -> list[dict[str, Any]]:
        """Accuracies on val and on its copies, by recipe and decay; the adapters stay with the case."""
        rows, task = [], case.task
        for recipe, how, decays in (("paper", AdapterSettings(), (0.0,)), ("gentle", GENTLE, self.decays)):
            plain = FitSettings(missing="ignore" if self.options.small else "raise")
            if recipe == "gentle":
                plain = replace(plain, decay_towards="start", or_start=True)
            plans = [(decay, seed) for decay in decays for seed in range(self.seeds)]
            adapters = [make_adapter(method, case.reference, how, seed) for _, seed in plans]
            train, val = (
                compute_scores(adapters[0], task.stores[split], device=case.device)
                for split in ("train", "val")
            )
            settings = [replace(plain, seed=seed, weight_decay=decay) for decay, seed in plans]
            results = fit_many(adapters, train, val, task.classifier, settings, device=case.device)
            del train
            for decay in decays:
                mine = [k for k, (each, _) in enumerate(plans) if each == decay]
                config = method, recipe, decay
                case.fitted[config] = [adapters[k] for k in mine]
                case.epochs[config] = [results[k].best_epoch for k in mine]
                rows.append(
                    {"dataset": shareable(task.name), "method": method, "recipe": recipe, "decay": decay}
                    | {"val": statistics.fmean(results[k].val_accuracy for k in mine)}
                )
            for style, store in case.shifted.items():
                scores = compute_scores(adapters[0], store, device=case.device)
                for row in rows[-len(decays) :]:
                    own = case.fitted[method, recipe, row["decay"]]
                    row[style] = statistics.fmean(evaluate(each, scores, task.classifier) for each in own)
        for row in rows:
            row["score"] = (row["val"] + statistics.fmean(row[style] for style in STYLES)) / 2
        return rows


def _groups() -> dict[str, list[str]]:
    """Methods of one learning rate."""
    output = [method for method in METHODS if issubclass(ADAPTERS[method], OF_OUTPUT)]
    return {"units": [method for method in METHODS if method not in output], "output": output}


def _best(rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> dict[str, Any]:
    """The decay with the best mean score of some methods over all datasets, and over all but one."""
    own = [row for row in rows if row["recipe"] == "gentle" and row["method"] in methods]
    decays, names = (list(dict.fromkeys(row[key] for row in own)) for key in ("decay", "dataset"))

    def scores(without: str | None) -> dict[float, float]:
        kept = [row for row in own if row["dataset"] != without]
        return {
            decay: statistics.fmean(row["score"] for row in kept if row["decay"] == decay) for decay in decays
        }

    def chosen(of: dict[float, float]) -> float:
        return max(of, key=lambda decay: of[decay])

    every = scores(None)
    return {
        "decay": chosen(every),
        "scores": every,
        "without": {name: chosen(scores(name)) for name in names},
    }


def _right(task: Task, output: Tensor, labels: Tensor) -> Tensor:
    """1 for each sample that is classified right, else 0."""
    logits = task.classifier.to(output.device).logits(output)
    return (logits.argmax(1).cpu() == labels).double()


def _difference(right: Tensor, before: Tensor) -> dict[str, Any]:
    """Mean accuracy of `right (seeds, n)`, and how it differs from that of `before (n,)`.

    The 95 % interval's half width has two parts: of the choice of test pictures, by the spread over pictures
    of the difference in their mean over seeds; and of the seeds, by Student's t.
    """
    pictures = right.mean(0) - before
    accuracies = right.mean(1).tolist()
    mean, of_seeds = mean_and_interval(accuracies)
    of_pictures = 1.96 * pictures.std().item() / math.sqrt(len(before))
    difference, half = pictures.mean().item(), math.hypot(of_pictures, of_seeds or 0.0)
    return {
        "accuracy": mean,
        "difference": difference,
        "interval": half,
        "of_pictures": of_pictures,
        "of_seeds": of_seeds,
        "below": difference + half < 0,
        "per_seed": accuracies,
    }


SECTIONS = {"choose": Bench.choose, "report": Bench.report}


def main() -> None:
    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--folder", help="a folder of class folders")
    parser.add_argument("--encoder", default="hf:DINOV2", help="of the folder")
    parser.add_argument("--small", action="store_true", help="a rehearsal")
    options = parser.parse_args()
    run_sections(options, SECTIONS, Bench(options))


if __name__ == "__main__":
    main()
