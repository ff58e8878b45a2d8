"""Where an encoder runs, if that isn't here: what a worker says of its device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from residual.devices import best_dtype, find_device
from residual.executors import Executor
from residual.store.decoding import lacking


@dataclass(frozen=True)
class Site:
    """Of one worker, for all: those of a cluster that differ aren't told apart.

    Args:
        device: its best one.
        dtype: in which an encoder runs best there.
        lacks: what is missing for pictures to be decoded there, see `lacking`.
    """

    device: str
    dtype: torch.dtype
    lacks: str


def site_of(executor: Executor) -> Site:
    """What the first worker that is ready says.

    Raises:
        ResidualError: as `Executor.run`.
    """
    ((_, found),) = executor.run(_Nothing(), _look, [None])
    return found


class _Nothing:
    def __call__(self) -> None:
        """A worker needs nothing to look at its device."""


def _look(_: None, __: None) -> Site:
    device = find_device(None)
    return Site(device.type, best_dtype(device), lacking(device.type))
