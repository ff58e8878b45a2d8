"""The tensors that a `Linearization` is made of and that files hold: which they are, of which shapes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from residual.errors import ResidualError

_MAPS = {"maps", "offsets"}
CHANGED = {"left_out", "left_out_constants", *_MAPS}  # where contributions aren't those of the model


def constants_state(constants: Mapping[int, Tensor], like: Tensor) -> dict[str, Tensor]:
    """The state of units that contribute constants."""
    if not constants:
        return {}
    units = sorted(constants)
    return {
        "left_out": torch.tensor(units),
        "left_out_constants": torch.stack([constants[unit].to(like) for unit in units]),
    }


def check_state(state: dict[str, Tensor]) -> None:
    """Refuse tensors that can't be of one encoder: a file may be anyone's."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    axes = {"attention_weight": 4, "projection_weight": 3, "attention_bias": 2}
    axes |= {"norm_weight": 1, "norm_bias": 1}
    fits = all(len(shapes.get(name, ())) == count for name, count in axes.items())
    if fits:
        (layers, *_, width), (*_, output) = shapes["attention_weight"], shapes["projection_weight"]
        fits = (
            shapes["attention_bias"] == (layers, width)
            and shapes["norm_weight"] == shapes["norm_bias"] == (width,)
            and shapes["projection_weight"][1] == width
            and shapes.get("projection_bias", ())[-1:] == (output,)
            and shapes.get("pool_mlp_weight", (output,))[-1:] == (output,)
            and (*shapes.get("left_out", (0,)), output) == shapes.get("left_out_constants", (0, output))
            and all(len(shapes[name]) == 2 and shapes[name][1] == output for name in _MAPS & shapes.keys())
            and len(_MAPS & shapes.keys()) != 1
        )
    if not fits:
        raise ResidualError("The tensors of a linearization aren't those of one encoder.")
    if wrong := [name for name, value in state.items() if not value.sum().isfinite()]:
        raise ResidualError(f"The linearization holds NaN or infinity in {', '.join(wrong)}.")


def narrowest(value: Tensor) -> Tensor:
    """In the first of these precisions that changes no number."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        if torch.equal((narrow := value.to(dtype)).to(value.dtype), value):
            return narrow
    return value
