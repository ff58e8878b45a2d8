"""A Ray cluster: plain tasks, which Ray schedules, tries again when a worker or node dies, and scales for."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from residual.devices import cores
from residual.errors import ResidualError, WorkerDiedError
from residual.executors.parcels import packed
from residual.libraries import first_line, library, version_of

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

_TICK = 1.0  # seconds
_ANSWERS = 5.0  # seconds
_CLIENT_PORT = 10001
_TOKEN = (
    "Where the cluster asks for a token, as newer ones do, Ray Client needs it, too: RAY_AUTH_MODE=token and "
    "RAY_AUTH_TOKEN_PATH in the environment."
)
_DEATHS = 30  # of one task, before it is taken for what kills its workers


class ClusterExecutor:
    """Workers of a Ray cluster (https://docs.ray.io), where each task asks for what it needs; see `Executor`.

    A task whose worker or node dies is run again elsewhere, by Ray. All nodes need this library in the same
    version, and see the same files.

    Args:
        address: "ray://HOST:10001" (Ray Client) or "HOST:6379"; None for that of `RAY_ADDRESS`, or else the
            one that this user started last on this machine, if it answers; or else one that is started on
            this machine and ended with this. A program that has called `ray.init` is left connected as it is.
        cpus: a worker has; by default its GPU's share of its node's, and 1 without a GPU.
        gpus: a worker has; by default 1 where the cluster has any, else 0. Parts of one are taken.
        memory: gigabytes that a worker needs, for Ray to count with; None doesn't count.
        workers: to cut the work for, where a cluster grows when there is something to do; by default as many
            as fit in it as it is.
        accelerator: the only type of GPU to run on, as Ray calls it: "H100".

    Raises:
        ResidualError: ray isn't installed, or a number is out of bounds.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus: float | None = None,
        gpus: float | None = None,
        memory: float | None = None,
        workers: int | None = None,
        accelerator: str | None = None,
    ):
        for name, value in {"cpus": cpus, "memory": memory, "workers": workers}.items():
            if value is not None and not value > 0:
                raise ResidualError(f"{name} of a worker must be above 0, got {value}.")
        if gpus is not None and gpus < 0:
            raise ResidualError(f"gpus of a worker can't be below 0, got {gpus}.")
        self.address, self.cpus, self.gpus, self.memory = address, cpus, gpus, memory
        self.wanted, self.accelerator = workers, accelerator
        # Behind `uv run` Ray would send the working folder, pictures and all, and run uv on every node.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        self._ray = library("ray", "A cluster", "ray")
        self._joined = self._own = False

    def workers(self) -> int:
        """As many as fit in the cluster at present, or that were said; they begin to start.

        Raises:
            ResidualError: the cluster isn't there, or none fits in any of its nodes.
        """
        first, count = not self._joined, self._fitting(self._needs())
        if first:
            how = {"max_calls": 0, "max_retries": 0, **self._options()}
            self._warm = [self._ray.remote(**how)(_warmth()).remote() for _ in range(count)]
        return count

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
            ResidualError: the one that `work` raised; what it needs can't be sent; or a node has no library
                of this version.
            WorkerDiedError: a task's workers died again and again.
        """
        self.workers()
        ray, pickler = self._ray, self._ray.cloudpickle.CloudPickler
        here = os.getcwd() if "://" not in (self.address or "") else ""
        about = [uuid4().hex, version_of("residual-vit"), max(1, int(self._needs()["CPU"])), here]
        how = {"max_calls": 0, "max_retries": _DEATHS, **self._options()}  # 0 calls: a worker is used again
        told: set[tuple[type[Warning], str]] = set()
        pending: dict[Any, int] = {}
        try:
            sent = [ray.put(packed(context, pickler))]  # in a list, so that not every task unpacks it
            function = ray.remote(**how)(_task())
            for number, task in enumerate(tasks):
                pending[function.remote(sent, about, packed((work, task), pickler))] = number
            while pending:
                done, _ = ray.wait([*pending], timeout=_TICK)
                for each in done:
                    outcome = ray.get(each)
                    if isinstance(outcome, str):
                        raise ResidualError(outcome, "All nodes need the same residual-vit as this process.")
                    yield pending.pop(each), outcome.taken(told)
                if tick is not None:
                    tick()
        except SystemError as error:
            if isinstance(error.__cause__, KeyboardInterrupt | SystemExit):  # as Ray's waiting wraps it
                raise error.__cause__ from None
            raise
        except ray.exceptions.RayTaskError:
            raise  # what the task itself raised
        except ray.exceptions.RayError as error:
            raise WorkerDiedError(
                f"A task died again and again with its worker or node ({first_line(error)}): it may need "
                "more memory than they have, or trip over something that ends the process."
            ) from error
        except ConnectionError as error:
            raise ResidualError(f"{self._where} doesn't answer any more ({first_line(error)}).") from error
        finally:
            for each in pending:
                with suppress(Exception):  # the cluster may be gone
                    ray.cancel(each, force=True)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._own:
            with _own_signals():
                self._ray.shutdown()
        self._joined = self._own = False

    @property
    def _where(self) -> str:
        return f"The Ray cluster at {self.address}" if self.address else "The Ray cluster"

    def _join(self) -> None:
        if self._joined:
            return
        ray = self._ray
        if not ray.is_initialized():
            quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            address = self.address or os.environ.get("RAY_ADDRESS", "")
            if address in ("", "auto"):
                address = last_started_here()
            try:
                with _own_signals():
                    if address != "local":
                        _check_answers(address)
                        ray.init(address, **quiet)
                    else:
                        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                        alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
                        ray.init("local", num_cpus=cores(), **alone, **quiet)
            except (OSError, RuntimeError, ValueError, TimeoutError) as error:
                raise ResidualError(
                    f"There is no Ray cluster at {address} ({first_line(error)})."
                    if address != "local"
                    else f"No Ray cluster could be started on this machine ({first_line(error)}).",
                    _TOKEN if "://" in address else "",
                ) from error
            self._own = True
        self._joined = True

    def _nodes(self) -> list[dict[str, float]]:
        self._join()
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _needs(self) -> dict[str, float]:
        """Of a worker, as Ray calls it."""
        nodes = self._nodes()
        gpus = self.gpus if self.gpus is not None else float(any(node.get("GPU") for node in nodes))
        cpus = self.cpus
        if cpus is None:
            shares = [node.get("CPU", 0) * gpus // node["GPU"] for node in nodes if gpus and node.get("GPU")]
            cpus = max(1, min(shares, default=1))
        needs = {"CPU": cpus, "GPU": gpus, "memory": 1e9 * (self.memory or 0)}
        return needs | ({f"accelerator_type:{self.accelerator}": 0.001} if self.accelerator else {})

    def _options(self) -> dict[str, Any]:
        needs = self._needs()
        memory = {"memory": int(needs["memory"])} if needs["memory"] else {}
        kind = {"accelerator_type": self.accelerator} if self.accelerator else {}
        return {"num_cpus": needs["CPU"], "num_gpus": needs["GPU"], **memory, **kind}

    def _fitting(self, needs: dict[str, float]) -> int:
        if self.wanted is not None:
            return self.wanted
        asked = {name: value for name, value in needs.items() if value}
        nodes = self._nodes()
        count = sum(int(min(node.get(name, 0) // value for name, value in asked.items())) for node in nodes)
        if not count:
            said = ", ".join(f"{value:g} {name}" for name, value in asked.items())
            raise ResidualError(
                f"No node of {self._where[0].lower()}{self._where[1:]} has what a worker needs ({said}).",
                "Ask for less; or, where the cluster grows by itself, say for how many workers: workers=8.",
            )
        return count

    def __repr__(self) -> str:
        return f"ClusterExecutor({self.address or ''})"


def _task() -> Callable[..., Any]:
    """What a node runs. It is sent whole, so that it can tell that the library isn't there, or is another."""

    def task(sent: list[Any], about: list[Any], given: list[Any]) -> Any:
        key, version, cpus, folder = about
        try:
            from residual.executors.node import node_task
            from residual.libraries import version_of
        except ImportError as error:
            import socket

            return f"On the node {socket.gethostname()} this library can't be imported ({error})."
        if version_of("residual-vit") != version:
            import socket

            there = version_of("residual-vit")
            return f"The library on the node {socket.gethostname()} is {there}, and here it is {version}."
        return node_task(sent, key, cpus, folder, given)

    return task


