"""Pictures that take their time, and that end the process which reads a certain one, once; and an experiment
that does so.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tiny import TinyImages

from residual.errors import UnreadableImageError
from residual.experiments.similarity import Similarity


class WatchedImages(TinyImages):
    """Tiny images.

    Args:
        folder: where a file by its number says which process reads; and where an image that is missing makes
            the sample unreadable.
        pause: seconds an image takes in a worker.
        deadly: which sample kills the worker that reads it first.
    """

    def __init__(self, n: int, folder: Path, pause: float = 0.0, deadly: int = -1, **how):
        super().__init__(n, **how)
        self.folder, self.pause, self.deadly, self.home = Path(folder), pause, deadly, os.getpid()

    def load(self, index):
        if os.getpid() != self.home:
            (self.folder / f"{os.getpid()}.pid").touch()
            time.sleep(self.pause)
            if index == self.deadly and not (tombstone := self.folder / "killed").exists():
                tombstone.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().load(index)


class GoneImages(TinyImages):
    """Tiny images that are there only the first time."""

    seen = False

    def load(self, index):
        if self.seen:
            raise UnreadableImageError(self.sample_ids[index], "No such file or directory")
        self.seen = True
        return super().load(index)


class DeadlySimilarity(Similarity):
    """Experiment 2, of which the first worker to measure a cell dies with it in its hands."""

    def measure(self, work, cell):
        table = super().measure(work, cell)
        if not (tombstone := work.plan.out.with_name("killed")).exists():
            tombstone.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return table


def rest(_: object, seconds: float) -> None:
    """Work that only takes its time."""
    time.sleep(seconds)
