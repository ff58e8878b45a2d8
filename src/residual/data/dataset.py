"""What every labelled image dataset offers, whether read from a folder, unpacked or drawn."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

import numpy as np
from PIL import Image

SPLITS = ("train", "val", "test")


class ImageDataset:
    """A map dataset in PyTorch's manner: `len(ds)` samples, `ds[i]` an RGB image and its class number.

    `name` and `split` say what it is; `class_names` and `templates` (each with one `{}`) are for zero-shot
    classifiers; `labels` `(n,)` int64 and `sample_ids` are known without decoding an image; `licence` is one
    line. A concrete class fills these in and defines `load(i)`.
    """

    def __init__(
        self,
        name: str,
        split: str,
        class_names: Sequence[str],
        templates: Sequence[str],
        labels: np.ndarray,
        sample_ids: Sequence[str],
        licence: str,
    ):
        self.name = name
        self.split = split
        self.class_names = tuple(class_names)
        self.templates = tuple(templates)
        self.labels = np.asarray(labels, np.int64)
        self.sample_ids = tuple(sample_ids)
        self.licence = licence

    def load(self, index: int) -> Image.Image:
        """Sample `index` (not negative) as an RGB image; `UnreadableImageError` where it can't be decoded."""
        raise NotImplementedError

    def subset(self, indices: Iterable[SupportsIndex]) -> ImageDataset:
        """The samples at `indices`, in that order, as a dataset of their own."""
        return _Subset(self, indices)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: SupportsIndex) -> tuple[Image.Image, int]:
        number = self._checked(index)
        return self.load(number), int(self.labels[number])

    def __repr__(self) -> str:
        return f"<{self.name} {self.split}: {len(self):,} images, {len(self.class_names)} classes>"

    def _checked(self, index: SupportsIndex) -> int:
        n, number = len(self), operator.index(index)
        if not -n <= number < n:
            raise IndexError(f"{self.name} {self.split} has {n} samples, there is no number {number}")
        return number % n


class _Subset(ImageDataset):
    def __init__(self, parent: ImageDataset, indices: Iterable[SupportsIndex]):
        self._parent = parent
        self._indices = [parent._checked(i) for i in indices]
        super().__init__(
            parent.name,
            parent.split,
            parent.class_names,
            parent.templates,
            parent.labels[self._indices],
            [parent.sample_ids[i] for i in self._indices],
            parent.licence,
        )

    def load(self, index: int) -> Image.Image:
        return self._parent.load(self._indices[index])


def stratified_split(
    labels: np.ndarray, parts: Sequence[float] = (0.6, 0.2, 0.2), seed: int = 42
) -> list[np.ndarray]:
    """Indices `(n_i,)`, ascending, of each part of a split that keeps the classes' proportions.

    Samples are shuffled inside each class; part borders are rounded so that every class of at least
    `len(parts)` samples is in every part.
    """
    labels = np.asarray(labels)
    random = np.random.RandomState(seed)
    chosen: list[list[np.ndarray]] = [[] for _ in parts]
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        n, p = len(members), len(parts)
        borders = [int(np.floor(n * sum(parts[: i + 1]) + 0.5)) for i in range(p - 1)]
        if n >= p:
            for i in range(p - 1):
                least = borders[i - 1] + 1 if i else 1
                borders[i] = min(max(borders[i], least), n - (p - 1 - i))
        for part, piece in zip(chosen, np.split(members, borders), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) if part else np.empty(0, np.int64) for part in chosen]
