"""`mixed`: some pictures of every dataset of the offline suite, as a broad sample of what there is to see."""

from __future__ import annotations

import numpy as np
from PIL import Image

from residual.data.dataset import ImageDataset
from residual.data.suite import load_suite, suite_names
from residual.errors import ResidualError

PER_DATASET = 200
ABOUT = f"{PER_DATASET} pictures of each of the ten that ship; the class is the dataset"
LICENCE = "those of the ten"


class MixedDataset(ImageDataset):
    """`per_dataset` pictures of each dataset of the suite, the same every time; labels say which dataset.

    Args:
        split: of all of them.
        per_dataset: pictures of each, or all where there are fewer.

    Raises:
        ResidualError: `per_dataset` is below 1.
    """

    def __init__(self, split: str, per_dataset: int = PER_DATASET):
        if per_dataset < 1:
            raise ResidualError(f"per_dataset must be at least 1, got {per_dataset}.")
        self._parts = [load_suite(name, split).sample(per_dataset) for name in suite_names()]
        sizes = [len(part) for part in self._parts]
        self._starts = np.cumsum([0, *sizes])
        super().__init__(
            "mixed",
            split,
            suite_names(),
            ("a picture from {}.",),
            np.repeat(np.arange(len(sizes)), sizes),
            [f"{part.name}/{sample}" for part in self._parts for sample in part.sample_ids],
            LICENCE,
        )

    def load(self, index: int) -> Image.Image:
        """Sample `index`."""
        part = self.labels[index]
        return self._parts[part].load(index - int(self._starts[part]))

    def load_with_digest(self, index: int) -> tuple[Image.Image, int]:
        """Sample `index`, with the digest that it has in its own dataset."""
        part = self.labels[index]
        return self._parts[part].load_with_digest(index - int(self._starts[part]))
