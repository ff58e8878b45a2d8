"""Datasets whose images are drawn when they are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from residual.data.dataset import ImageDataset
from residual.data.suite import cache
from residual.data.suite.draw import SIDE, Random, random_for


@dataclass(frozen=True)
class Sample:
    """What a sample shows: the entry of its class in `suite.json`, and what it is drawn from."""

    split: str
    entry: dict[str, Any]
    source: str


class Family(ABC):
    """A kind of generated dataset: what each class is drawn from, and how."""

    @abstractmethod
    def sources(self, entry: dict[str, Any], split: str) -> Sequence[str]:
        """What the images of a class are drawn from, in turn."""

    @abstractmethod
    def image(self, random: Random, sample: Sample) -> np.ndarray:
        """The image `(64, 64, 3)` uint8."""


class OneStyleEach(Family):
    """Train and test are drawn from the sprites that the class lists for them; val from those of train."""

    def sources(self, entry: dict[str, Any], split: str) -> Sequence[str]:
        """The split's sprites."""
        return entry["test" if split == "test" else "train"]


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
        self._pixels: np.ndarray | None = None  # (n, 64, 64, 3), filled as samples are drawn
        self._drawn = np.zeros(n, bool)
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
        if self._pixels is None:
            kept = cache.read(self.name, self.split, (len(self), SIDE, SIDE, 3))
            self._drawn[:] = kept is not None
            self._pixels = np.zeros((len(self), SIDE, SIDE, 3), np.uint8) if kept is None else kept
        if not self._drawn[index]:
            self._pixels[index] = self.draw(index)
            self._drawn[index] = True
            if self._drawn.all():
                cache.write(self.name, self.split, self._pixels)
        return Image.fromarray(self._pixels[index])

    def draw(self, index: int) -> np.ndarray:
        """Sample `index` drawn anew, `(64, 64, 3)` uint8."""
        return self._family.image(random_for(self.name, self.split, index), self._samples[index])