def _warmth() -> Callable[[], None]:
    def warmth() -> None:
        from contextlib import suppress

        with suppress(ImportError):  # the task tells
            from residual.executors.worker import warm

            warm()

    return warmth


def _check_answers(address: str) -> None:
    """Whether anything answers there: Ray itself tries for minutes.

    Raises:
        OSError: nothing does.
    """
    import ray

    place = urlsplit(address if "://" in address else f"//{address}")
    host, port = place.hostname, place.port or _CLIENT_PORT
    own = ""
    if "://" not in address and host in ("localhost", "127.0.0.1"):  # so does Ray, and there it looks
        host = ray.util.get_node_ip_address()
        own = f": on this machine Ray looks at {host}, its address in the network" * (host != place.hostname)
    try:
        socket.create_connection((host, port), timeout=_ANSWERS).close()
    except OSError as error:
        raise OSError(f"nothing answers there within {_ANSWERS:g} seconds{own}") from error


def last_started_here() -> str:
    """The address of the cluster that this user (or root) has started here last, if it answers; else "local",
    for one to start.
    """
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    file = Path(folder, "ray", "ray_current_cluster")
    with suppress(OSError, ValueError):  # what is left of a cluster that has ended
        if file.stat().st_uid in (0, os.getuid()):
            _check_answers(address := file.read_text(encoding="utf-8").strip())
            return address
    return "local"


@contextmanager
def _own_signals() -> Generator[None]:
    """Ray takes SIGTERM for itself; it stays with whoever has it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
