"""Which device to work on, and how many cores there are."""

from __future__ import annotations

import os

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


def cores() -> int:
    """Those that this process may use, which on a shared machine aren't all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
