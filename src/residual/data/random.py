"""`random`: noise without any meaning, for what an encoder does to images that show nothing."""

from __future__ import annotations

import numpy as np
from PIL import Image

from residual.data.dataset import ImageDataset

SIDE = 224
CLASSES = 10
SIZES = {"train": 1000, "val": 200, "test": 200}
TEMPLATES = ("a photo of a {}.", "an image of {}.")
ABOUT = f"uniform noise, {SIDE} pixels; the labels mean nothing"
LICENCE = "made by a generator; nobody's"


class RandomDataset(ImageDataset):
    """Sample `i` is uniform noise of its own seed, alone or in a row the same; its class is `i mod 10`."""

    def __init__(self, split: str):
        n = SIZES[split]
        super().__init__(
            "random",
            split,
            [f"noise {index}" for index in range(CLASSES)],
            TEMPLATES,
            np.arange(n) % CLASSES,
            [f"{split}/{index:05d}" for index in range(n)],
            LICENCE,
        )

    def load(self, index: int) -> Image.Image:
        """Sample `index`."""
        from residual.data.suite.draw import random_for

        # Bytes of the generator, since its stream of those is frozen.
        pixels = random_for("random", self.split, index).bytes(SIDE * SIDE * 3)
        return Image.frombytes("RGB", (SIDE, SIDE), pixels)
