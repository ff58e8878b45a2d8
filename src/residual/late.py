"""Names of rooms further down that rooms further up hand out: the package tells where they are, and they are
loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_homes: dict[str, str] = {}


def tell(name: str, module: str) -> None:
    """Where `name` is."""
    _homes[name] = module


def late(name: str) -> Any:
    """What was told of."""
    return getattr(import_module(_homes[name]), name)
