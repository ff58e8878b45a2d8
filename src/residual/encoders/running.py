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
def evaluating(module: nn.Module, hooked: bool = False) -> Generator[None]:
    """In here the model is in evaluation mode, whatever it was set to, and after that as it was.

    What is compiled or exported by the caller keeps its mode. Where hooks come and go (`hooked`), no layer is
    left to be run again for gradients, as timm and open_clip do in any mode: they would be gone by then.
    """
    parts = [] if torch.compiler.is_compiling() else [*module.modules()]
    flags = ("training", "grad_checkpointing") if hooked else ("training",)
    on = [(part, flag) for flag in flags for part in parts if getattr(part, flag, None) is True]
    for part, flag in on:
        setattr(part, flag, False)  # `eval` is what some libraries merge weights in
    try:
        yield
    finally:
        for part, flag in on:
            setattr(part, flag, True)


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
