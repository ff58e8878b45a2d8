"""Processes of this machine: on its GPUs, one each, or on the CPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar
from uuid import uuid4

import torch

from residual.devices import cores
from residual.errors import ResidualError, WorkerDiedError
from residual.executors.parcels import Parcel
from residual.executors.worker import Outcome, begin, perform, warm

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

_TICK = 1.0  # seconds
MOST = 256


class ProcessExecutor:
    """Several processes of this machine, each with its share of the CPU's cores; see `Executor`.

    A worker that dies ends the run, and the others with it.

    Args:
        workers: how many; by default one a GPU.
        gpus: whether each has a GPU, and no other than its own; else none has one.

    Raises:
        ResidualError: the number is out of bounds; there are fewer GPUs.
    """

    def __init__(self, workers: int | None = None, *, gpus: bool = False):
        self.devices = _visible_gpus() if gpus else []
        if gpus and not self.devices:
            raise ResidualError(
                "This machine has no GPU that torch sees.",
                'On the CPU several processes can be had by their number: "processes:4".',
            )
        count = workers if workers is not None else len(self.devices) or 1
        most = len(self.devices) if gpus else MOST
        if not 1 <= count <= most:
            raise ResidualError(f"There can be 1 to {most} workers here, got {count}.")
        self.devices = self.devices[:count] if gpus else [""] * count
        self._pool: ProcessPoolExecutor | None = None
        self._begun: list[Future[None]] = []

    def workers(self) -> int:
        """As many as there are; they begin to start."""
        self._started()
        return len(self.devices)

    def run(
        self,
        context: Callable[[], C],
        work: Callable[[C, T], R],
        tasks: Sequence[T],
        *,
        tick: Callable[[], None] | None = None,
    ) -> Iterator[tuple[int, R]]:
        """See `Executor.run`.

        Raises:
            ResidualError: the one that `work` raised; or what it needs can't be sent.
            WorkerDiedError: a process ended early.
        """
        pool, parcel, whole = self._started(), Parcel(context), False
        told: set[tuple[type[Warning], str]] = set()
        try:
            do = partial(_perform, os.getcwd(), uuid4().hex, partial(Parcel.opened, parcel.path), work)
            pending: dict[Future[Outcome], int] = {
                pool.submit(do, task): number for number, task in enumerate(tasks)
            }
            while pending:
                done, _ = wait(pending, timeout=_TICK, return_when=FIRST_COMPLETED)
                for future in done:
                    yield pending.pop(future), future.result().taken(told)
                if tick is not None:
                    tick()
            whole = True
        except BrokenProcessPool as error:
            raise self._death() from error
        finally:
            parcel.close()
            if not whole:  # an error, or whoever asked has stopped asking: tasks are still at work
                self.close()

    def close(self) -> None:
        """End the processes, whatever they are at."""
        if self._pool is not None:
            self._alive.close()
            self._pool.shutdown(cancel_futures=True)
            self._pool, self._begun = None, []

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            how = multiprocessing.get_context("spawn")
            heard, self._alive = how.Pipe(duplex=False)
            devices = how.SimpleQueue()
            for device in self.devices:
                devices.put(device)
            cpus = max(1, cores() // len(self.devices))
            self._pool = ProcessPoolExecutor(len(self.devices), how, _begin, (heard, devices, cpus))
            with _deaf():  # a signal of the terminal goes to all of its processes: this one tells the others
                self._begun = [self._pool.submit(warm) for _ in self.devices]
        return self._pool

    def _death(self) -> WorkerDiedError:
        number = len(self.devices)
        which = "The worker process" if number == 1 else f"One of {number} worker processes"
        if any(each.done() and each.exception() is None for each in self._begun):
            return WorkerDiedError(f"{which} ended in the middle of its work: most often memory has run out.")
        return WorkerDiedError(
            f"{which} ended before it began.",
            'In a script, everything but definitions must be under `if __name__ == "__main__":`, since each '
            "process reads it, too.",
        )

    def __repr__(self) -> str:
        return f"ProcessExecutor(workers={len(self.devices)}{', gpus=True' * bool(self.devices[0])})"


def _begin(heard: Connection, devices: Any, cpus: int) -> None:
    """In a fresh process: its GPU alone, its CPUs, and to end when its parent ends or says so."""
    os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(heard,), name="residual-parent", daemon=True).start()
    begin(cpus)


def _perform(folder: str, *given: Any) -> Outcome:
    """A task, where the caller is now: paths may be relative, and the process may have begun elsewhere."""
    os.chdir(folder)
    return perform(*given)


def _end_with(heard: Connection) -> None:
    try:
        heard.recv_bytes()  # nothing is ever sent
    except (EOFError, OSError):
        os._exit(1)


class _deaf:  # noqa: N801 (used as a function is)
    """Processes that are started in here don't hear Ctrl-C until they have a handler of their own."""

    def __enter__(self):
        self.before = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *_: object):
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)


def _visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` has them."""
    count = torch.cuda.device_count()
    given = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    return given[:count] if given else [str(number) for number in range(count)]
