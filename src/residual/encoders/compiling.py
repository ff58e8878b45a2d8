"""`torch.compile` for functions that are made again and again, and for none."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")
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


def uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """`torch.compiler.disable`, which loads torch's compiler, put off until something is compiled."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return run
