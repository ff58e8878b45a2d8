"""How a model is run: in evaluation mode, and what is compiled apart from what isn't."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

P = ParamSpec("P")
T = TypeVar("T")


def uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """`torch.compiler.disable`, which loads torch's compiler, put off until something is compiled."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return run


@contextmanager
def evaluating(module: nn.Module) -> Generator[None]:
    """In here the model is in evaluation mode, whatever it was set to, and after that as it was.

    What is compiled or exported by the caller keeps its mode.
    """
    training = [] if torch.compiler.is_compiling() else [part for part in module.modules() if part.training]
    for part in training:
        part.training = False  # `eval` is what some libraries merge weights in
    try:
        yield
    finally:
        for part in training:
            part.training = True


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
