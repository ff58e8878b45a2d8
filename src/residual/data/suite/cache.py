"""A generated split kept on disk: one `.npy` array followed by the SHA-256 of its bytes."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import numpy as np

from residual.data.suite.assets import fingerprint
from residual.files import cache_folder, written_beside


def cache_path(name: str, split: str) -> Path:
    """Where a split is kept; the name tells apart all that its images depend on."""
    return cache_folder() / "suite" / f"{name}-{split}-{fingerprint()[:16]}.npy"


def read(name: str, split: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The kept images `shape` uint8, or None where there are none or they aren't what was written."""
    try:
        with cache_path(name, split).open("rb") as file:
            images = np.load(file, allow_pickle=False)
            digest = file.read()
    except (OSError, ValueError, EOFError):
        return None
    if (
        images.shape != shape
        or images.dtype != np.uint8
        or hashlib.sha256(images.tobytes()).digest() != digest
    ):
        return None
    return images


def write(name: str, split: str, images: np.ndarray) -> None:
    """Keep the images in place of those of other versions; where the folder can't be written, do nothing."""
    path = cache_path(name, split)
    with contextlib.suppress(OSError):
        with written_beside(path) as beside, beside.open("wb") as file:
            np.save(file, images, allow_pickle=False)
            file.write(hashlib.sha256(images.tobytes()).digest())
        for other in path.parent.glob(f"{name}-{split}-*.npy"):
            if other != path:
                other.unlink()
