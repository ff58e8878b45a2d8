"""Cells that are measured: one here, or all of them as an executor's tasks.

On an executor the stores come first, so that no two workers encode the same: a large one is cut at its shards
among all workers, of the others each goes to one. Then cells go as tasks. A worker has one encoder at a time;
what a cell leaves comes back to who asked, so that workers need to reach the stores alone.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from residual.errors import WorkerDiedError
from residual.executors import Executor
from residual.executors.parcels import packed, unpacked
from residual.experiments.base import Experiment
from residual.experiments.plan import Plan, Work
from residual.libraries import first_line
from residual.progress import Progress
from residual.store.site import site_of

_SMALL = 4096  # samples that one worker encodes about as soon as several have begun to


@dataclass(frozen=True)
class Measured:
    """What came of a cell.

    Args:
        table: its numbers.
        outputs: files that it leaves in the folder of results.
        skipped: by dataset and split, ids of the pictures that it was measured without.
        seconds: that it took.
    """

    table: pd.DataFrame
    outputs: Mapping[Path, bytes]
    skipped: Mapping[str, tuple[str, ...]]
    seconds: float


def measured(experiment: Experiment, work: Work, cell: str) -> Measured:
    """Measure one cell."""
    start, work.outputs = time.perf_counter(), {}
    table = experiment.measure(work, cell)
    of = dict.fromkeys(f"{name}/{split}" for name, _, split in experiment.stores(work, cell))
    skipped = {each: work.skipped[each] for each in of if work.skipped.get(each)}
    return Measured(table, work.outputs, skipped, time.perf_counter() - start)


@dataclass(frozen=True)
class _Store:
    """A store that cells read: its encoder's name, and what `Work.store` takes."""

    encoder: str
    of: tuple[str, str, str]


@dataclass(frozen=True)
class _Cell:
    """A cell that is to be measured: what it is made of, by its encoder's name."""

    encoder: str
    cell: str
    stores: tuple[_Store, ...]
    files: Mapping[Path, bytes]


class Grid:
    """Cells of an experiment, to be measured on an executor.

    Args:
        experiment: measures.
        plan: what it goes over.
        executor: where.
        progress: told of the stores and cells that are done.
    """

    def __init__(self, experiment: Experiment, plan: Plan, executor: Executor, progress: Progress):
        self.experiment, self.executor, self.progress = experiment, executor, progress
        self.dtype = site_of(executor).dtype  # of encoders, here as there
        stores = plan.place_of_stores
        whole = stores.absolute() if isinstance(stores, Path) else stores
        plan = replace(plan, out=plan.out.absolute(), stores=whole)
        self._bench = partial(_Bench, type(experiment), experiment.settings, plan, self.dtype)
        self._cells: list[_Cell] = []
        self._sizes: dict[_Store, int] = {}  # of those that are still to be encoded
        self._broken: dict[_Store, Exception] = {}

    def add(self, work: Work, cell: str) -> None:
        """One cell, of an encoder at work here."""
        stores = tuple(_Store(work.name, of) for of in self.experiment.stores(work, cell))
        for each in stores:
            name, _, split = each.of
            self._sizes.setdefault(each, len(work.dataset(name, split)))
        read = {path: work.read(path) for path in self.experiment.reads(work.name, cell)}
        files = {path: data for path, data in read.items() if data is not None}
        self._cells.append(_Cell(work.name, cell, stores, files))

    def encode_large(self, work: Work) -> None:
        """Encode those of an encoder's stores that are more than one worker's share of all."""
        own = {store: size for store, size in self._sizes.items() if store.encoder == work.name}
        share = sum(own.values()) / self.executor.workers() if own else 0
        for store, size in own.items():
            if size > max(share, _SMALL):
                del self._sizes[store]
                try:
                    work.encode(*store.of, executor=self.executor)
                except WorkerDiedError:
                    raise
                except Exception as error:  # whatever it is, other cells may be measured
                    self._broken[store] = error

    def measured(self) -> Iterator[tuple[str, str, Measured | Exception]]:
        """Of every cell its encoder's name, its own, and what came of it, as they are done."""
        stores = list(self._sizes)
        for number, error in self._run("encode stores", _encoded, stores):
            if error is not None:
                self._broken[stores[number]] = error
        whole = []
        for each in self._cells:
            broken = next((self._broken[store] for store in each.stores if store in self._broken), None)
            if broken is None:
                whole.append(each)
            else:
                yield each.encoder, each.cell, broken
        for number, found in self._run("measure cells", _measured, whole):
            yield whole[number].encoder, whole[number].cell, found

    def _run(self, stage: str, work: Any, tasks: list[Any]) -> Iterator[tuple[int, Any]]:
        done = 0
        if tasks:
            tell = lambda: self.progress(stage, done, len(tasks))  # noqa: E731
            tell()
            for number, found in self.executor.run(self._bench, work, tasks, tick=tell):
                done += 1
                tell()
                yield number, found


class _Bench:
    """What a worker has: one encoder at work."""

    def __init__(self, kind: type[Experiment], settings: Any, plan: Plan, dtype: torch.dtype):
        self.experiment, self.plan, self.dtype = kind(settings), plan, dtype
        self.work: Work | None = None

    def of(self, encoder: str, files: Mapping[Path, bytes] | None) -> Work:
        """The work of an encoder, which is loaded once for all tasks that follow each other."""
        if self.work is None or self.work.name != encoder:
            self.work = None
            gc.collect()  # the last encoder goes before the next is loaded
            self.work = Work(self.plan, encoder, _unheard, self.dtype)
        self.work.files = files
        return self.work


def _encoded(bench: _Bench, task: _Store) -> Exception | None:
    """Encode a store; what was in the way."""
    try:
        bench.of(task.encoder, None).encode(*task.of)
    except Exception as error:
        return _sendable(error)
    return None


def _measured(bench: _Bench, task: _Cell) -> Measured | Exception:
    """Measure a cell, or say what was in the way."""
    try:
        return measured(bench.experiment, bench.of(task.encoder, task.files), task.cell)
    except Exception as error:
        return _sendable(error)


def _sendable(error: Exception) -> Exception:
    """An error as another process can have it."""
    try:
        return unpacked(packed(error))
    except Exception:  # an error may be made of anything
        return RuntimeError(f"{type(error).__name__}: {first_line(error)}")


def _unheard(stage: str, done: int, total: int) -> None:
    """Progress of a worker, which nobody hears."""
