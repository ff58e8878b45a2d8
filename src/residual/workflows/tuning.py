"""Fine-tune an encoder once a seed: one after another here, or each as a task of an executor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from residual.adapters.early_stopping import FitResult
from residual.adapters.fine_tuning import fine_tune
from residual.adapters.fit_settings import TrainSettings
from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.encoders.load import load_encoder
from residual.executors import Executor
from residual.files import make_folder, write_errors
from residual.progress import Progress
from residual.store.base import Store
from residual.store.encode import outputs_of
from residual.store.encoding import Encoding
from residual.store.shared import Seen, warn_of_shared
from residual.text.classifier import ZeroShotClassifier
from residual.workflows.task import Task


@dataclass(frozen=True)
class Tuned:
    """One fine-tuned encoder: its accuracy and answers on "test", how training went, what it holds."""

    seed: int
    encoder: Encoder
    accuracy: float
    result: FitResult
    weights: int
    outputs: dict[str, Tensor]
    answers: np.ndarray


def fine_tuned(
    encoder: Encoder,
    task: Task,
    tunings: Sequence[TrainSettings],
    *,
    encoding: Encoding | None = None,
    splits: Sequence[str] = ("test",),
    folder: Path | None = None,
    logger: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> Iterator[Tuned]:
    """Fine-tune the encoder once for each of `tunings`, each time as it is loaded, in single precision.

    Args:
        encoder: one that can be loaded by its name again.
        task: with datasets.
        tunings: of each training.
        encoding: how outputs are made afterwards.
        splits: which outputs are wanted, "test" at least.
        folder: for checkpoints and logs, a sub-folder a seed. A worker that doesn't reach it keeps neither.
        logger, overwrite: see `fine_tune`.
        progress: told of every epoch; of an executor, of every training.
        executor: where each training is a task; None for one after another here.

    Raises:
        ResidualError: see `fine_tune`.
    """
    seen = {split: Seen.of(task.stores[split]) for split in ("train", "val")}
    so = "the epoch is chosen by what was fitted"
    warn_of_shared(seen["train"], seen["val"], "weights are fitted on", so)
    pictures = {split: readable(task.datasets[split], store) for split, store in task.stores.items()}
    training = _Training(
        encoder.name, encoder.centering, pictures, task.classifier, task.stores["test"].labels,
        encoding or Encoding("own", ("head",)), tuple(splits), folder, logger, overwrite,
    )  # fmt: skip
    if executor is not None:
        yield from _tuned_by_workers(encoder, training, tunings, executor, progress)
        return
    for settings in tunings:
        inside = None if progress is None else partial(_of_seed, progress, settings.seed)
        yield training.tuned(settings, encoder.device, inside)


@dataclass(frozen=True)
class _Training:
    """What the trainings of all seeds have in common, see `fine_tuned`."""

    encoder: str
    centering: str
    pictures: Mapping[str, ImageDataset]
    classifier: ZeroShotClassifier
    labels: np.ndarray
    encoding: Encoding
    splits: tuple[str, ...]
    folder: Path | None
    logger: str | None
    overwrite: bool

    def fresh(self, device: torch.device | None) -> Encoder:
        """The encoder as it is loaded."""
        return load_encoder(self.encoder, device=device, dtype=torch.float32, centering=self.centering)

    def tuned(
        self, settings: TrainSettings, device: torch.device | None, progress: Progress | None = None
    ) -> Tuned:
        """One training."""
        tuned, pictures = self.fresh(device), self.pictures
        weights = sum(each.numel() for each in tuned.image_parameters().values())
        result = fine_tune(
            tuned, pictures["train"], pictures["val"], self.classifier, settings,
            folder=None if self.folder is None else self.folder / f"seed-{settings.seed}",
            logger=self.logger, overwrite=self.overwrite, device=tuned.device, progress=progress,
        )  # fmt: skip
        outputs = {
            split: outputs_of(tuned, pictures[split], self.encoding, progress) for split in self.splits
        }
        accuracy = self.classifier.accuracy(outputs["test"], self.labels)
        answers = self.classifier.answers(outputs["test"]).cpu().numpy()
        return Tuned(settings.seed, tuned, accuracy, result, weights, outputs, answers)


class _Sent(NamedTuple):
    """A `Tuned` as it comes from a worker: all but its encoder, outputs, and the weights, as arrays."""

    about: dict[str, Any]
    outputs: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def _tuned_by_workers(
    encoder: Encoder,
    training: _Training,
    tunings: Sequence[TrainSettings],
    executor: Executor,
    progress: Progress | None,
) -> Iterator[Tuned]:
    """The same by an executor, in the order of `tunings`."""
    if training.folder is not None:
        training = replace(training, folder=(folder := training.folder.absolute()))
        with write_errors(folder):
            make_folder(folder)
    waiting: dict[int, _Sent] = {}
    coming = done = 0

    def tell() -> None:
        if progress is not None:
            progress("fine-tune, all seeds", done, len(tunings))

    tell()
    for number, sent in executor.run(partial(_same, training), _trained, tunings, tick=tell):
        waiting[number], done = sent, done + 1
        tell()
        while coming in waiting:
            about, outputs, weights = waiting.pop(coming)
            tuned = training.fresh(encoder.device)
            with torch.no_grad():
                for name, mine in _trainable(tuned).items():
                    mine.copy_(torch.tensor(weights[name]))
            there = {split: torch.tensor(each).to(encoder.device) for split, each in outputs.items()}
            yield Tuned(encoder=tuned, outputs=there, **about)
            coming += 1


def _same(training: _Training) -> _Training:
    """In a worker; checkpoints and logs are kept in the folder that is shared, and in no other."""
    if training.folder is not None and not training.folder.is_dir():
        return replace(training, folder=None, logger=None)
    return training


def _trained(training: _Training, settings: TrainSettings) -> _Sent:
    """A worker's task."""
    done = training.tuned(settings, None)
    about = {name: value for name, value in vars(done).items() if name not in ("encoder", "outputs")}
    outputs = {split: each.cpu().numpy() for split, each in done.outputs.items()}
    weights = {name: each.detach().cpu().numpy() for name, each in _trainable(done.encoder).items()}
    return _Sent(about, outputs, weights)


def _trainable(encoder: Encoder) -> dict[str, Tensor]:
    """What a training changes."""
    buffers = {
        name: each
        for name, each in encoder.module.named_buffers()
        if encoder.in_image_tower(name) and each.is_floating_point()
    }
    return {**encoder.image_parameters(), **buffers}


def _of_seed(progress: Progress, seed: int, stage: str, done: int, total: int) -> None:
    """ "fine-tune, seed 0", and what else the stage's name says."""
    what, *more = stage.split(", ", 1)
    progress(", ".join([what, f"seed {seed}", *more]), done, total)


def readable(dataset: ImageDataset, store: Store) -> ImageDataset:
    """The pictures of a dataset that its store has, without those that could not be read."""
    left_out = set(store.skipped)
    if not left_out:
        return dataset
    return dataset.subset([k for k, sample in enumerate(dataset.sample_ids) if sample not in left_out])
