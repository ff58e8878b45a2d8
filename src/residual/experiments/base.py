"""What all experiments share: cells that are measured once, then tables and figures of all of them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import pandas as pd

from residual.encoders.encoder import Encoder
from residual.errors import OtherResultError, ResidualError, is_out_of_memory
from residual.experiments.plan import Plan, Work
from residual.experiments.results import Kept, Results, shown, shown_settings
from residual.files import safe_name, write_text
from residual.progress import Progress
from residual.report.figures import check_matplotlib
from residual.report.figures import draw as save_figure
from residual.report.geometry import datasets_latex, datasets_markdown, latex_table, markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tables = dict[str, dict[str, pd.DataFrame]]
_NONE = object()


class Page(NamedTuple):
    """A table that is written beside the summary: its title, its headings and its lines."""

    title: str
    headings: list[str]
    lines: list[list[str]]


class Experiment(ABC):
    """One experiment: which cells there are, how one is measured, what is drawn of all.

    Args:
        settings: of the measures, a frozen dataclass.
    """

    folder: ClassVar[str]
    settings_of: ClassVar[type]
    unused: ClassVar[tuple[str, ...]] = ()  # settings that change nothing in it
    later: ClassVar[tuple[str, ...]] = ()  # settings that older cells don't note: as they are by default

    def __init__(self, settings: Any):
        self.settings = settings

    def cells(self, plan: Plan) -> tuple[str, ...]:
        """Names of an encoder's cells: its datasets."""
        return tuple(dict.fromkeys((plan.reference, *plan.datasets)))

    def depends_on(self, plan: Plan, cell: str) -> tuple[tuple[str, str], ...]:
        """The datasets and splits that a cell is made of."""
        return ((cell, plan.split),)

    @abstractmethod
    def measure(self, work: Work, cell: str) -> pd.DataFrame:
        """The table of units of one cell."""

    @staticmethod
    @abstractmethod
    def figures(tables: Tables) -> Iterable[tuple[str, Figure]]:
        """Figures by name, of results as `read_results` gives them."""

    @staticmethod
    @abstractmethod
    def summary(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, int | float]]:
        """For each dataset of one encoder, a few numbers."""

    def layers_held(self, layers: int) -> int:
        """Of how many layers a cell holds the coordinates at once, of an encoder that has so many."""
        return min(layers, 1)

    def asked(self) -> dict[str, Any]:
        """The settings, without those that came later and are as they are by default."""
        default = {each.name: each.default for each in fields(self.settings) if each.name in self.later}
        settings = asdict(self.settings)
        return {name: value for name, value in settings.items() if default.get(name, _NONE) != value}

    def noted(self) -> dict[str, Any]:
        """The settings that a cell depends on: results of others aren't mixed in."""
        return self.asked()

    def noted_of(self, encoder: Encoder, name: str, cell: str) -> dict[str, Any]:
        """What else a cell depends on, that is known once its encoder, by that name, is loaded."""
        return {}

    def tabulate(self, folder: Path, tables: Tables) -> None:
        """Write `table.md` and `table.tex`: by default the summary of each encoder."""
        summary = {name: self.summary(rows) for name, rows in tables.items()}
        for file, table in (("table.md", datasets_markdown), ("table.tex", datasets_latex)):
            parts = [table(rows, list(next(iter(rows.values()))), name) for name, rows in summary.items()]
            write_text(folder / file, "\n".join(parts))

    @staticmethod
    def more(tables: Tables) -> dict[str, list[Page]]:
        """More tables than the summary, by the name of their file."""
        return {}

    @staticmethod
    def details(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
        """For each dataset of one encoder, more than a summary holds, for JSON."""
        return {}


def run_experiment(
    experiment: Experiment,
    plan: Plan,
    progress: Progress,
    *,
    lacking: Mapping[str, ResidualError] | None = None,
    explain: Callable[[Exception], str] = str,
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

    Returns:
        `experiment`, `out` (the folder's name), `settings`, `cells` (with `measured`, whether it was done
        now, and `seconds`), `failed` (with the `reason`), `unchecked` (those of `cells` that were measured
        before, of an encoder or a dataset that can't be had now, with the `reason`), `summary`, `details`,
        `skipped` (by dataset, ids of the pictures that couldn't be read), `tables` and `figures` (files in
        that folder), `undrawn` (why figures are missing; empty if none is).

    Raises:
        ResidualError: results of other settings in the folder, a missing library, or no cell could be
            measured; of a single reason for that, the very error.
    """
    check_matplotlib()
    folder = plan.out / experiment.folder
    tables, cells = {}, []
    skipped: dict[str, dict[str, None]] = {}
    failures = _Failures(explain)
    results = Results(folder)
    kept = _kept(experiment, plan, results, failures)
    for name in plan.encoders:
        work = Work(plan, name, progress)
        own = {cell: found for (encoder, cell), found in kept.items() if encoder == name}
        # All are looked at before the first is measured: results of something else are told at once.
        for cell, note in _notes(experiment, work, own, lacking or {}, failures).items():
            start, found = time.perf_counter(), own[cell]
            with failures.of(name, cell):
                if found:
                    table, left_out = found.table, found.skipped
                else:
                    table = experiment.measure(work, cell)
                    left_out = results.write(name, cell, note, table, _skipped(experiment, plan, work, cell))
                tables.setdefault(shown(name), {})[shown(cell)] = table
                for of, samples in left_out.items():
                    skipped.setdefault(of, {}).update(dict.fromkeys(samples))
                seconds = round(time.perf_counter() - start, 3)
                told = {"encoder": shown(name), "dataset": shown(cell)}
                cells.append({**told, "measured": found is None, "seconds": seconds})
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


def _skipped(experiment: Experiment, plan: Plan, work: Work, cell: str) -> dict[str, tuple[str, ...]]:
    """By dataset and split, ids of the pictures that a cell had to be measured without."""
    of = (f"{name}/{split}" for name, split in experiment.depends_on(plan, cell))
    return {name: work.skipped[name] for name in of if work.skipped.get(name)}


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
