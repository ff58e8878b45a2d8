"""How a model is run: in evaluation mode, and what is compiled apart from what isn't."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from threading import Lock
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

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


def modules_of(module: nn.Module) -> list[nn.Module]:
    """All that `module.modules()` gives, in a quarter of its time: it is asked for at every call."""
    found, seen = [module], {module}
    for part in found:  # which grows meanwhile
        for child in part._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                found.append(child)
    return found


def tensors_of(modules: list[nn.Module]) -> list[Tensor]:
    """Their parameters and buffers."""
    held = chain.from_iterable((*part._parameters.values(), *part._buffers.values()) for part in modules)
    return [each for each in held if each is not None]


# How many calls, of whatever threads, have set a flag of a module to False for as long as they run.
_off: Counter[tuple[nn.Module, str]] = Counter()
_lock = Lock()


@contextmanager
def evaluating(module: nn.Module, hooked: bool = False) -> Generator[None]:
    """In here the model is in evaluation mode, whatever it was set to, and after that as it was.

    Threads may be in here at once: the last to leave sets the mode back. What is compiled or exported by the
    caller keeps its mode. Where hooks come and go (`hooked`), no layer is left to be run again for gradients,
    as timm and open_clip do in any mode: they would be gone by then.
    """
    if torch.compiler.is_compiling():
        yield
        return
    parts = modules_of(module)
    flags = ("training", "grad_checkpointing") if hooked else ("training",)
    with _lock:
        on = [
            (part, flag)
            for flag in flags
            for part in parts
            if vars(part).get(flag) is True or (_off and (part, flag) in _off)
        ]
        _off.update(on)
        for part, flag in on:
            setattr(part, flag, False)  # `eval` is what some libraries merge weights in
    try:
        yield
    finally:
        with _lock:
            _off.subtract(on)
            for part, flag in on:
                if not _off[part, flag]:
                    del _off[part, flag]
                    setattr(part, flag, True)


def recorded(module: nn.Module, *inputs: Tensor) -> bool:
    """Whether gradients of the module's weights or inputs are recorded: somebody trains through it."""
    tensors = chain(inputs, module.parameters())
    return torch.is_grad_enabled() and any(each.requires_grad for each in tensors)


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
