"""Threads that answer, so that the server never waits; they end with the process, whatever they are at."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Job = tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]


class Workers:
    """A few threads with one queue.

    Args:
        count: of threads, which start with the first job.
        name: of them.
    """

    def __init__(self, count: int, name: str):
        self.count, self.name, self.busy = count, name, 0
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    async def run(self, work: Callable[[], Any]) -> Any:
        """What a thread makes of it; a job whose caller is gone before it begins isn't begun."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._jobs.put((work, future, loop))
        with self._lock:
            if len(self._threads) < self.count:
                thread = threading.Thread(target=self._work, name=self.name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return await future

    def _work(self) -> None:
        while True:
            work, future, loop = self._jobs.get()
            if future.cancelled():
                continue
            with self._lock:
                self.busy += 1
            try:
                result, error = work(), None
            except BaseException as raised:  # it is the caller's
                result, error = None, raised
            with self._lock:
                self.busy -= 1
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
