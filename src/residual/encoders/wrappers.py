"""What other libraries put around a model or its layers: adapters of peft, shells that run copies of it.

A layer of peft holds the one it is around, and what it adds hangs on settings that are no weights: which
adapters are active, how they are scaled, whether they are merged. It is told by its class, so that peft isn't
imported. Whatever such a layer does to a linear one, it stays a matrix and a bias, and is read off as that.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from residual.encoders.running import modules_of, uncompiled
from residual.errors import ResidualError

_MODELS = frozenset({"PeftModel", "PeftMixedModel"})
_LAYERS = frozenset({"BaseTunerLayer", "AuxiliaryTrainingWrapper"})
_HELD = ("base_layer", "original_module")  # what a layer of either kind is around
_SETTINGS = ("active_adapters", "disable_adapters", "merged_adapters", "scaling", "use_dora")


def unwrapped(module: Any) -> nn.Module:
    """The model inside shells: of peft, whose layers stay in it, or of torch.nn's data parallelism.

    Raises:
        ResidualError: peft puts more than layers around it.
    """
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif _of_peft(module, _MODELS):
            if not _of_peft(module.base_model, frozenset({"BaseTuner"})):
                raise ResidualError(
                    f"{type(module).__name__} with prompts or prefixes of its own can't be split.",
                    "Can be: adapters inside layers, as LoRA.",
                )
            module = module.base_model.model
        else:
            return module


def inside(layer: Any) -> Any:
    """The layer that layers of peft are around; any other is itself."""
    while _of_peft(layer, _LAYERS):
        layer = next(getattr(layer, name) for name in _HELD if hasattr(layer, name))
    return layer


@uncompiled
def adapters_in(module: nn.Module) -> dict[str, str]:
    """What hangs on no weight in each of peft's layers, by their names; empty for a model without any."""
    if not any(_of_peft(part, _LAYERS) for part in modules_of(module)):
        return {}  # in a fraction of the time, at every call
    return {
        name: " ".join(f"{setting}={getattr(layer, setting, None)}" for setting in _SETTINGS)
        for name, layer in module.named_modules()
        if _of_peft(layer, _LAYERS)
    }


def affine(source: nn.Module | Tensor) -> tuple[Tensor, Tensor | None]:
    """`W (D, d)` and `b (d,)` or None with `x W + b` what a linear layer, or one around it, makes of `x`."""
    if isinstance(source, Tensor):
        return source, None
    if isinstance(source, nn.Linear) and type(source).forward is nn.Linear.forward:
        return source.weight.T, source.bias
    hooks = [
        each for part in source.modules() for name, each in vars(part).items() if name.endswith("_hooks")
    ]
    without: dict[int, Any] = {id(each): OrderedDict() for each in hooks}  # they may hold on to a whole model
    layer: Any = copy.deepcopy(source, without).to("cpu", torch.float64).eval()
    with torch.inference_mode(False), torch.no_grad():
        constant = layer.forward(torch.zeros(1, layer.in_features, dtype=torch.float64))[0]
        return layer.forward(torch.eye(layer.in_features, dtype=torch.float64)) - constant, constant


def _of_peft(value: Any, names: frozenset[str]) -> bool:
    return _derives(type(value), names)


@lru_cache
def _derives(kind: type, names: frozenset[str]) -> bool:
    return any(
        base.__name__ in names and base.__module__.partition(".")[0] == "peft" for base in kind.__mro__
    )
