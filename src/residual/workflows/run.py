"""The main job over one dataset or several: the encoder's bases once, then every task, with what it took."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residual.adapters.methods import ADAPTERS, Reference
from residual.adapters.recipes import Fitting
from residual.encoders.encoder import Encoder
from residual.errors import unknown_name
from residual.files import shareable
from residual.progress import Progress, under
from residual.report.changes import Changes
from residual.store.base import Store
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

RUN_METHODS = ("residual_star", "residual")


@dataclass(frozen=True)
class Run:
    """One task done: what there is to report (`summary`, plain JSON) and what it was made from."""

    summary: dict[str, Any]
    task: Task
    adapted: dict[str, list[Adapted]]

    @property
    def adapters(self) -> dict[str, Any]:
        """Each method's adapter, of the first seed."""
        return {method: fits[0].adapter for method, fits in self.adapted.items()}

    @property
    def changes(self) -> dict[str, Changes]:
        """Which test pictures each of these gets right that the encoder alone doesn't, and the other way."""
        return {method: changes_of(self.task, fits[0], method) for method, fits in self.adapted.items()}


def run_tasks(
    encoder: Encoder,
    datasets: Sequence[str | OwnData],
    fittings: Mapping[str, Fitting],
    *,
    held_out: Sequence[str] = (),
    limit: int = 0,
    bases: str = MIXED,
    per_dataset: int = 200,
    batch_size: int = 64,
    on_error: str = "raise",
    decode: str = "auto",
    stores: str | Path | None = None,
    progress: Progress | None = None,
) -> Generator[Run]:
    """Adapt `encoder` to each dataset, a name or splits of your own, by each method of `fittings`.

    All have as many seeds. Gives one `Run` after another, so that only one task's coordinates are in memory.
    The summary holds `encoder, dataset, bases, held_out, limit, notes, recipe, but, seeds, n_train, n_val,
    n_test, classes, classifier, accuracy, interval, over_pictures, best, changed, per_seed, parameters,
    epochs, best_epoch, seconds, skipped, versions`. An accuracy over several seeds is their mean; see
    `outcome` for `interval`, which is over seeds, `over_pictures` and `best`. `but` are settings that were
    chosen to be others than the recipe's; `changed` says of the first seed how many test pictures it made
    right, and wrong; `notes` how the splits were made, if they were. `held_out` and `limit`: see
    `load_splits`, `decode` and `stores`: see `Pictures`.

    Raises:
        ResidualError: see `encode_task`, `reference_from` and `adapt`.
    """
    for method in fittings:  # a name that isn't there is refused before any work
        if method not in ADAPTERS:
            raise unknown_name("method", method, ADAPTERS)
    # What can't be had is told at once; no picture is decoded yet.
    fits = [each for how in fittings.values() for each in how.fits]
    loaded = [load_splits(name, encoder, held_out, limit, fits=fits) for name in datasets]
    start = time.perf_counter()
    of_bases: Store | Reference = Pictures(
        encoder, batch_size, on_error, stores, under(progress, "bases"), limit, decode=decode
    ).of_bases(bases, per_dataset)
    bases_seconds = time.perf_counter() - start
    for data, splits in zip(datasets, loaded, strict=True):
        name, start = title_of(data, splits), time.perf_counter()
        inside = under(progress, name)
        encoded = Pictures(encoder, batch_size, on_error, stores, inside, limit, decode=decode).splits(splits)
        task = make_task(encoder, name, splits, encoded, time.perf_counter() - start, inside)
        start = time.perf_counter()
        reference = of_bases = reference_of(
            of_bases, inside
        )  # taken of the pictures once, for the first dataset
        bases_seconds += time.perf_counter() - start
        adapted = {
            method: adapt(task, reference, method, how.fits, how.adapter, inside)
            for method, how in fittings.items()
        }
        summary = _summary(encoder, task, adapted)
        summary |= {"held_out": list(held_out), "limit": limit}
        summary["recipe"] = {method: how.recipe for method, how in fittings.items()}
        summary["but"] = {method: dict(how.but) for method, how in fittings.items()}
        summary["bases"] = shareable(bases, path=True)
        summary["skipped"] = list(dict.fromkeys([*reference.skipped, *summary["skipped"]]))
        summary["seconds"]["bases"] = round(bases_seconds, 3)
        yield Run(summary, task, adapted)


def _summary(encoder: Encoder, task: Task, adapted: dict[str, list[Adapted]]) -> dict[str, Any]:
    seconds = {method: sum(each.result.seconds for each in fits) for method, fits in adapted.items()}
    return {
        **task_summary(encoder, task),
        "seeds": [each.seed for each in next(iter(adapted.values()))],
        **outcome(task, adapted),
        "changed": {method: changes_of(task, fits[0], method).counts() for method, fits in adapted.items()},
        "per_seed": {method: [each.accuracy for each in fits] for method, fits in adapted.items()},
        "parameters": {method: fits[0].weights for method, fits in adapted.items()},
        "epochs": {method: [len(each.result.history) for each in fits] for method, fits in adapted.items()},
        "best_epoch": {method: [each.result.best_epoch for each in fits] for method, fits in adapted.items()},
        "seconds": {
            "encode": round(task.seconds, 3),
            "fit": round(sum(seconds.values()), 3),
            **{f"fit_{method}": round(each, 3) for method, each in seconds.items()},
        },
    }
