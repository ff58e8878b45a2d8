"""What commands show: results on stdout, and on stderr a bar for each stage and what was left out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, RLock, Thread
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.segment import Segment
from rich.text import Text

from residual import cli
from residual.cli.stopping import keeping
from residual.errors import ResidualError, printable
from residual.files import local_path, write_json
from residual.outputs import Output, claimed
from residual.products import RESULTS
from residual.progress import Progress, listening
from residual.report.layout import wrapped

if TYPE_CHECKING:
    from residual.adapters.recipes import Fitting
    from residual.workflows.store_origin import StoreDataset


_NARROWEST, _USUAL = 20, 80  # columns
_A_MINUTE = 60.0
_SHORT = 1.0  # seconds; the bar of a stage that took less doesn't stay
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


def check_outputs(overwrite: bool, *outputs: Output) -> None:
    """Find out before the long work whether all that is asked for may be written, and keep other processes
    from writing it until the command ends.

    Raises:
        ResidualError: it may not, see `check_file` and `check_folder`; or two are in one place.
    """
    cli.OUTPUTS[:] = outputs
    places: dict[str, str] = {}
    for output in outputs:
        if (path := output.check(overwrite)) is None:
            continue
        place = os.path.realpath(path)
        if place != os.devnull and (other := places.setdefault(place, output.option)) != output.option:
            raise ResidualError(
                f"{other} and {output.option} are both {str(path)!r}: give each its own place."
            )
    for output in outputs:
        if output.path is not None and not getattr(output.kind, "goes_on", False):
            claim = claimed(local_path(output.path), not isinstance(output.kind, str))
            cli.HELD.enter_context(claim)


def json_of(json: Path | None, what: str) -> Output:
    """What `--json` asks for: the result of one kind of job."""
    return Output("--json", json, RESULTS[what])


@contextmanager
def steps() -> Generator[Callable[[], AbstractContextManager[None]]]:
    """Steps by which results are shown, written and drawn: one that fails costs none of the others. It is
    raised when all are done; of several the last, and the others are told before.
    """
    failed: list[Exception | SystemExit] = []

    @contextmanager
    def step() -> Generator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:
            failed.append(error)

    with step():
        yield step
    for error in failed[:-1]:
        if isinstance(error, Exception):
            err.print(f"residual: {cli.explained(error)[0]}")
    if failed:
        raise failed[-1]


def write_result(json: Path | None, result: object) -> None:
    """Write what `--json` asks for."""
    if json:
        write_json(local_path(json), result)


def note(sentence: str) -> None:
    """Say on stderr what is no error and no result; `--quiet` leaves it out."""
    if not cli.quiet:
        err.print(printable(sentence))


def show_skipped(samples: Iterable[str] | Mapping[str, str]) -> None:
    """A line for each picture that was left out, with the reason where it is known."""
    for sample in samples:
        reason = f" ({samples[sample]})" if isinstance(samples, Mapping) else ""
        note(f"left out, can't be read: {sample}{reason}")


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
    for told in origin.notes:
        note(told)
    if origin.unnamed:
        note("If you trust it, name it to load it: --dataset NAME.")


class _Speed(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """Of the last half minute, or of all when it's done."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="progress.data.speed")


class Stages:
    """Called with a stage ("mnist: encode train"), how much of it is done and how much there is."""

    def __init__(self, bars: Bars):
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the stage's bar, or begin one."""
        if stage not in self._tasks:
            self._leave_behind(stage.partition(":")[0])
            self._begun[stage] = time.monotonic()
            shown = printable(stage.replace("_", " "))
            self._tasks[stage] = self._bars.add_task(shown, total=total, completed=done)
        self._bars.update(self._tasks[stage], completed=done, total=total)
        if done >= total and time.monotonic() - self._begun[stage] < _SHORT:
            self._bars.remove_task(self._tasks.pop(stage))

    def _leave_behind(self, name: str) -> None:
        """When a new dataset begins, the bars of the last one go away."""
        for stage in [stage for stage in self._tasks if stage.partition(":")[0] not in (name, "bases")]:
            self._bars.remove_task(self._tasks.pop(stage))


class Lines:
    """The same for a log: a line a minute at most, of whatever stage is at work then, and one at the end of a
    stage that had some. The first comes after a minute: what is done by then needs none. `remind` says that
    the last stage is still at work, where it tells nothing for long.

    Args:
        say: writes a line.
        clock: seconds.
    """

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic):
        self._say, self._clock = say, clock
        self._due = clock() + _A_MINUTE
        self._begun: dict[str, tuple[float, int, int]] = {}  # when, done then, done last
        self._told: set[str] = set()
        self._lock = RLock()  # files are fetched by threads

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is, if it is time for it."""
        with self._lock:
            self._hear(stage, done, total)

    def remind(self) -> None:
        """Say so of the stage that was told of last, if it is time for it."""
        with self._lock:
            now = self._clock()
            if now >= self._due and self._begun:
                stage, (start, _, done) = list(self._begun.items())[-1]
                self._due = now + _A_MINUTE
                self._told.add(stage)
                self._say(f"{stage.replace('_', ' ')}: at {done:,}, at work for {_spell(now - start)}")

    def _hear(self, stage: str, done: int, total: int) -> None:
        now, name = self._clock(), stage.replace("_", " ")
        start, before, last = self._begun.pop(stage, (now, done, done))
        if done < last:  # it begins anew
            start, before = now, done
        self._begun[stage] = start, before, done
        if done >= total:
            del self._begun[stage]
            if stage in self._told:
                self._told.remove(stage)
                self._say(f"{name}: {total:,} of {total:,}, done in {_spell(now - start)}")
        elif now >= self._due:
            self._due = now + _A_MINUTE
            self._told.add(stage)
            rate = (done - before) / (now - start) if now > start else 0.0
            ahead = f", {_rate(rate)}, {_spell((total - done) / rate)} left" if rate else ""
            self._say(f"{name}: {done:,} of {total:,}{ahead}")


def _rate(rate: float) -> str:
    """How many a second, or a minute or an hour where they are few."""
    unit, seconds = next(
        ((unit, seconds) for unit, seconds in (("s", 1), ("min", 60)) if rate * seconds >= 1), ("h", 3600)
    )
    return f"{rate * seconds:,.0f}/{unit}" if rate * seconds >= 10 else f"{rate * seconds:.1f}/{unit}"


def _spell(seconds: float) -> str:
    """A time as people say it, not too precisely."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"


@contextmanager
def stages(kept: Callable[[], str] = str, goes_on: bool = True, keeper: str = "") -> Generator[Progress]:
    """What long work tells how far it is: bars on a terminal, a line a minute in a log, nothing where
    `--quiet` asks for that.

    Args:
        kept: looks up what is kept of the work if it is stopped; by default nothing is.
        goes_on: whether the same command goes on from there.
        keeper: the option by which it would.
    """
    with keeping(kept, goes_on, keeper), ExitStack() as opened:
        show: Progress = lambda *_: None  # noqa: E731
        if not cli.quiet:
            if err.is_terminal:
                show = Stages(opened.enter_context(Bars(*_columns(), console=err)))
            else:
                show = lines = Lines(lambda line: err.print(printable(line)))
                opened.enter_context(_reminding(lines))
        opened.enter_context(listening(show))
        yield show


@contextmanager
def _reminding(lines: Lines) -> Generator[None]:
    """Remind the lines every minute, by a thread that ends with the work."""
    over = Event()

    def remind() -> None:
        while not over.wait(_A_MINUTE):
            lines.remind()

    Thread(target=remind, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _Speed(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
