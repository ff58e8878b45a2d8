"""Dotted paths into a model: one, or several that are tried in turn.

Versions of a library have the same part in different places. An anatomy then names them all, and the first
that leads somewhere is taken; nothing else knows which it was.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from residual.libraries import version_of

Path = str | tuple[str, ...]
# The versions whose models are tested, from the oldest to the newest.
TESTED = {"transformers": ("4.57", "5.24")}


def versions_of(module: object) -> str:
    """Of the library that a model is of: which are known, and which is installed; empty if any will do."""
    library = type(module).__module__.partition(".")[0]
    if library not in TESTED:
        return ""
    oldest, newest = TESTED[library]
    return f"Known are {library} {oldest} to {newest}, and {version_of(library)} is installed."


def each_of(path: Path | None) -> tuple[str, ...]:
    """The paths to be tried, in turn."""
    return () if path is None else (path,) if isinstance(path, str) else path


def below(prefix: str, path: Path | None) -> Path | None:
    """The same paths of a model that lies at `prefix` inside another."""
    paths = tuple(f"{prefix}.{each}".rstrip(".") for each in each_of(path))
    return paths if len(paths) > 1 else paths[0] if paths else None


def said(path: Path) -> str:
    """How messages call it."""
    return " or ".join(each_of(path))


def at(module: Any, path: str) -> Any:
    """What is there, or None; the empty path is the module itself."""
    try:
        return attrgetter(path)(module) if path else module
    except AttributeError:
        return None


def first(module: Any, path: Path) -> str:
    """The first of the paths that leads somewhere, or else the first."""
    paths = each_of(path)
    return next((each for each in paths if at(module, each) is not None), paths[0])


def get(module: Any, path: Path | None) -> Any:
    """What the first path that leads somewhere leads to, or None."""
    return None if path is None else at(module, first(module, path))


def follow(module: Any, path: Path) -> Any:
    """The same where something is there for sure.

    Raises:
        AttributeError: nothing is.
    """
    found = first(module, path)
    return attrgetter(found)(module) if found else module
