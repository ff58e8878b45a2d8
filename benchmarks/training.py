"""What training costs over a plain loop, and how long many short fine-tunings take.

    python benchmarks/training.py --out benchmarks/results/training.json
    python benchmarks/training.py --out benchmarks/results/training-cpu.json --sections adapter tower

Whole trainings are timed, validation after every epoch included, and divided by their steps; the ways take
turns. "plain" is the same optimiser in a loop of a few lines, "ours" is `fit` or `fine_tune`, "folder" the
latter with a checkpoint after every epoch, "Trainer" is Lightning's Trainer with as little around it as it
can be told to have. Section "adapter" trains the linear map (d = 192) on 2,048 scores in batches of 64,
"tower" the embedded encoder (6.6 million weights, 64 by 64 pixels) on random pixels, "many" does that again
and again from its own weights. All are in memory, on the card if there is one.
"""

from __future__ import annotations

import argparse
import copy
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from common import parser_of, run_sections, spread
from lightning.pytorch import LightningModule, Trainer
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from residual import load_encoder
from residual.adapters import FitSettings, LinearMap, Scores, TrainSettings, fine_tune, fit
from residual.data import PixelDataset
from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.text import ZeroShotClassifier

CLASSES = 10
NAMES = [f"class {index}" for index in range(CLASSES)]


