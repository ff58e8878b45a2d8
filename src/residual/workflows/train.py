"""Train one adapter for use: every seed, then the one that is best on val, folded into its encoder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from residual.adapters.adapted_encoder import AdaptedEncoder
from residual.adapters.adapter import Adapter, check_choice
from residual.adapters.card import TrainingRecord
from residual.adapters.fine_tuning.fine_tune import check_installed
from residual.adapters.fine_tuning.log import LOGGERS
from residual.adapters.fit_settings import FitSettings, TrainSettings
from residual.adapters.methods import FINE_TUNING, AdapterSettings, Reference
from residual.adapters.recipes import Fitting
from residual.encoders.encoder import Encoder
from residual.errors import NoPlaceError, ResidualError
from residual.executors import Executor, opened
from residual.progress import Progress
from residual.workflows.outcome import changes_of, outcome
from residual.workflows.task import (
    MIXED,
    Adapted,
    OwnData,
    Pictures,
    Task,
    adapt,
    load_splits,
    make_task,
    reference_of,
    task_summary,
    title_of,
)
from residual.workflows.tuning import Tuned, fine_tuned


@dataclass(frozen=True)
class Trained:
    """What came out: the best seed's encoder, its adapter (None if fine-tuned), and `summary` for JSON."""

    adapted: AdaptedEncoder
    adapter: Adapter | None
    summary: dict[str, Any]
    task: Task


def train_on(
    encoder: Encoder,
    dataset: str | OwnData,
    method: str,
    how: Fitting | Sequence[TrainSettings],
    *,
    held_out: Sequence[str] = (),
    limit: int = 0,
    bases: str = MIXED,
    per_dataset: int = 200,
    batch_size: int = 64,
    on_error: str = "raise",
    decode: str = "auto",
    stores: str | Path | None = None,
    folder: Path | None = None,
    logger: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    executor: Executor | str | None = None,
) -> Trained:
    """Train a method for the classes of a dataset, from its pictures on.

    Args:
        encoder: what is adapted or fine-tuned.
        dataset: as `load_dataset` takes it, or splits of your own.
        method: "fine_tuning", or an adapter's as `adapt` takes it.
        how: an adapter is made and fitted (`fitting`); of fine-tuning the settings, one a seed.
        held_out, limit: see `load_splits`; pictures of fine-tuning, which are read many times, are fetched
            whole.
        bases, per_dataset: of an adapter, see `reference_from`.
        batch_size, on_error, decode, stores: see `Pictures`.
        folder, logger, overwrite: of fine-tuning, see `fine_tuned`.
        progress: told of every stage.
        executor: where pictures are encoded and seeds of fine-tuning are trained, see
            `residual.executors.executor_of`; None for this process. Adapters are fitted here in any case: it
            takes seconds, on scores of all samples.

    Raises:
        NoPlaceError: an executor without `stores`.
        ResidualError: see `encode_task`, `reference_from`, `adapt` and `fine_tune`.
    """
    if executor is not None and stores is None:
        raise NoPlaceError()
    with opened(executor) as elsewhere:
        if elsewhere is not None:
            elsewhere.workers()  # they begin to start
        start, fits = time.perf_counter(), how.fits if isinstance(how, Fitting) else how
        splits = load_splits(dataset, encoder, held_out, limit, method != FINE_TUNING, fits)
        loading = time.perf_counter() - start
        pictures = Pictures(encoder, batch_size, on_error, stores, progress, limit, elsewhere, decode)
        of_bases = pictures.of_bases(bases, per_dataset) if isinstance(how, Fitting) else None
        start = time.perf_counter()
        encoded = pictures.splits(splits)
        loading += time.perf_counter() - start
        task = make_task(encoder, title_of(dataset, splits), splits, encoded, loading, progress)
        if of_bases is not None and isinstance(how, Fitting):
            given = reference_of(of_bases, progress), method, how.fits, how.adapter
            done = train_adapter(encoder, task, *given, progress, recipe=how.recipe)
        else:
            tunings = [] if isinstance(how, Fitting) else how
            done = train_encoder(
                encoder, task, tunings, folder, logger, progress, overwrite=overwrite, executor=elsewhere
            )
        chosen = {"held_out": list(held_out), **({"limit": limit} if limit else {})}
        done.summary.update(chosen, limit=limit)
        done.summary["settings"].update(chosen)  # the record's settings
        return done


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
    *,
    recipe: str = "paper",
) -> Trained:
    """Fit a method's adapter once for each of `fits`; the one with the best accuracy on val is kept.

    Raises:
        ResidualError: see `adapt`.
    """
    start = time.perf_counter()
    adapted = adapt(task, reference, method, fits, settings, progress)
    best = max(adapted, key=lambda each: each.result.merit)
    used = {"recipe": recipe, **asdict(fits[0]), "adapter": asdict(settings or AdapterSettings())}
    used["weight_decay"] = fits[0].decay_of(best.adapter)
    summary = _summary(encoder, task, method, adapted, best, used, time.perf_counter() - start)
    record, classifier = _record(task, method, summary), task.classifier_for(method)
    made = AdaptedEncoder(encoder, best.adapter, classifier, record, share=True)
    return Trained(made, best.adapter, summary, task)


