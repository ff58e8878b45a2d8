"""Which way sums over components are made in a fit: torch's, or kernels for a GPU's tensor cores."""

from __future__ import annotations

import importlib.util
import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from residual.adapters.adapter import WeightedSums
from residual.libraries import first_line

WORTH_COMPILING = 1e14  # operations, some three seconds of a GPU in float32


def quick_directions(
    directions: Float[Tensor, "K d"], fits: int, batch_size: int, samples: int
) -> Float[Tensor, "K d"] | WeightedSums:
    """`Φ`, or what is twice as fast, to the same rounding, where that makes up for being compiled.

    Args:
        directions: `Φ`, on the device of the fits.
        fits: at once.
        batch_size: samples of each in a step.
        samples: of all steps of all fits.
    """
    if (
        4 * samples * directions.numel() < WORTH_COMPILING
        or directions.dtype != torch.float32
        or not has_hopper(directions.device)
    ):
        return directions
    (components, dim), zeros = directions.shape, directions.new_zeros
    try:
        from residual.adapters.tensor_cores import WeightedSum

        quick = WeightedSum(directions)
        quick(zeros(fits, batch_size, components), zeros(fits, components), zeros(fits, batch_size, dim))
    except Exception as error:  # whatever triton, or the C compiler that it needs, says
        warnings.warn(
            f"Kernels for this GPU can't be compiled, so the fit is slower: {first_line(error)}", stacklevel=2
        )
        return directions
    return quick


def has_hopper(device: torch.device) -> bool:
    """Whether this is an NVIDIA GPU of the Hopper generation (H100, H200), and triton is there."""
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) == (9, 0)
        and importlib.util.find_spec("triton") is not None
    )
