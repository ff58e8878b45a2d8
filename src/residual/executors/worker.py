"""What a worker process does: it keeps what its tasks need, and does one after another."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from residual.devices import take_cores
from residual.errors import ResidualError
from residual.executors.parcels import packed, unpacked

_SLOW = "residual.store.encode"  # with it comes most of what takes seconds to import
_kept: dict[str, Any] = {}  # of one run, by its key


@dataclass(frozen=True)
class Outcome:
    """What came of a task: its result (packed), or the error that it ended with; and what it warned of."""

    result: list[Any]
    error: ResidualError | None = None
    warned: tuple[tuple[type[Warning], str], ...] = ()

    def taken(self, before: set[tuple[type[Warning], str]]) -> Any:
        """The result, where the work was asked for; each warning is given once.

        Raises:
            ResidualError: the one that the task ended with.
        """
        for category, text in self.warned:
            if (category, text) not in before:
                before.add((category, text))
                warnings.warn(text, category, stacklevel=4)
        if self.error is not None:
            raise self.error
        return unpacked(self.result)


def begin(cpus: int) -> None:
    """Make a fresh process a worker that has so many CPUs: torch computes in as many threads."""
    take_cores(cpus)
    told = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(min(cpus, int(told)) if told.isdigit() and int(told) else cpus)


def perform(
    key: str, context_of: Callable[[], Callable[[], Any]], work: Callable[[Any, Any], Any], task: Any
) -> Outcome:
    """Do a task of the run of this key; what it needs is made by its first one, and kept for the others."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UserWarning)
        try:
            if key not in _kept:
                _kept.clear()  # of an earlier run: it may be large
                _kept[key] = context_of()()
            result, error = packed(work(_kept[key], task)), None
        except ResidualError as wrong:
            result, error = [], wrong
    told = tuple(
        (each.category, str(each.message)) for each in seen if issubclass(each.category, UserWarning)
    )
    return Outcome(result, error, told)


def warm() -> None:
    """Import what takes long."""
    import_module(_SLOW)
