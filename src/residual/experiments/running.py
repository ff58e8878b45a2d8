"""Run an experiment: cells are measured once, here or on an executor; then tables and figures of all."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from residual.errors import OtherResultError, ResidualError, is_out_of_memory
from residual.executors import Executor, opened
from residual.experiments.base import Experiment, Tables
from residual.experiments.cells import Grid, Measured, measured
from residual.experiments.plan import Plan, Work
from residual.experiments.results import Kept, Results, shown, shown_settings
from residual.files import safe_name, write_text
from residual.progress import Progress
from residual.report.figures import check_matplotlib
from residual.report.figures import draw as save_figure
from residual.report.geometry import latex_table, markdown_table
from residual.tensor_files import write_parts
from residual.workflows.encode import check_on


def run_experiment(
    experiment: Experiment,
    plan: Plan,
    progress: Progress,
    *,
    lacking: Mapping[str, ResidualError] | None = None,
    explain: Callable[[Exception], str] = str,
    executor: Executor | str | None = None,
) -> dict[str, Any]:
    """Measure what isn't there yet, then draw everything.

    Each cell is a Parquet file in `plan.out`, written when it is done; figures are in `figures` beside them,
    and `table.md` and `table.tex` hold the summary of each encoder. A cell that fails leaves the others
    alone: called again, it is tried again. One that was measured before, of what can't be had now, is
    tabulated as it is.

    Args:
        experiment: what is measured.
        plan: of what.
        progress: told of every stage.
        lacking: encoders and datasets that can't be had, by name, and why (`Preflight.lacking`): the cells
            that need one aren't tried.
        explain: what is to be said of a cell's failure.
        executor: where cells are measured, see `residual.executors.executor_of`: "gpus", "ray" and so on;
            None for this process. Its workers must reach `Plan.place_of_stores`, and nothing else of `out`
            but for checkpoints of fine-tuning, which goes on from those that it reaches.

    Returns:
        `experiment`, `out` (the folder's name), `settings`, `cells` (with `measured`, whether it was done
        now, and `seconds`), `failed` (with the `reason`), `unchecked` (those of `cells` that were measured
        before, of an encoder or a dataset that can't be had now, with the `reason`), `summary`, `details`,
        `skipped` (by dataset, ids of the pictures that couldn't be read), `tables` and `figures` (files in
        that folder), `undrawn` (why figures are missing; empty if none is).

    Raises:
        ResidualError: results of other settings in the folder, a missing library, a device of this process
            beside an executor, or no cell could be measured; of a single reason for that, the very error.
    """
    check_on(executor, plan.device)
    check_matplotlib()
    folder = plan.out / experiment.folder
    results, failures = Results(folder), _Failures(explain)
    kept = _kept(experiment, plan, results, failures)
    with opened(executor) as elsewhere:
        done = _done(experiment, plan, results, kept, failures, progress, lacking or {}, elsewhere)
    failures.sort(plan.encoders, experiment.cells(plan))
    tables: Tables = {}
    cells = []
    skipped: dict[str, dict[str, None]] = {}
    for name, cell in [each for each in kept if each in done]:
        each = done[name, cell]
        tables.setdefault(shown(name), {})[shown(cell)] = each.table
        for of, samples in each.skipped.items():
            skipped.setdefault(of, {}).update(dict.fromkeys(samples))
        told = {"encoder": shown(name), "dataset": shown(cell)}
        cells.append({**told, "measured": each.seconds is not None, "seconds": round(each.seconds or 0.0, 3)})
    if not tables:
        failures.end()
    summary = {name: experiment.summary(rows) for name, rows in tables.items()}
    experiment.tabulate(folder, tables)
    more = experiment.more(tables)
    for name, pages in more.items():
        for ending, table_of in (("md", markdown_table), ("tex", latex_table)):
            parts = [table_of(page.headings, page.lines, page.title) for page in pages]
            write_text(folder / f"{name}.{ending}", "\n".join(parts))
    figures: list[Path] = []
    undrawn = ""
    try:
        for name, figure in experiment.figures(tables):
            figures += save_figure(figure, folder / "figures", safe_name(name))
    except Exception as error:  # what is measured is told all the same
        undrawn = explain(error)
    return {
        "experiment": experiment.folder,
        "out": folder.name,
        "settings": shown_settings(asdict(experiment.settings)),
        "cells": cells,
        "failed": failures.told,
        "unchecked": failures.unchecked,
        "summary": summary,
        "details": {name: experiment.details(rows) for name, rows in tables.items()},
        "skipped": {of: list(samples) for of, samples in skipped.items()},
        "tables": [f"{name}.md" for name in ("table", *more)],
        "figures": [path.relative_to(folder).as_posix() for path in figures],
        "undrawn": undrawn,
    }


@dataclass(frozen=True)
class _Done:
    """One cell: its table, the samples that it is without by dataset, and seconds if it was measured now."""

    table: pd.DataFrame
    skipped: Mapping[str, Sequence[str]]
    seconds: float | None = None


def _done(
    experiment: Experiment,
    plan: Plan,
    results: Results,
    kept: Mapping[tuple[str, str], Kept | None],
    failures: _Failures,
    progress: Progress,
    lacking: Mapping[str, ResidualError],
    executor: Executor | None,
) -> dict[tuple[str, str], _Done]:
    """Every cell by its encoder's name and its own, but those that failed; each is kept as soon as it is
    measured."""
    done: dict[tuple[str, str], _Done] = {}
    notes: dict[tuple[str, str], dict[str, Any]] = {}
    grid = None
    if executor is not None and None in kept.values():
        grid = Grid(experiment, plan, executor, progress)
    at_work = (plan, None) if grid is None else (replace(plan, device="cpu"), grid.dtype)

    def keep(name: str, cell: str, found: Measured) -> None:
        for path, data in found.outputs.items():
            write_parts(plan.out / path, [data])
        left_out = results.write(name, cell, notes[name, cell], found.table, found.skipped)
        experiment.clear(plan, name, cell)
        done[name, cell] = _Done(found.table, left_out, found.seconds)

    for name in plan.encoders:
        gc.collect()  # the last encoder goes before the next is loaded
        work = Work(at_work[0], name, progress, at_work[1])
        own = {cell: found for (encoder, cell), found in kept.items() if encoder == name}
        # All are looked at before the first is measured: results of something else are told at once.
        for cell, note in _notes(experiment, work, own, lacking, failures).items():
            notes[name, cell], found = note, own[cell]
            with failures.of(name, cell):
                if found:
                    done[name, cell] = _Done(found.table, found.skipped)
                    continue
                experiment.check(work, cell)
                if grid:
                    grid.add(work, cell)
                else:
                    keep(name, cell, measured(experiment, work, cell))
        if grid:
            grid.encode_large(work)
        del work
    for name, cell, found in grid.measured() if grid else ():
        with failures.of(name, cell):
            if isinstance(found, Exception):
                raise found
            keep(name, cell, found)
    return done


class _Failures:
    """The cells that couldn't be measured, and why.

    Args:
        explain: what is to be said of each.
    """

    def __init__(self, explain: Callable[[Exception], str]):
        self.explain = explain
        self.told: list[dict[str, str]] = []
        self.unchecked: list[dict[str, str]] = []  # those that were measured before
        self.first: Exception | None = None
        self._last: tuple[Exception, str] | None = None

    def add(self, encoder: str, cell: str, error: Exception, there: bool = False) -> None:
        """One cell, for a reason that may be that of the last one, too."""
        if self._last is None or self._last[0] is not error:
            reason = self.explain(error)
            if is_out_of_memory(error):  # what its frames hold isn't there for the next cell
                error = error.with_traceback(None)
            self._last = error, reason
        rows = self.unchecked if there else self.told
        rows.append({"encoder": shown(encoder), "dataset": shown(cell), "reason": self._last[1]})
        self.first = self.first or error

    @contextmanager
    def of(self, encoder: str, cell: str) -> Generator[None]:
        """Take whatever fails in here for the failure of one cell."""
        try:
            yield
        except Exception as error:  # whatever it is, other cells may be measured
            self.add(encoder, cell, error)

    def sort(self, encoders: Sequence[str], cells: Sequence[str]) -> None:
        """Tell them in the order of the plan, in whichever they came."""
        named = product(map(shown, encoders), map(shown, cells))
        places = {each: place for place, each in enumerate(named)}
        for rows in (self.told, self.unchecked):
            rows.sort(key=lambda row: places[row["encoder"], row["dataset"]])

    def end(self) -> None:
        """Raise what stood in the way of all.

        Raises:
            ResidualError: or the one error that it was.
        """
        reasons = list(dict.fromkeys(each["reason"] for each in self.told))
        if self.first is None or not reasons:
            raise ResidualError("There is nothing to measure: name a dataset.")
        if len(reasons) == 1:
            raise self.first
        raise ResidualError(f"None of {len(self.told)} cells could be measured. {' '.join(reasons)}")


def _kept(
    experiment: Experiment, plan: Plan, results: Results, failures: _Failures
) -> dict[tuple[str, str], Kept | None]:
    """What is there of every cell; those that are damaged have failed.

    Raises:
        OtherResultError: one is of other settings.
    """
    kept = {}
    for name in plan.encoders:
        for cell in experiment.cells(plan):
            with failures.of(name, cell):
                kept[name, cell] = results.kept(name, cell)
    for (_, cell), found in kept.items():
        if found:
            found.check(_about(experiment, plan, cell), whole=False)
    return kept


def _notes(
    experiment: Experiment,
    work: Work,
    kept: Mapping[str, Kept | None],
    lacking: Mapping[str, ResidualError],
    failures: _Failures,
) -> dict[str, dict[str, Any]]:
    """What every cell of an encoder is of. Where that can't be told the cell has failed, unless it is there;
    where one is of something else, no other is measured into its folder."""
    plan, name = work.plan, work.name
    notes: dict[str, dict[str, Any]] = {}
    lack: Exception | None = None
    other: OtherResultError | None = None
    try:
        if name in lacking:
            raise lacking[name]
        _ = work.encoder  # loaded once: it fails for all cells or for none
    except Exception as error:
        lack = error
    for cell, found in kept.items():
        try:
            for error in (lack, *(lacking.get(needed) for needed, _ in experiment.depends_on(plan, cell))):
                if error is not None:
                    raise error
            notes[cell] = _note(experiment, plan, work, cell)
        except Exception as error:
            failures.add(name, cell, error, there=found is not None)
            if found:
                notes[cell] = found.note
            continue
        try:
            if found:
                found.check(notes[cell])
        except OtherResultError as error:
            failures.add(name, cell, other := error)
            del notes[cell]
    if other:
        for cell in [cell for cell in notes if not kept[cell]]:
            failures.add(name, cell, other)
            del notes[cell]
    return notes


def _about(experiment: Experiment, plan: Plan, cell: str) -> dict[str, Any]:
    """What is known of a cell before anything is loaded."""
    of = dict.fromkeys(name for name, _ in experiment.depends_on(plan, cell))
    return {
        "experiment": experiment.folder,
        "cell": cell,
        "reference": plan.reference,
        "settings": {**experiment.noted(), "split": plan.split, **plan.limits_of(of)},
    }


def _note(experiment: Experiment, plan: Plan, work: Work, cell: str) -> dict[str, Any]:
    made_of = {
        name if split == plan.split else f"{name}/{split}": work.identity(name, split)
        for name, split in experiment.depends_on(plan, cell)
    }
    return {
        **_about(experiment, plan, cell),
        **experiment.noted_of(work.encoder, work.name, cell),
        "encoder": {**next(iter(made_of.values()))["encoder"], "name": work.name},
        "datasets": {name: each["dataset"] for name, each in made_of.items()},
    }
