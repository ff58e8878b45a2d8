"""What all experiments share: cells that are measured once, then tables and figures of all of them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from residual.experiments.plan import Plan, Work
from residual.experiments.results import Results, shown, shown_settings
from residual.files import safe_name, write_text
from residual.progress import Progress
from residual.report.figures import check_matplotlib, save_figure
from residual.report.geometry import datasets_latex, datasets_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tables = dict[str, dict[str, pd.DataFrame]]


class Experiment(ABC):
    """One experiment: which cells there are, how one is measured, what is drawn of all.

    Args:
        settings: of the measures, a frozen dataclass.
    """

    folder: ClassVar[str]
    settings_of: ClassVar[type]

    def __init__(self, settings: Any):
        self.settings = settings

    def cells(self, plan: Plan) -> tuple[str, ...]:
        """Names of an encoder's cells: its datasets."""
        return (plan.reference, *plan.datasets)

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

    def noted(self) -> dict[str, Any]:
        """The settings that a cell depends on: results of others aren't mixed in."""
        return asdict(self.settings)

    def tabulate(self, folder: Path, tables: Tables) -> None:
        """Write `table.md` and `table.tex`: by default the summary of each encoder."""
        summary = {name: self.summary(rows) for name, rows in tables.items()}
        for file, table in (("table.md", datasets_markdown), ("table.tex", datasets_latex)):
            parts = [table(rows, list(next(iter(rows.values()))), name) for name, rows in summary.items()]
            write_text(folder / file, "\n".join(parts))

    @staticmethod
    def details(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
        """For each dataset of one encoder, more than a summary holds, for JSON."""
        return {}


def run_experiment(experiment: Experiment, plan: Plan, progress: Progress) -> dict[str, Any]:
    """Measure what isn't there yet, then draw everything.

    Each cell is a Parquet file in `plan.out`, written when it is done; figures are in `figures` beside them,
    and `table.md` and `table.tex` hold the summary of each encoder.

    Returns:
        `experiment`, `out` (the folder's name), `settings`, `cells` (with `measured`, whether it was done
        now, and `seconds`), `summary`, `details`, `skipped` (by dataset, ids of the pictures that couldn't be
        read), `figures` (files in that folder).

    Raises:
        ResidualError: an unknown name, results of other settings in the folder, a missing library.
    """
    check_matplotlib()
    folder = plan.out / experiment.folder
    results, tables, cells = Results(folder), {}, []
    skipped: dict[str, dict[str, None]] = {}
    for name in plan.encoders:
        work = Work(plan, name, progress)
        # All are looked at before the first is measured, so that what can't be had is told at once.
        notes = {cell: _note(experiment, plan, work, cell) for cell in experiment.cells(plan)}
        kept = {cell: results.read(name, cell, note) for cell, note in notes.items()}
        for cell, note in notes.items():
            start, table = time.perf_counter(), kept[cell]
            measured = table is None
            if table is None:
                table = experiment.measure(work, cell)
                results.write(name, cell, note, table, _skipped(experiment, plan, work, cell))
            tables.setdefault(shown(name), {})[shown(cell)] = table
            seconds = round(time.perf_counter() - start, 3)
            told = {"encoder": shown(name), "dataset": shown(cell)}
            for of, samples in results.skipped(name, cell).items():
                skipped.setdefault(of, {}).update(dict.fromkeys(samples))
            cells.append({**told, "measured": measured, "seconds": seconds})
    summary = {name: experiment.summary(rows) for name, rows in tables.items()}
    experiment.tabulate(folder, tables)
    figures: list[Path] = []
    for name, figure in experiment.figures(tables):
        figures += save_figure(figure, folder / "figures", safe_name(name))
    return {
        "experiment": experiment.folder,
        "out": folder.name,
        "settings": shown_settings(asdict(experiment.settings)),
        "cells": cells,
        "summary": summary,
        "details": {name: experiment.details(rows) for name, rows in tables.items()},
        "skipped": {of: list(samples) for of, samples in skipped.items()},
        "figures": [path.relative_to(folder).as_posix() for path in figures],
    }


def _skipped(experiment: Experiment, plan: Plan, work: Work, cell: str) -> dict[str, tuple[str, ...]]:
    """By dataset and split, ids of the pictures that a cell had to be measured without."""
    of = (f"{name}/{split}" for name, split in experiment.depends_on(plan, cell))
    return {name: work.skipped[name] for name in of if work.skipped.get(name)}


def _note(experiment: Experiment, plan: Plan, work: Work, cell: str) -> dict[str, Any]:
    made_of = {
        name if split == plan.split else f"{name}/{split}": work.identity(name, split)
        for name, split in experiment.depends_on(plan, cell)
    }
    return {
        "experiment": experiment.folder,
        "cell": cell,
        "reference": plan.reference,
        "settings": {**experiment.noted(), "split": plan.split, **plan.limits},
        "encoder": {**next(iter(made_of.values()))["encoder"], "name": work.name},
        "datasets": {name: each["dataset"] for name, each in made_of.items()},
    }
