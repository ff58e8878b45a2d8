"""Datasets whose images are drawn when they are asked for, and kept on disk once a split is drawn whole."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from residual.data.dataset import ImageDataset
from residual.data.suite.assets import fingerprint
from residual.data.suite.draw import SIDE, Things, covered, random_for
from residual.errors import ResidualError
from residual.files import cache_folder, written_beside


@dataclass(frozen=True)
class Sample:
    """What a sample shows: the entry of its class in `suite.json`, and what it is drawn from."""

    split: str
    entry: dict[str, Any]
    source: str


def sources_listed(entry: dict[str, Any], split: str) -> Sequence[str]:
    """The sprites that the class lists: one style for train and val, another for test."""
    return entry["test" if split == "test" else "train"]


@dataclass(frozen=True)
class Family:
    """A kind of generated dataset.

    Args:
        image: draws a sample, `(64, 64, 3)` uint8.
        sources: what the images of a class are drawn from, in turn.
        shows_things: of its class, in places of their own: `image` is given a list, which it adds them to.
    """

    image: Callable[..., np.ndarray]
    sources: Callable[[dict[str, Any], str], Sequence[str]] = sources_listed
    shows_things: bool = False


class GeneratedDataset(ImageDataset):
    """Sample `i` is of class `i mod c` and drawn from its own seed, alone or among others the same.

    A split that has been drawn whole is kept in the cache folder, and read from there the next time.
    """

    def __init__(self, name: str, split: str, spec: dict[str, Any], family: Family):
        n, classes = spec["sizes"][split], spec["classes"]
        self._family = family
        sources = [family.sources(entry, split) for entry in classes]
        self._samples = []
        for i in range(n):
            turn, label = divmod(i, len(classes))
            self._samples.append(Sample(split, classes[label], sources[label][turn % len(sources[label])]))
        # The pixels (n, 64, 64, 3) and which of them are drawn; one pair, so that threads see them together.
        self._drawn: tuple[np.ndarray, np.ndarray] | None = None
        super().__init__(
            name,
            split,
            [entry["name"] for entry in classes],
            spec["templates"],
            np.arange(n) % len(classes),
            [f"{name}/{split}/{i:05d}:{sample.source}" for i, sample in enumerate(self._samples)],
            spec["licence"],
        )

    def load(self, index: int) -> Image.Image:
        """Sample `index`, 64 px."""
        if self._drawn is None:
            shape = (len(self), SIDE, SIDE, 3)
            kept = read_kept(self.name, self.split, shape)
            pixels = np.zeros(shape, np.uint8) if kept is None else kept
            self._drawn = pixels, np.full(len(self), kept is not None)
        pixels, drawn = self._drawn
        if not drawn[index]:
            pixels[index] = self.draw(index)
            drawn[index] = True
            if drawn.all():
                write_kept(self.name, self.split, pixels)
        return Image.fromarray(pixels[index])

    def draw(self, index: int) -> np.ndarray:
        """Sample `index` drawn anew, `(64, 64, 3)` uint8."""
        return self._drawn_with_things(index)[0]

    def masks(self, index: int) -> np.ndarray:
        """See `ImageDataset`."""
        if not self._family.shows_things:
            return super().masks(index)
        return np.stack([covered(thing) for thing in self._drawn_with_things(index)[1]])

    def _drawn_with_things(self, index: int) -> tuple[np.ndarray, Things]:
        given: list[Any] = [random_for(self.name, self.split, index), self._samples[index]]
        things: Things = []
        if self._family.shows_things:
            given.append(things)
        return self._family.image(*given), things


def kept_path(name: str, split: str) -> Path:
    """Where a split is kept; the name tells apart all that its images depend on."""
    return cache_folder() / "suite" / f"{name}-{split}-{fingerprint()[:16]}.npy"


def read_kept(name: str, split: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The kept images `shape` uint8, or None where there are none or they aren't what was written."""
    try:
        with kept_path(name, split).open("rb") as file:
            images = np.load(file, allow_pickle=False)
            digest = file.read()
    except (OSError, ValueError, EOFError):
        return None
    whole = images.shape == shape and images.dtype == np.uint8
    return images if whole and hashlib.sha256(images.tobytes()).digest() == digest else None


def write_kept(name: str, split: str, images: np.ndarray) -> None:
    """Keep a split, one `.npy` array and the SHA-256 of its bytes, in place of other versions' of it.

    Where the folder can't be written, nothing is done.
    """
    path = kept_path(name, split)
    with contextlib.suppress(ResidualError, OSError):
        with written_beside(path) as beside, beside.open("wb") as file:
            np.save(file, images, allow_pickle=False)
            file.write(hashlib.sha256(images.tobytes()).digest())
        for other in path.parent.glob(f"{name}-{split}-*.npy"):
            if other != path:
                other.unlink()