class Plain:
    """A model, samples and settings, for loops that aren't the library's."""

    def __init__(
        self, forward: nn.Module, weights: list[nn.Parameter], samples: list[Tensor], settings: TrainSettings,
        classifier: ZeroShotClassifier,
    ):  # fmt: skip
        self.forward, self.weights, self.samples = forward, weights, samples
        self.settings, self.classifier = settings, classifier

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self.classifier.logits(self.forward(inputs)), labels)

    def optimizer(self) -> AdamWScheduleFree:
        return AdamWScheduleFree(self.weights, lr=self.settings.learning_rate)

    def run(self) -> None:
        inputs, labels, val, val_labels = self.samples
        optimizer, size = self.optimizer(), self.settings.batch_size
        best, kept = -1.0, None
        for _ in range(self.settings.epochs):
            optimizer.train()
            for picked in torch.randperm(len(inputs)).to(inputs.device).split(size):
                optimizer.zero_grad()
                self.loss(inputs[picked], labels[picked]).backward()
                if self.settings.clip:
                    nn.utils.clip_grad_norm_(self.weights, self.settings.clip)
                optimizer.step()
            optimizer.eval()
            with torch.no_grad():
                logits = torch.cat([self.classifier.logits(self.forward(part)) for part in val.split(256)])
                accuracy = (logits.argmax(1) == val_labels).double().mean().item()
            if accuracy > best:
                best, kept = accuracy, [each.detach().clone() for each in self.weights]
        del kept

    def lightning(self, accelerator: str) -> None:
        inputs, labels, val, val_labels = self.samples
        size = self.settings.batch_size

        class Batches:
            def __init__(self, inputs: Tensor, labels: Tensor, size: int, shuffled: bool):
                self.inputs, self.labels, self.size, self.shuffled = inputs, labels, size, shuffled

            def __len__(self) -> int:
                return -(-len(self.inputs) // self.size)

            def __iter__(self) -> Any:
                n, device = len(self.inputs), self.inputs.device
                order = torch.randperm(n) if self.shuffled else torch.arange(n)
                for picked in order.to(device).split(self.size):
                    yield self.inputs[picked], self.labels[picked]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = Trainer(
                accelerator=accelerator, devices=1, max_epochs=self.settings.epochs, logger=False,
                enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                num_sanity_val_steps=0, gradient_clip_val=self.settings.clip or None,
            )  # fmt: skip
            trainer.fit(
                _Line(self), Batches(inputs, labels, size, True), Batches(val, val_labels, 256, False)
            )


class _Line(LightningModule):
    def __init__(self, plain: Plain):
        super().__init__()
        self.plain, self.model, self.right = plain, plain.forward, 0.0

    def on_train_epoch_start(self) -> None:
        self.optimizers().train()

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return self.plain.loss(*batch)

    def on_validation_epoch_start(self) -> None:
        self.optimizers().eval()

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        logits = self.plain.classifier.logits(self.model(batch[0]))
        self.right = self.right + (logits.argmax(1) == batch[1]).sum()

    def on_validation_epoch_end(self) -> None:
        self.right = float(self.right) * 0

    def configure_optimizers(self) -> AdamWScheduleFree:
        return self.plain.optimizer()


class _Map(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(dim))

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs @ self.matrix


class _Tower(nn.Module):
    def __init__(self, encoder: Encoder):
        super().__init__()
        self.module, self.encoder = encoder.module, encoder

    def forward(self, pixels: Tensor) -> Tensor:
        return self.encoder.run("image", pixels)


def compare(ways: dict[str, Callable[[], Any]], steps: int, rounds: int) -> dict[str, Any]:
    """Of each way the seconds a step, and the median over rounds of its time over plain's in that round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in list(ways.items())[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:  # the first is to warm up
                seconds[name].append(time.perf_counter() - start)
    found = {
        name: {
            "milliseconds_a_step": spread([1000 * each / steps for each in times]),
            "time_of_plain": spread([each / own for each, own in zip(times, seconds["plain"], strict=True)]),
        }
        for name, times in seconds.items()
    }
    for name, values in found.items():
        print(
            f"{name}: {values['milliseconds_a_step']['median']:.4g} ms a step, "
            f"{values['time_of_plain']['median']:.3f} of plain's time",
            flush=True,
        )
    return found


def adapter(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    n, dim = 2048, 192
    samples = [torch.randn(count, dim, generator=generator).to(device) for count in (n, 512)]
    labels = [torch.randint(0, CLASSES, (len(each),), generator=generator).to(device) for each in samples]
    classifier = ZeroShotClassifier(torch.randn(CLASSES, dim, generator=generator).to(device), NAMES)
    scores = [
        Scores(each, torch.eye(dim, device=device), torch.zeros_like(each), own, "x")
        for each, own in zip(samples, labels, strict=True)
    ]
    given = *scores, classifier
    how: dict[str, Any] = {"epochs": options.epochs, "patience": options.epochs}
    settings = TrainSettings(LinearMap.learning_rate, 64, clip=0, **how)

    def plain() -> Plain:
        model = _Map(dim).to(device)
        both = [samples[0], labels[0], samples[1], labels[1]]
        return Plain(model, list(model.parameters()), both, settings, classifier)

    ways = {
        "plain": lambda: plain().run(),
        "ours": lambda: fit(LinearMap(dim), *given, FitSettings(**how), device=device),
        "Trainer": lambda: plain().lightning(device.type),
    }
    return compare(ways, options.epochs * n // settings.batch_size, options.rounds)


def _in_folder(work: Callable[[str], Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work(folder)


def pictures(n: int, device: torch.device) -> tuple[list[PixelDataset], ZeroShotClassifier]:
    """Random pixels, each class of its own mean."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, 3, 64, 64, generator=generator)
    made = []
    for count, split in ((n, "train"), (n // 4, "val")):
        labels = torch.randint(0, CLASSES, (count,), generator=generator)
        pixels = means[labels] + 4 * torch.randn(count, 3, 64, 64, generator=generator)
        made.append(PixelDataset(pixels.to(device), labels.numpy(), NAMES, split=split))
    classifier = ZeroShotClassifier(torch.randn(CLASSES, 192, generator=generator).to(device), NAMES)
    return made, classifier


def tower(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    (first, second), classifier = pictures(options.pictures, device)
    encoder = load_encoder("picto", device=device)
    epochs = max(1, options.epochs // 5)
    settings = TrainSettings(epochs=epochs, patience=epochs, batch_size=options.batch)
    both = [
        *(first.pixels, torch.from_numpy(first.labels).to(device)),
        *(second.pixels, torch.from_numpy(second.labels).to(device)),
    ]

    def plain() -> Plain:
        own = encoder.around(copy.deepcopy(encoder.module))
        weights = [each for name, each in own.module.named_parameters() if name.startswith("vis")]
        return Plain(_Tower(own), weights, both, settings, classifier)

    def ours(folder: str | None = None) -> None:
        own = encoder.around(copy.deepcopy(encoder.module))
        fine_tune(own, first, second, classifier, settings, device=device, folder=folder)

    ways = {
        "plain": lambda: plain().run(),
        "ours": ours,
        "folder": lambda: _in_folder(ours),
        "Trainer": lambda: plain().lightning(device.type),
    }
    return compare(ways, epochs * -(-options.pictures // options.batch), options.rounds)


def many(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    (first, second), classifier = pictures(options.pictures, device)
    encoder = load_encoder("picto", device=device)
    found: dict[str, Any] = {}
    for precision in options.precisions:
        settings = TrainSettings(epochs=30, patience=30, precision=precision)
        seconds, kept = [], []
        for seed in (0, *range(options.many)):  # the first two are the same
            own = encoder.around(copy.deepcopy(encoder.module))
            start = time.perf_counter()
            how = TrainSettings(**(vars(settings) | {"seed": seed}))
            result = fine_tune(own, first, second, classifier, how, device=device)
            seconds.append(time.perf_counter() - start)
            kept.append((result.history, own.module.vision_model.state_dict()))
        same = all(torch.equal(kept[0][1][name], kept[1][1][name]) for name in kept[0][1])
        found[precision] = {
            "trainings": len(seconds), "seconds": spread(seconds), "total_seconds": sum(seconds),
            "steps": 30 * -(-options.pictures // 128), "same_seed_same_weights": same,
            "same_seed_same_history": kept[0][0] == kept[1][0],
        }  # fmt: skip
        print(precision, found[precision], flush=True)
    return found


SECTIONS = {"adapter": adapter, "tower": tower, "many": many}


def main() -> None:
    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10, help="of 'adapter'; a fifth of it of 'tower'")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128, help="of 'tower'")
    parser.add_argument("--many", type=int, default=10, help="trainings of 'many', and one")
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--threads", type=int, default=2, help="on a CPU")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    run_sections(options, SECTIONS, options, find_device(None))


if __name__ == "__main__":
    main()
