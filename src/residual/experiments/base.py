"""What an experiment is: cells that are measured, and what is told and drawn of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import pandas as pd

from residual.encoders.encoder import Encoder
from residual.experiments.plan import Plan, Work
from residual.files import write_text
from residual.report.geometry import datasets_latex, datasets_markdown

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

    def stores(self, work: Work, cell: str) -> tuple[tuple[str, str, str], ...]:
        """What a cell reads, in the order in which it does: datasets, poolings and splits, as `Work.store`
        takes them."""
        return tuple((name, "own", split) for name, split in self.depends_on(work.plan, cell))

    def reads(self, encoder: str, cell: str) -> tuple[Path, ...]:
        """The files in the folder of results that a cell is made of, see `Work.read`."""
        return ()

    def check(self, work: Work, cell: str) -> None:  # noqa: B027 (there may be nothing to find out)
        """Find out before the long work whether a cell can be measured.

        Raises:
            ResidualError: it can't.
        """

    @abstractmethod
    def measure(self, work: Work, cell: str) -> pd.DataFrame:
        """The table of units of one cell, which `check` found nothing against."""

    def clear(self, plan: Plan, encoder: str, cell: str) -> None:  # noqa: B027 (there may be nothing)
        """Take away what a cell that is kept by now would have gone on from."""

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
