"""`torch.compile` for functions that are made again and again."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]


def own_code(function: FunctionType) -> Callable[..., Any]:
    """`function` with a code object of its own.

    What is compiled is kept with the code, and after a few versions of one code torch compiles no more of it:
    encoders and poolings would use up each other's versions.
    """
    code = function.__code__.replace()
    copy = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
