"""Train one adapter for use: every seed, then the one that is best on val, folded into its encoder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from residual.adapters.adapted_encoder import AdaptedEncoder
from residual.adapters.adapter import Adapter, check_choice
from residual.adapters.card import TrainingRecord
from residual.adapters.early_stopping import FitResult
from residual.adapters.fine_tuning import fine_tune
from residual.adapters.fine_tuning.fine_tune import check_installed
from residual.adapters.fine_tuning.log import LOGGERS
from residual.adapters.fit_settings import FitSettings, TrainSettings
from residual.adapters.methods import FINE_TUNING, AdapterSettings, Reference
from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.encoders.load import load_encoder
from residual.errors import ResidualError
from residual.intervals import mean_and_interval
from residual.libraries import version_of
from residual.progress import Progress, named
from residual.store.base import Store
from residual.store.encode import outputs_of
from residual.store.forward import Encoding
from residual.workflows.task import Task, adapt


@dataclass(frozen=True)
class Trained:
    """What came out: the best seed's encoder, its adapter (None if fine-tuned), and `summary` for JSON."""

    adapted: AdaptedEncoder
    adapter: Adapter | None
    summary: dict[str, Any]


def logger_of(method: str, logger: str | None) -> str | None:
    """The logger for a training: of fine-tuning "csv" if none is named; None for "none", and for adapters.

    Raises:
        ResidualError: an adapter's fit is to have a logger; one that is unknown; or fine-tuning lacks a
            library.
    """
    if logger is not None:
        check_choice("logger", logger, (*LOGGERS, "none"))
    if method == FINE_TUNING:
        chosen = None if logger == "none" else logger or LOGGERS[0]
        check_installed("fine_tune", chosen)
        return chosen
    if logger not in (None, "none"):
        raise ResidualError(
            f"Only {FINE_TUNING} has a logger: {method} is fitted on scores, in seconds and without one; got "
            f"logger={logger!r}."
        )
    return None


def train_adapter(
    encoder: Encoder,
    task: Task,
    reference: Reference,
    method: str,
    fits: Sequence[FitSettings],
    settings: AdapterSettings | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Fit a method's adapter once for each of `fits`; the one with the best accuracy on val is kept.

    Raises:
        ResidualError: see `adapt`.
    """
    start = time.perf_counter()
    adapted = adapt(task, reference, method, fits, settings, progress)
    best = max(adapted, key=lambda each: each.result.merit)
    told = {**asdict(fits[0]), "adapter": asdict(settings or AdapterSettings())}
    summary = _summary(
        encoder, task, method, [each.seed for each in adapted], [each.accuracy for each in adapted],
        [each.result for each in adapted], best.seed, best.adapter.weights.numel(), told,
        time.perf_counter() - start,
    )  # fmt: skip
    made = AdaptedEncoder(encoder, best.adapter, task.classifier, _record(task, method, summary), share=True)
    return Trained(made, best.adapter, summary)


def train_encoder(
    encoder: Encoder,
    task: Task,
    tunings: Sequence[TrainSettings],
    folder: Path | None = None,
    logger: str | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Fine-tune the encoder once for each of `tunings`, each time as it is loaded; the best on val is kept.

    Args:
        encoder: one that can be loaded by its name again.
        task: with datasets.
        tunings: of each training.
        folder: for checkpoints and logs, a sub-folder a seed.
        logger: see `fine_tune`.
        progress: told of every epoch.

    Raises:
        ResidualError: see `fine_tune`.
    """
    start, original = time.perf_counter(), encoder.fingerprint
    pictures = {split: readable(task.datasets[split], store) for split, store in task.stores.items()}
    best: tuple[Any, ...] | None = None
    results, accuracies, weights = [], [], 0
    for settings in tunings:
        tuned = load_encoder(
            encoder.name, device=encoder.device, dtype=torch.float32, centering=encoder.centering
        )
        result = fine_tune(
            tuned, pictures["train"], pictures["val"], task.classifier, settings,
            folder=None if folder is None else folder / f"seed-{settings.seed}", logger=logger,
            device=encoder.device, progress=named(progress, f"fine-tune, seed {settings.seed}"),
        )  # fmt: skip
        outputs = outputs_of(tuned, pictures["test"], Encoding("own", ("head",)))
        accuracies.append(task.classifier.accuracy(outputs, task.stores["test"].labels))
        results.append(result)
        weights = sum(each.numel() for each in tuned.image_parameters().values())
        if best is None or result.merit > best[1].merit:
            best = tuned, result, settings.seed
    if best is None:
        raise ResidualError("Fine-tuning needs settings of at least one training, got none.")
    summary = _summary(
        encoder, task, FINE_TUNING, [each.seed for each in tunings], accuracies, results, best[2], weights,
        asdict(tunings[0]), time.perf_counter() - start,
    )  # fmt: skip
    record = _record(task, FINE_TUNING, summary)
    made = AdaptedEncoder(best[0], None, task.classifier, record, original, share=True)
    return Trained(made, None, summary)


def readable(dataset: ImageDataset, store: Store) -> ImageDataset:
    """The pictures of a dataset that its store has, without those that could not be read."""
    left_out = set(store.skipped)
    if not left_out:
        return dataset
    return dataset.subset([k for k, sample in enumerate(dataset.sample_ids) if sample not in left_out])


def _summary(
    encoder: Encoder,
    task: Task,
    method: str,
    seeds: Sequence[int],
    accuracies: Sequence[float],
    results: Sequence[FitResult],
    kept: int,
    weights: int,
    settings: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    mean, half = mean_and_interval(list(accuracies))
    return {
        "encoder": encoder.name,
        "dataset": task.name,
        "method": method,
        "seeds": list(seeds),
        "kept_seed": kept,
        **{f"n_{split}": len(store) for split, store in task.stores.items()},
        "classes": len(task.classifier),
        "classifier": "text" if encoder.has_text else "class means",
        "accuracy": {"zero_shot": task.zero_shot, method: mean},
        "interval": {method: half},
        "accuracy_of_kept": accuracies[list(seeds).index(kept)],
        "per_seed": [
            {
                "seed": seed,
                "accuracy": accuracy,
                "val_accuracy": result.val_accuracy,
                "best_epoch": result.best_epoch,
                "history": [asdict(epoch) for epoch in result.history],
            }
            for seed, accuracy, result in zip(seeds, accuracies, results, strict=True)
        ],
        "parameters": {method: weights},
        "settings": {name: value for name, value in settings.items() if name != "seed"},
        "seconds": {"encode": round(task.seconds, 3), f"fit_{method}": round(seconds, 3)},
        "skipped": task.skipped,
        "versions": {name: version_of(name) for name in ("residual-vit", "torch", "transformers")},
    }


def _record(task: Task, method: str, summary: dict[str, Any]) -> TrainingRecord:
    return TrainingRecord(
        dataset=task.name,
        accuracy=summary["accuracy"],
        interval=summary["interval"],
        n_train=summary["n_train"],
        n_test=summary["n_test"],
        seeds=tuple(summary["seeds"]),
        settings=summary["settings"],
    )
