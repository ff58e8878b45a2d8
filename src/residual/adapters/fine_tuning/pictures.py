"""The pictures of a fine-tuning: in memory, on the GPU where they fit, or read again in every epoch."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from residual.adapters.matching import check_labels
from residual.data import ImageDataset, PixelDataset
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.read_ahead import ahead
from residual.store.reading import read_pixels
from residual.text.classifier import ZeroShotClassifier

IN_MEMORY = 2 * 10**9  # bytes of pixels, of all pictures together; more are read again in every epoch
_FREE = 0.4  # of a GPU's free memory, that pixels may take
_AT_ONCE = 256  # pictures read or checked at a time
_DIGESTED = 64  # pictures whose pixels go into a digest

Batch = tuple[Tensor, Tensor]  # pixels (b, 3, h, w) and labels (b,)


class Pictures(ABC):
    """Pictures with their labels `(n,)`, in batches on the device of the training."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def batches(self, order: Tensor | None, size: int, first: int = 0) -> Iterator[Batch]:
        """All of them in an order (None for their own), `size` at a time, from batch `first` on."""


class InMemory(Pictures):
    """Pictures as pixels, moved to the device if that has room, else batch by batch."""

    def __init__(self, pixels: Tensor, labels: Tensor, device: torch.device):
        moved = pixels.nbytes if pixels.device != device else 0
        fits = device.type != "cuda" or moved < _FREE * torch.cuda.mem_get_info(device)[0]
        self.pixels = pixels.to(device) if fits else pixels
        self.labels, self.device = labels.to(device), device

    def batches(self, order: Tensor | None, size: int, first: int = 0) -> Iterator[Batch]:
        """See `Pictures`."""
        on_device = self.pixels.device == self.device
        if order is None:
            parts: list[Any] = [slice(at, at + size) for at in range(first * size, len(self), size)]
        else:
            parts = list((order.to(self.device) if on_device else order).split(size)[first:])
        return map(self._batch, parts) if on_device else ahead(self._batch, parts)

    def _batch(self, part: Any) -> Batch:
        labels = self.labels[part if isinstance(part, slice) else part.to(self.device)]
        return self.pixels[part].to(self.device), labels


class OnDisk(Pictures):
    """Pictures that are read and preprocessed as they are needed, see `read_pixels`."""

    def __init__(self, encoder: Encoder, dataset: ImageDataset, workers: int | None):
        self.encoder, self.dataset, self.workers = encoder, dataset, workers
        self.labels = torch.tensor(dataset.labels).to(encoder.device)

    def batches(self, order: Tensor | None, size: int, first: int = 0) -> Iterator[Batch]:
        """See `Pictures`."""
        order = torch.arange(len(self)) if order is None else order
        rest = order[first * size :]
        if not len(rest):
            return
        labels = self.labels[rest.to(self.labels.device)].split(size)
        device = self.encoder.device
        reading = _pixels(self.encoder, self.dataset.subset(rest.tolist()), size, self.workers, device)
        # Worker processes are seeded from torch's random numbers as they start, and training goes on with
        # those after a break: it must not matter how often they were started.
        state = torch.get_rng_state()
        for number, pixels in enumerate(reading):
            if number == 0:
                torch.set_rng_state(state)
            yield pixels.to(device), labels[number]


def read_pictures(
    encoder: Encoder, datasets: Sequence[tuple[ImageDataset, str]], workers: int | None
) -> list[Pictures]:
    """Datasets to train on: in memory if all of them together are small, else read in every epoch.

    Args:
        encoder: on the device of the training.
        datasets: each with what it is called in errors.
        workers: see `read_pixels`.

    Raises:
        UnreadableImageError: names the sample.
        ResidualError: pixels aren't of the encoder's size, or aren't finite.
    """
    blank = encoder.preprocess(Image.new("RGB", (256, 256)))
    one = blank.numel() * encoder.dtype.itemsize
    small = one * sum(len(dataset) for dataset, _ in datasets) <= IN_MEMORY
    made: list[Pictures] = []
    for dataset, _ in datasets:
        if isinstance(dataset, PixelDataset):
            dataset.check()
            pixels = dataset.pixels
            encoder.checked_pixels(pixels[:1])
            for at in range(0, len(pixels), _AT_ONCE):
                _check_finite(dataset, pixels[at : at + _AT_ONCE], at)
        elif small:
            cpu = torch.device("cpu")
            pixels = torch.cat(list(_pixels(encoder, dataset, _AT_ONCE, workers, cpu)))
        else:
            made.append(OnDisk(encoder, dataset, workers))
            continue
        made.append(InMemory(pixels, torch.tensor(dataset.labels), encoder.device))
    return made


