"""Ctrl-C, and SIGTERM as schedulers send it: the work ends with what is kept of it and how it goes on."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_ONE = 1.0  # seconds


class Stopped(BaseException):
    """A signal came: raised wherever the main thread is.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number, self.goes_on = number, False
        self.kept: str | None = None  # before the long work and after it
        self.keeper = ""

    @property
    def code(self) -> int:
        """The exit code, as shells have it."""
        return 128 + self.number

    def sentence(self, words: Sequence[str]) -> str:
        """What is kept, and the command that goes on, by itself on the last line.

        Args:
            words: of the command, without its name.
        """
        by = _SIGNALS[signal.Signals(self.number)]
        if self.kept is None:
            return f"Stopped by {by}, at no long work: what is on the disk stays. Again:\n{_command(words)}"
        what = f"Kept: {self.kept}" if self.kept else "Nothing is kept"
        how = "The same command goes on from there" if self.goes_on else "The same command starts anew"
        if self.keeper and not self.goes_on:
            how += f"; with {self.keeper} it goes on"
        return f"Stopped by {by}. {what}. {how}:\n{_command(words)}"


@contextmanager
def stoppable() -> Generator[None]:
    """Raise `Stopped` where a signal comes. One more within a second is the same (whoever started this passes
    it on); a later one ends the process without a word.

    Where this isn't the main thread, signals are left to whoever has them; one that is ignored stays so, as
    Ctrl-C in the background of a shell.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, first = os.getpid(), 0.0

    def stop(number: int, _: Any) -> None:
        nonlocal first
        if os.getpid() != owner:  # a process that reads pictures: its owner tells
            os._exit(128 + number)
        if not first:
            first = time.monotonic()
            raise Stopped(number)
        if time.monotonic() - first > _ONE:
            os._exit(128 + number)

    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def keeping(kept: Callable[[], str], goes_on: bool = True, keeper: str = "") -> Generator[None]:
    """Note what is kept of the work in here if it is stopped.

    Args:
        kept: what is, such as "64 of 600 samples in DIR"; "" for nothing. It is looked up then.
        goes_on: whether the same command goes on from there.
        keeper: the option by which it would.
    """
    try:
        yield
    except Stopped as stop:
        try:
            stop.kept = stop.kept or kept()
        except Exception:  # a file half there: it can't be said, and nothing is worse for it
            stop.kept = ""
        stop.goes_on, stop.keeper = goes_on and bool(stop.kept), keeper
        raise


def _command(words: Sequence[str]) -> str:
    """As a shell takes it."""
    called = ["python", "-m", "residual"] if sys.argv[0].endswith("__main__.py") else ["residual"]
    return (subprocess.list2cmdline if os.name == "nt" else shlex.join)([*called, *words])
