"""Images that are pixels already: for those who keep a dataset in memory, preprocessed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from residual.data.dataset import OWN_LICENCE, ImageDataset
from residual.encoders.pixels import Pixels
from residual.errors import ResidualError


class PixelDataset(ImageDataset):
    """Images that are preprocessed and in memory already, on the CPU or the GPU; only to be encoded.

    Args:
        pixels: `(n, 3, h, w)`, what `encoder.pixels` gives; of torch, or of NumPy, whose memory is shared.
        labels: `(n,)`, class numbers; `as_dataset` takes names and other kinds.
        class_names: one a class.
        name: of the dataset.
        split: "train", "val" or "test".
        sample_ids: one a sample, by default their numbers.
        templates, groups, group_names: as of any dataset.

    Raises:
        ResidualError: see `check`.

    Example:
        >>> import numpy as np, torch
        >>> from residual.data import PixelDataset
        >>> data = PixelDataset(torch.zeros(2, 3, 64, 64), np.array([0, 1]), ["cat", "dog"])
        >>> data
        <pixels train: 2 images, 2 classes>
        >>> data.subset([1]).sample_ids
        ('000001',)
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Iterable[Any],
        class_names: Sequence[str],
        name: str = "pixels",
        split: str = "train",
        sample_ids: Sequence[str] | None = None,
        templates: Sequence[str] = (),
        groups: Iterable[Any] | None = None,
        group_names: Sequence[str] = (),
    ):
        self.pixels = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.ascontiguousarray(pixels))
        ids = [f"{index:06d}" for index in range(len(pixels))] if sample_ids is None else sample_ids
        super().__init__(name, split, class_names, templates, labels, ids, OWN_LICENCE, groups, group_names)

    def check(self) -> None:
        """Refuse another number of images than of labels, and what no dataset has.

        Raises:
            ResidualError: see `ImageDataset.check`.
        """
        if self.labels.ndim == 1 and (self.pixels.ndim != 4 or len(self.pixels) != len(self.labels)):
            raise ResidualError(
                f"{self.full_name} has {len(self.labels)} labels but pixels of the shape "
                f"{tuple(self.pixels.shape)}; it needs (n, 3, height, width), n of each."
            )
        super().check()

    def load(self, index: int) -> Image.Image:
        """There is none.

        Raises:
            ResidualError: always.
        """
        raise ResidualError(f"{self.name} holds pixels, not images: it can only be encoded.")

    def subset(self, indices: Iterable[SupportsIndex | np.bool_]) -> PixelDataset:
        """The samples at `indices`, in that order, or those of a mask, as a dataset of their own."""
        chosen = self._rows(indices)
        return PixelDataset(
            self.pixels[chosen],
            self.labels[chosen],
            self.class_names,
            self.name,
            self.split,
            [self.sample_ids[index] for index in chosen],
            self.templates,
            None if self.groups is None else self.groups[chosen],
            self.group_names,
        )
