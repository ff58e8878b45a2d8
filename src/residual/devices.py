"""Which device to work on, and how many cores there are."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

from residual.errors import ResidualError

_share: list[int] = []  # of the cores, where it isn't all


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


def best_dtype(device: torch.device) -> torch.dtype:
    """What models run in there unless another is asked for: bfloat16 on a GPU that has it, else float32."""
    half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if half else torch.float32


def cores() -> int:
    """Those that this process may use, which on a shared machine aren't all."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([own, *_share])


def take_cores(count: int) -> None:
    """Use so many at most from now on: others of this machine are at work beside this process."""
    _share[:] = [max(1, count)]


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free there, of a CPU within the limit of a container; None where that can't be told."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    free: list[int] = []
    if device.type == "cpu":
        with suppress(OSError, ValueError, IndexError):  # another system has no such files
            told = Path("/proc/meminfo").read_text(encoding="ascii").partition("MemAvailable:")[2]
            free.append(1024 * int(told.split()[0]))
        with suppress(OSError, ValueError):
            group = Path("/sys/fs/cgroup")
            used, most = (
                int((group / name).read_text(encoding="ascii")) for name in ("memory.current", "memory.max")
            )
            cached = (group / "memory.stat").read_text(encoding="ascii").partition("inactive_file ")[2]
            free.append(most - used + int(cached.split()[0]))
    return min(free, default=None)
