"""What commands show: results on stdout, and on stderr a bar for each stage and what was left out."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from residual.errors import printable
from residual.files import check_writable, write_json
from residual.report.layout import wrapped

if TYPE_CHECKING:
    from residual.adapters.recipes import Fitting
    from residual.workflows.store_origin import StoreDataset


_NARROWEST, _USUAL = 20, 80  # columns
_PIPE_CLOSED = 141  # 128 and the number of SIGPIPE


class _PlainConsole(Console):
    """Names and texts may hold brackets, colons and control characters: none of them has an effect."""

    def __init__(self, stderr: bool = False):
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        if self.width < _NARROWEST:  # COLUMNS=0, or a terminal that has no size: nothing would be shown
            self.width = _USUAL

    def on_broken_pipe(self) -> None:
        """Whoever read has read enough: end as other programs do there, and not by the 1 of `verify`."""
        with suppress(SystemExit):
            super().on_broken_pipe()
        raise SystemExit(_PIPE_CLOSED)

    def print(self, *objects: Any, **how: Any) -> None:
        """Sentences are wrapped at words on a terminal, and go into files as they are."""
        super().print(*(self._wrapped(each) if isinstance(each, str) else each for each in objects), **how)

    def _wrapped(self, text: str) -> str:
        if not self.is_terminal:
            return text
        return "\n".join(
            part for line in text.split("\n") for part in wrapped(line, self.width, broken=False)
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Generator[Segment]:
        """With everything escaped that isn't the console's own."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield segment._replace(text="\n".join(map(printable, segment.text.split("\n"))))


out, err = _PlainConsole(), _PlainConsole(stderr=True)


def check_outputs(*paths: Path | None) -> None:
    """Find out before the long work whether all files that are asked for can be written.

    Raises:
        ResidualError: one can't.
    """
    for path in filter(None, paths):
        check_writable(path)


def write_result(json: Path | None, result: object) -> None:
    """Write what `--json` asks for."""
    if json:
        write_json(json, result)


def show_skipped(samples: Iterable[str] | Mapping[str, str]) -> None:
    """A line for each picture that was left out, with the reason where it is known."""
    for sample in samples:
        reason = f" ({samples[sample]})" if isinstance(samples, Mapping) else ""
        err.print(printable(f"left out, can't be read: {sample}{reason}"))


def recipes_line(fittings: Mapping[str, Fitting]) -> str:
    """By which recipe methods were fitted, what was chosen otherwise, and how to have the other."""
    from residual.adapters.methods import METHODS
    from residual.adapters.recipes import RECIPES

    names = list(dict.fromkeys(each.recipe for each in fittings.values()))
    told = [f"{name} ({RECIPES[name].about})" for name in names]
    for place, name in enumerate(names):
        own = [each.but for each in fittings.values() if each.recipe == name]
        if buts := list(dict.fromkeys(f"{what}={value}" for but in own for what, value in but.items())):
            told[place] += f", but with {', '.join(buts)}"
    if len(names) > 1:
        released = ", ".join(method for method, each in fittings.items() if each.recipe == names[-1])
        told[-1] += f" for {released}"
    if all(METHODS[method].released for method in fittings):
        return f"Recipe: {told[0]}; methods as published have no other."
    others = [name for name in RECIPES if name not in names]
    return f"Recipe: {'; '.join(told)}.{''.join(f' The other: --recipe {name}.' for name in others)}"


def show_origin(origin: StoreDataset) -> None:
    """What is left out because of a store's dataset, and the way out where it has only to be named."""
    for note in origin.notes:
        err.print(printable(note))
    if origin.unnamed:
        err.print("If you trust it, name it to load it: --dataset NAME.")


class _Speed(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """Of the last half minute, or of all when it's done."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="progress.data.speed")


class Stages:
    """Called with a stage ("mnist: encode train"), how much of it is done and how much there is."""

    def __init__(self, bars: Progress):
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the stage's bar, or begin one."""
        if stage not in self._tasks:
            self._leave_behind(stage.partition(":")[0])
            shown = printable(stage.replace("_", " "))
            self._tasks[stage] = self._bars.add_task(shown, total=total, completed=done)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def _leave_behind(self, name: str) -> None:
        """When a new dataset begins, the bars of the last one go away."""
        for stage in [stage for stage in self._tasks if stage.partition(":")[0] not in (name, "bases")]:
            self._bars.remove_task(self._tasks.pop(stage))


@contextmanager
def stages() -> Generator[Stages]:
    """Bars for as long as the context lasts; where stderr is no terminal, none."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _Speed(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as bars:
        yield Stages(bars)
