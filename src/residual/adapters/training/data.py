"""What training goes over: samples in memory, on the GPU where they fit, or pictures read in every epoch."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from residual.adapters.scores import Scores
from residual.data import ImageDataset, PixelDataset
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.read_ahead import ahead
from residual.store.forward import read_pixels
from residual.text.classifier import ZeroShotClassifier

IN_MEMORY = 2 * 10**9  # bytes of pixels, of all pictures together; more are read again in every epoch
_FREE = 0.4  # of a GPU's free memory, that samples may take
_AT_ONCE = 256  # pictures read or checked at a time
_LOOKED_AT = 64  # samples whose numbers go into a digest

Batch = tuple[tuple[Tensor, ...], Tensor]  # what the outputs are computed from, and labels (b,)


class Samples(ABC):
    """Samples with their labels `(n,)`, in batches on the device of the training."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def batches(self, order: Tensor | None, size: int, first: int = 0) -> Iterator[Batch]:
        """All samples in an order (None for their own), `size` at a time, from batch `first` on."""


class InMemory(Samples):
    """Samples as tensors.

    Args:
        inputs: each `(n, …)`; they are moved to the device if that has room, else batch by batch.
        labels: `(n,)`.
        device: of the training.
    """

    def __init__(self, inputs: Sequence[Tensor], labels: Tensor, device: torch.device):
        size = sum(each.nbytes for each in inputs if each.device != device)
        fits = device.type != "cuda" or size < _FREE * torch.cuda.mem_get_info(device)[0]
        self.inputs = tuple(each.to(device) if fits else each for each in inputs)
        self.labels, self.device = labels.to(device), device

    def batches(self, order: Tensor | None, size: int, first: int = 0) -> Iterator[Batch]:
        """See `Samples`."""
        here = all(each.device == self.device for each in self.inputs)
        if order is None:
            parts: list[Any] = [slice(at, at + size) for at in range(first * size, len(self), size)]
        else:
            parts = list((order.to(self.device) if here else order).split(size)[first:])
        return map(self._batch, parts) if here else ahead(self._batch, parts)

    def _batch(self, part: Any) -> Batch:
        labels = self.labels[part if isinstance(part, slice) else part.to(self.device)]
        return tuple(each[part].to(self.device) for each in self.inputs), labels


class OnDisk(Samples):
    """Pictures that are read and preprocessed as they are needed.

    Args:
        encoder: tells how they become pixels, and where.
        dataset: the pictures.
        workers: see `read_pixels`.
    """

    def __init__(self, encoder: Encoder, dataset: ImageDataset, workers: int | None):
        self.encoder, self.dataset, self.workers = encoder, dataset, workers
        self.device = encoder.device
        self.labels = torch.from_numpy(dataset.labels).to(self.device)

    def batches(self, order: Tensor | None, size: int, first: int = 0) -> Iterator[Batch]:
        """See `Samples`."""
        order = torch.arange(len(self)) if order is None else order
        rest = order[first * size :]
        if not len(rest):
            return
        labels = self.labels[rest.to(self.device)].split(size)
        reading = _pixels(self.encoder, self.dataset.subset(rest.tolist()), size, self.workers)
        # Worker processes are seeded from torch's random numbers as they start, and training goes on with
        # those after a break: it must not matter how often they were started.
        state = torch.get_rng_state()
        for number, pixels in enumerate(reading):
            if number == 0:
                torch.set_rng_state(state)
            yield (pixels.to(self.device, non_blocking=True),), labels[number]


