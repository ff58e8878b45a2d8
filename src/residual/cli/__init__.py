"""The command `residual`: one file a command, no logic."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from io import TextIOWrapper
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from residual.cli.stopping import Stopped, stoppable
from residual.errors import (
    AdapterEncoderError,
    DamagedStoreError,
    ExistingError,
    LeftOutWarning,
    MissingClassError,
    NoPlaceError,
    NoStoreError,
    OtherResultError,
    ResidualError,
    ResidualWarning,
    StoreEncoderError,
    TooManySkippedError,
    UnclearColumnError,
    UnreadableImageError,
    WorkerDiedError,
    is_out_of_memory,
    printable,
)
from residual.libraries import first_line
from residual.texts import ASCII_SIGNS

if TYPE_CHECKING:
    from residual.outputs import Output

# The way out of an error, where the command line has other words for it than Python.
HINTS: dict[type[ResidualError], str] = {
    NoStoreError: "`residual encode` makes one.",
    DamagedStoreError: "Remove that file and run the same `encode` again: it makes good what is missing.",
    StoreEncoderError: "Name the encoder that made the store: --encoder NAME.",
    AdapterEncoderError: "Name the one that you load it by: --encoder NAME.",
    TooManySkippedError: "Mend or remove them, or let more be left out: --param experiment.most_skipped=N "
    "and --param experiment.most_skipped_share=S.",
    MissingClassError: "Add some, or train without them: --param FitSettings.missing=ignore (of fine_tuning: "
    "TrainSettings.missing=ignore).",
    OtherResultError: "Choose another folder (--out, --stores), or remove it.",
    NoPlaceError: "Name one, a folder or an address: --stores PLACE.",
    ExistingError: "To replace it: --overwrite.",
    WorkerDiedError: "Run the same again: it goes on behind what is kept.",
}
quiet = False  # whether the command that runs leaves out progress and notes
OUTPUTS: list[Output] = []  # what the command that runs may write
HELD = ExitStack()  # what this process alone writes to, until its command ends
FAULT = 70  # the exit code of what no input should cause


def main() -> None:
    """Run the command line; what a user can cause ends in a sentence and exit code 2, any other error in 70.

    `--debug` among the words, or `RESIDUAL_DEBUG=1`, shows the traceback before the sentence; `--quiet`
    leaves out progress and notes. Stopped by a signal, it says what is kept and ends in 128 and its number.
    """
    global quiet
    words, quiet = _words(), "--quiet" in sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a letter that a terminal lacks costs no result
            stream.reconfigure(errors=ASCII_SIGNS)
    shown: Any = partial(_show_warning, warnings.showwarning, set())
    warnings.showwarning = shown
    try:
        with stoppable():
            _check_folder()
            _check_words(words)
            from residual.cli.app import app

            app(words)
    except Stopped as stop:
        print(f"residual: {stop.sentence(again(sys.argv[1:]))}", file=sys.stderr)
        sys.exit(stop.code)
    except Exception as error:
        sentence, code = explained(error)
        print(f"residual: {sentence}", file=sys.stderr)
        sys.exit(code)
    finally:
        HELD.close()


def again(words: Sequence[str]) -> list[str]:
    """The words of a command that was stopped as they have to be now: what it has written by then is to be
    replaced."""
    for output in OUTPUTS:
        try:
            output.check(overwrite=False)
        except ExistingError:
            return [*words] if "--overwrite" in words else [*words, "--overwrite"]
        except ResidualError:
            continue
    return [*words]


def _words() -> list[str]:
    """Those of the command: without what goes for all, and may stand anywhere."""
    return [word for word in sys.argv[1:] if word not in ("--debug", "--quiet")]


def explained(error: Exception) -> tuple[str, int]:
    """What to say of an error, with the way out in the words of the command that runs, and its exit code; the
    traceback is shown where that is asked for."""
    words = _words()
    if "--debug" in sys.argv[1:] or os.environ.get("RESIDUAL_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    sentence, code = _sentence(error, words)
    return sentence.rstrip(), code


def way_out(error: ResidualError) -> str:
    """Of an error, in the words of the command line where it has other words than Python."""
    return HINTS.get(type(error), error.hint)


def _sentence(error: Exception, words: Sequence[str]) -> tuple[str, int]:
    if isinstance(error, UnclearColumnError):
        here = _way(words, error.argument, "NAME", "Name the one that is meant: ")
        there = _way(["encode"], error.argument, "NAME", "`residual encode` takes the one that is meant: ")
        return f"{error.message} {here or there}.", 2
    if isinstance(error, UnreadableImageError):
        skip = _way(words, "on_error", "skip", ", or go on without such images: ")
        return f"{error.message} Mend or remove it{skip}.", 2
    if isinstance(error, ResidualError):
        return f"{error.message} {way_out(error)}", 2
    if isinstance(error, OSError):  # of the machine: a name that is too long, a closed folder, a network
        where = "" if error.filename is None else f": {str(error.filename)!r}"
        return f"{printable(error.strerror or first_line(error))}{where}.", 2
    if isinstance(error, ImportError):  # of a library that comes with this one, or of one that it asks for
        anew = "Install it anew, or a version that fits what else is installed"
        return f"A library can't be imported: {printable(first_line(error))}. {anew}.", 2
    name = type(error).__name__
    what = printable(f"{name}: {first_line(error)}" if str(error) else name).rstrip(".")
    if is_out_of_memory(error):
        fewer = _way(words, "batch_size", "N", "; fewer pictures at a time need less: ")
        return f"Memory ran out ({what}){fewer}.", 2
    report = "report it in the issue tracker of the project, with the command and what --debug shows"
    return f"{what}. This is a fault of residual: {report}.", FAULT


def _check_folder() -> None:
    """Refuse to run in a folder that is gone, where libraries end the process without a word."""
    try:
        os.getcwd()
    except OSError as error:
        raise ResidualError("The folder that this runs in is gone: change to another.") from error


def _show_warning(other: Callable[..., Any], told: set[str], message: Any, category: Any, *rest: Any) -> None:
    """What the library warns of, as a line without the place in the library that says so, and once wherever
    that is; what is left out is a note, which `--quiet` leaves out."""
    if issubclass(category, ResidualWarning):
        text = printable(str(message))
        if text not in told and not (quiet and issubclass(category, LeftOutWarning)):
            print(f"residual: {text}", file=sys.stderr)
        told.add(text)
    else:
        other(message, category, *rest)


def _check_words(words: Sequence[str]) -> None:
    """Refuse what is empty: as a path it would be the folder that the command runs in."""
    for before, word in pairwise(["", *words]):
        option, equals, value = word.partition("=")
        if not word or (option.startswith("--") and equals and not value):
            name = option or (before if before.startswith("-") else "An argument")
            raise ResidualError(f"{name} is empty: a shell's variable, perhaps, that isn't set.")


def _way(words: Sequence[str], setting: str, value: str, why: str) -> str:
    """Why and how to give a setting to the command that runs, or nothing where it takes none."""
    from typer.main import get_command

    from residual.cli.app import app
    from residual.cli.command_settings import ExperimentOptions

    name = next((word for word in words if not word.startswith("-")), "")
    option = f"--{setting.replace('_', '-')}"
    command = getattr(get_command(app), "commands", {}).get(name)
    if command is not None and any(option in each.opts for each in command.params):
        return f"{why}{option} {value}"
    experiment = name == "experiment" and hasattr(ExperimentOptions, setting)
    return f"{why}--param experiment.{setting}={value}" if experiment else ""