def train_encoder(
    encoder: Encoder,
    task: Task,
    tunings: Sequence[TrainSettings],
    folder: Path | None = None,
    logger: str | None = None,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
    executor: Executor | None = None,
) -> Trained:
    """Fine-tune the encoder once for each of `tunings`, each time as it is loaded; the best on val is kept.

    Args:
        encoder, task, tunings, folder, logger, progress, overwrite, executor: see `fine_tuned`.

    Raises:
        ResidualError: see `fine_tune`.
    """
    if not tunings:
        raise ResidualError("Fine-tuning needs settings of at least one training, got none.")
    start, original = time.perf_counter(), encoder.fingerprint
    trainings = fine_tuned(
        encoder, task, tunings, folder=folder, logger=logger, overwrite=overwrite, progress=progress,
        executor=executor,
    )  # fmt: skip
    best = next(trainings)
    done = [replace(best, encoder=encoder)]  # only the best one's weights are held on to
    for each in trainings:
        done.append(replace(each, encoder=encoder))
        best = max(best, each, key=lambda one: one.result.merit)
    used = tunings[0].noted(encoder)
    summary = _summary(encoder, task, FINE_TUNING, done, best, used, time.perf_counter() - start)
    record = _record(task, FINE_TUNING, summary)
    made = AdaptedEncoder(best.encoder, None, task.classifier, record, original, share=True)
    return Trained(made, None, summary, task)


def _summary(
    encoder: Encoder,
    task: Task,
    method: str,
    fits: Sequence[Adapted] | Sequence[Tuned],
    best: Adapted | Tuned,
    settings: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    return {
        **task_summary(encoder, task),
        "method": method,
        "seeds": [each.seed for each in fits],
        "kept_seed": best.seed,
        **outcome(task, {method: fits}),
        "changed": {method: changes_of(task, best, method).counts()},
        "accuracy_of_kept": best.accuracy,
        "per_seed": [
            {
                "seed": each.seed,
                "accuracy": each.accuracy,
                "val_accuracy": each.result.val_accuracy,
                "best_epoch": each.result.best_epoch,
                "start": each.result.start and asdict(each.result.start),
                "history": [asdict(epoch) for epoch in each.result.history],
                **({"portions": each.result.portions} if each.result.portions else {}),
            }
            for each in fits
        ],
        "parameters": {method: best.weights},
        "best_epoch": {method: [each.result.best_epoch for each in fits]},
        "settings": {name: value for name, value in settings.items() if name != "seed"},
        "seconds": {"encode": round(task.seconds, 3), f"fit_{method}": round(seconds, 3)},
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
