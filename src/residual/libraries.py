"""Libraries that may or may not be installed: their versions, and what they say in one line."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from residual.errors import ResidualError


def library(module: str, name: str, extra: str) -> Any:
    """An optional library.

    Raises:
        ResidualError: it isn't installed; says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ResidualError(
            f"{name} needs {module}, which isn't installed: pip install 'residual-vit[{extra}]'."
        ) from error


@cache  # it is looked for in files
def version_of(name: str) -> str:
    """Of an installed library."""
    try:
        return version(name)
    except PackageNotFoundError:  # run from its source
        return "not installed"


def first_line(error: Exception) -> str:
    """What an error says, without the rest of its page. (torch names missing weights on its second line.)"""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
