"""Which device to work on."""

from __future__ import annotations

import importlib.util

import torch

from residual.errors import ResidualError


def find_device(wanted: str | torch.device | None) -> torch.device:
    """The device that was asked for, or the best one there is.

    Raises:
        ResidualError: it isn't there.
    """
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ResidualError(
            f"The device {str(wanted)!r} isn't there ({str(error).splitlines()[0]}). Known here: cpu"
            f"{', cuda' if torch.cuda.is_available() else ''}."
        ) from error
    return device


def has_hopper(device: torch.device) -> bool:
    """Whether kernels for NVIDIA's Hopper (H100, H200) can be compiled for this device and run on it."""
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) == (9, 0)
        and importlib.util.find_spec("triton") is not None
    )
