"""Which device to work on."""

from __future__ import annotations

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
