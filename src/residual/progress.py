"""How long work tells how far it is: one protocol, for every room."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol, overload, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Called again and again in the course of some work, from the thread that asked for it.

    An exception that it raises ends the work; what is on disk by then is whole.
    """

    def __call__(self, stage: str, done: int, total: int, /) -> object:
        """`done` of `total` of a stage are done: samples, epochs, units or texts, as its name says."""
        ...


_listeners: list[Progress] = []


@contextmanager
def listening(progress: Progress) -> Generator[None]:
    """Let `progress` hear of work, too, that nobody hands it to: what is fetched or drawn when something is
    loaded. It is of the whole process, since files are fetched by threads."""
    _listeners.append(progress)
    try:
        yield
    finally:
        _listeners.remove(progress)


def listener() -> Progress | None:
    """Who listens to such work: the last that began, or nobody."""
    return _listeners[-1] if _listeners else None


@overload
def named(progress: Progress, stage: str) -> Progress: ...


@overload
def named(progress: None, stage: str) -> None: ...
def named(progress: Progress | None, stage: str) -> Progress | None:
    """`progress` told of one stage by this name, whatever the work below calls it; None stays None.

    Example:
        >>> named(print, "encode train")("encode", 64, 1000)
        encode train 64 1000
        >>> named(None, "encode train") is None
        True
    """
    if progress is None:
        return None
    return lambda _, done, total: progress(stage, done, total)


def under(progress: Progress | None, prefix: str) -> Progress | None:
    """`progress` with stages named after what they belong to: "letters: encode train"; None stays None."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{prefix}: {stage}", done, total)
