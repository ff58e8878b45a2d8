"""Do the next pieces of work in other threads while the caller works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(work: Callable[[A], B], items: Iterable[A], depth: int = 1, threads: int = 1) -> Iterator[B]:
    """`map(work, items)`, with up to `depth` results made before they are asked for, in order.

    What `work` raises comes where its result would.

    Example:
        >>> list(ahead(str.upper, ["a", "b", "c"], depth=2))
        ['A', 'B', 'C']
    """
    waiting: deque[Future[B]] = deque()
    pool = ThreadPoolExecutor(threads, "residual-reader")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # When the caller stops early, what isn't begun isn't done. Nothing waits for what is: the collector
        # may end this in one of the pool's own threads, which can't wait for itself.
        pool.shutdown(wait=False, cancel_futures=True)
