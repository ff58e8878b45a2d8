"""What work is given to: tasks that need one and the same thing, wherever they run.

An executor knows nothing of what the work is. Who cuts the work, so that a task which is run again does no
harm, is who calls: a worker may die at any place in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, runtime_checkable

from residual.errors import ResidualError

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

PLACES = "gpus, gpus:NUMBER, processes:NUMBER, ray, ray://HOST:PORT or ray:HOST:PORT"


@runtime_checkable
class Executor(Protocol):
    """Runs tasks in other processes. A worker's best device is its own: `find_device(None)`."""

    def workers(self) -> int:
        """How many tasks run at once at present, to cut work by. The first call begins to start them, so that
        they are ready when there is something to do.

        Raises:
            ResidualError: there can be none; says what is missing.
        """
        ...

    def run(
        self,
        context: Callable[[], C],
        work: Callable[[C, T], R],
        tasks: Sequence[T],
        *,
        tick: Callable[[], None] | None = None,
    ) -> Iterator[tuple[int, R]]:
        """The result of each task with its number, as they are done; in no order.

        Args:
            context: called once in a worker, for all of its tasks. It is sent by pickle; large tensors and
                arrays in it are shared by the workers of a machine, so that nobody may write to them.
            work: `work(context(), task)`, a function of a module. It may be run again from the start, after
                a worker died in the middle of it.
            tasks: what is to be done, each sent by pickle, as its result is.
            tick: called about once a second, while it waits.

        Raises:
            ResidualError: the one that `work` raised; the other tasks are given up.
            WorkerDiedError: a worker ended early, where nobody takes its place.
        """
        ...

    def close(self) -> None:
        """End what it started. It can be used again, and starts anew."""
        ...


def executor_of(where: str | Executor) -> Executor:
    """An executor by its name.

    Args:
        where: "gpus" or "gpus:2" for GPUs of this machine, a process each; "processes:4" for processes on the
            CPU; "ray" for the Ray cluster of `RAY_ADDRESS`, or else the one that this user started last on
            this machine, if it answers, or else one that is started here alone; "ray://HOST:10001" for one
            that is reached through Ray Client, "ray:HOST:6379" for one that this machine is part of. Behind
            each of Ray, with commas between, what `ClusterExecutor` takes: "ray,cpus=8,memory=32". An
            `Executor` is given back.

    Raises:
        ResidualError: there is none of that name.

    Example:
        >>> executor_of("processes:2")
        ProcessExecutor(workers=2)
    """
    if not isinstance(where, str):
        return where
    place, *settings = where.split(",")
    if match := re.fullmatch(r"(gpus|processes)(?::([0-9]+))?", place):
        from residual.executors.processes import ProcessExecutor

        kind, number = match[1], None if match[2] is None else int(match[2])
        if not settings and (kind == "gpus" or number is not None):
            return ProcessExecutor(number, gpus=kind == "gpus")
    if match := re.fullmatch(r"ray(?:|://[^\s/]+|:[^\s/:]+:[0-9]+)", place):
        from residual.executors.cluster import ClusterExecutor

        address = place if "://" in place else place.partition(":")[2] or None
        return ClusterExecutor(address, **_settings(settings))
    raise ResidualError(f"Work can run on {PLACES}; got {where!r}.")


@contextmanager
def opened(where: str | Executor | None) -> Generator[Executor | None]:
    """An executor by its name, ended behind it; one that was given is left as it is, and None is None."""
    if where is None or not isinstance(where, str):
        yield where
        return
    executor = executor_of(where)
    try:
        yield executor
    finally:
        executor.close()


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """`["cpus=8", "accelerator=H100"]` as arguments."""
    kinds: dict[str, Callable[[str], Any]] = {
        "cpus": float,
        "gpus": float,
        "memory": float,
        "workers": int,
        "accelerator": str,
    }
    read: dict[str, Any] = {}
    for each in given:
        name, _, value = each.partition("=")
        try:
            read[name] = kinds[name](value)
        except (KeyError, ValueError) as error:
            raise ResidualError(
                f"Behind ray there can be {', '.join(f'{known}=…' for known in kinds)}; got {each!r}."
            ) from error
    return read
