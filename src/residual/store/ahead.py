"""Do the next pieces of work in another thread while the caller works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(work: Callable[[A], B], items: Iterable[A], depth: int = 1) -> Iterator[B]:
    """`map(work, items)`, with up to `depth` results made before they are asked for, in order."""
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            for item in items:
                waiting.append(thread.submit(work, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # when the caller stops early, what isn't begun isn't done
            for future in waiting:
                future.cancel()