def _pixels(
    encoder: Encoder, dataset: ImageDataset, size: int, workers: int | None, device: torch.device
) -> Iterator[Tensor]:
    """Pixels `(b, 3, h, w)` of a dataset in its order, on a device."""
    ranges = [range(at, min(at + size, len(dataset))) for at in range(0, len(dataset), size)]
    reading = read_pixels(encoder, dataset, ranges, workers, skip=False, device=device)
    for batch, read in zip(ranges, reading, strict=True):
        (pixels,) = read.pixels
        _check_finite(dataset, pixels, batch.start)
        yield pixels


def _check_finite(dataset: ImageDataset, pixels: Tensor, start: int) -> None:
    """Refuse NaN and infinity in pixels of the samples from `start` on, by the sample's name."""
    if not pixels.sum(dtype=torch.float64).isfinite():
        finite = pixels.isfinite().flatten(1).all(1)
        wrong = dataset.sample_ids[start + int(finite.int().argmin())]
        raise ResidualError(f"The pixels of {wrong!r} in {dataset.full_name} hold NaN or infinity.")


def check_pictures(
    encoder: Encoder, dataset: ImageDataset, classifier: ZeroShotClassifier, what: str
) -> None:
    """Refuse pictures that don't belong to the encoder and the classifier, before any of them is read.

    Raises:
        ResidualError: says what doesn't, by name.
    """
    if encoder.changes:
        raise ResidualError(
            f"Fine-tuning trains a whole encoder, and this is {encoder.name}.",
            "Fine-tune it first, then keep units or adapt.",
        )
    if len(dataset) == 0:
        raise ResidualError(f"There are no {what} samples.")
    if encoder.output_dim != classifier.dim:
        raise ResidualError(
            f"The output of {encoder.name} has width {encoder.output_dim}, the classifier {classifier.dim}."
        )
    if classifier.fingerprint not in (None, encoder.fingerprint):
        raise ResidualError(
            f"The classifier is of another encoder (weights {classifier.fingerprint[:8]}) than "
            f"{encoder.name} (weights {encoder.fingerprint[:8]}). To keep it nevertheless, make it anew: "
            "ZeroShotClassifier(classifier.weights, classifier.class_names, classifier.scale)."
        )
    mine, its = tuple(dataset.class_names), classifier.class_names
    if mine != its:
        place = next((i for i, (a, b) in enumerate(zip(mine, its, strict=False)) if a != b), None)
        how = (
            f"{len(mine)} against {len(its)}"
            if place is None
            else f"class {place} is {mine[place]!r} against {its[place]!r}"
        )
        raise ResidualError(
            f"The classes of {dataset.full_name} aren't the classifier's: {how}. Make the classifier from "
            "the dataset's class_names."
        )
    check_labels(dataset.labels, classifier, what)


def digest_of_pictures(dataset: ImageDataset) -> str:
    """Tells datasets apart by name, classes, labels and sample ids; by some pixels if they are in memory."""
    names = [dataset.full_name, list(dataset.class_names), list(dataset.sample_ids)]
    some = []
    if isinstance(dataset, PixelDataset):
        some = [dataset.pixels[:: -(-len(dataset.pixels) // _DIGESTED) or 1]]
    return _digest(names, torch.tensor(dataset.labels), *some)


def digest_of_classifier(classifier: ZeroShotClassifier) -> str:
    """Tells classifiers apart by weights, scale and names."""
    return _digest([list(classifier.class_names), classifier.scale], classifier.weights)


def _digest(names: Any, *tensors: Tensor) -> str:
    total = hashlib.sha256(json.dumps(names).encode())
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        total.update(f"{values.dtype} {tuple(values.shape)}".encode())
        total.update(values.flatten().view(torch.uint8).numpy())
    return total.hexdigest()