def images(
    encoder: Encoder, datasets: Sequence[tuple[ImageDataset, str]], workers: int | None
) -> list[Samples]:
    """Pictures as samples: in memory if all of them together are small, else read in every epoch.

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
    made: list[Samples] = []
    for dataset, what in datasets:
        if isinstance(dataset, PixelDataset):
            if len(dataset.pixels) != len(dataset):
                raise ResidualError(
                    f"There are {len(dataset.pixels)} {what} pictures, but {len(dataset)} labels."
                )
            pixels = dataset.pixels
            encoder.checked_pixels(pixels[:1])
            for at in range(0, len(pixels), _AT_ONCE):
                _check_finite(dataset, pixels[at : at + _AT_ONCE], at)
        elif small:
            pixels = torch.cat(list(_pixels(encoder, dataset, _AT_ONCE, workers)))
        else:
            made.append(OnDisk(encoder, dataset, workers))
            continue
        made.append(InMemory([pixels], torch.from_numpy(dataset.labels), encoder.device))
    return made


def _pixels(encoder: Encoder, dataset: ImageDataset, size: int, workers: int | None) -> Iterator[Tensor]:
    """Pixels `(b, 3, h, w)` of a dataset in its order, on the CPU."""
    ranges = [range(at, min(at + size, len(dataset))) for at in range(0, len(dataset), size)]
    for batch, read in zip(ranges, read_pixels(encoder, dataset, ranges, workers, skip=False), strict=True):
        pixels = read.pixels[0] if len(read.pixels) == 1 else torch.cat(read.pixels)
        _check_finite(dataset, pixels, batch.start)
        yield pixels


def _check_finite(dataset: ImageDataset, pixels: Tensor, start: int) -> None:
    """Refuse NaN and infinity in pixels of the samples from `start` on, by the sample's name."""
    if not pixels.sum(dtype=torch.float64).isfinite():
        finite = pixels.isfinite().flatten(1).all(1)
        wrong = dataset.sample_ids[start + int(finite.int().argmin())]
        raise ResidualError(f"The pixels of {wrong!r} in {dataset.full_name} hold NaN or infinity.")


def scores(given: Scores, labels: Tensor, device: torch.device) -> Samples:
    """Samples in the space of their scores: `S (b, K)` and rest `(b, d)`."""
    return InMemory([given.scores, given.rest], labels, device)


def check_images(encoder: Encoder, dataset: ImageDataset, classifier: ZeroShotClassifier, what: str) -> None:
    """Refuse pictures that don't belong to the encoder and the classifier, before any of them is read.

    Raises:
        ResidualError: says what doesn't, by name.
    """
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
    low, high = int(dataset.labels.min()), int(dataset.labels.max())
    if low < 0 or high >= len(classifier):
        raise ResidualError(
            f"The {what} labels go from {low} to {high}, the classifier has {len(classifier)} classes."
        )


def digest_of_images(dataset: ImageDataset) -> str:
    """Tells datasets apart by name, classes, labels and sample ids; by some pixels where they are here."""
    told = [dataset.full_name, list(dataset.class_names), list(dataset.sample_ids)]
    some = [_some(dataset.pixels)] if isinstance(dataset, PixelDataset) else []
    return digest(json.dumps(told), torch.from_numpy(dataset.labels), *some)


def digest_of_scores(given: Scores, labels: Tensor) -> str:
    """Tells scores apart by encoder, components, labels and some of their numbers."""
    told = f"{given.fingerprint} {given.ranks} {tuple(given.scores.shape)}"
    return digest(told, labels, _some(given.scores), _some(given.rest), given.directions)


def digest_of_classifier(classifier: ZeroShotClassifier) -> str:
    """Tells classifiers apart by weights, scale and names."""
    return digest(json.dumps([list(classifier.class_names), classifier.scale]), classifier.weights)


def digest(told: str, *tensors: Tensor) -> str:
    """sha256 over a text and tensors, in hexadecimal."""
    total = hashlib.sha256(told.encode())
    for tensor in tensors:
        held = tensor.detach().cpu().contiguous()
        total.update(f"{held.dtype} {tuple(held.shape)}".encode())
        total.update(held.flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def _some(tensor: Tensor) -> Tensor:
    """At most so many rows, from all over."""
    return tensor[:: -(-len(tensor) // _LOOKED_AT) or 1]
