"""`mnist` and `digits`: real handwritten digits, enlarged to 64 px, white on black as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from residual.data.dataset import SPLITS, ImageDataset, stratified_split
from residual.data.suite.assets import real_digits
from residual.data.suite.draw import SIDE


class RealDigits(ImageDataset):
    """One split of a shipped set of digits; `sample_ids` tell the sample's number in the whole set."""

    def __init__(self, name: str, split: str, spec: dict[str, Any]):
        images, labels = real_digits(name)
        chosen = stratified_split(labels)[SPLITS.index(split)]
        # MNIST comes sorted by class: mixed, so that the first few samples are of many classes.
        chosen = np.random.RandomState(42).permutation(chosen)
        self._images = images[chosen]
        self._white = int(images.max())
        super().__init__(
            name,
            split,
            [entry["name"] for entry in spec["classes"]],
            spec["templates"],
            labels[chosen],
            [f"{name}/{i:05d}" for i in chosen],
            spec["licence"],
        )

    def load(self, index: int) -> Image.Image:
        """Sample `index`, 64 px."""
        pixels = (self._images[index].astype(np.float32) * (255 / self._white)).round().astype(np.uint8)
        return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("RGB")
