"""Images off the disk and ready for the encoder, in worker processes or one thread, ahead of the encoder.

Workers read small pieces and hand them over in the encoder's precision, so that little memory is in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from residual.data import ImageDataset, PixelDataset
from residual.devices import cores
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError, UnreadableImageError
from residual.read_ahead import ahead

_PIECE = 64  # images that a worker reads at a time
_MOST_WORKERS = 16


@dataclass
class Pixels:
    """Some samples, ready to be encoded.

    Args:
        positions: of the samples that could be read.
        pixels: theirs, one piece or several.
        digests: theirs, see `ImageDataset.load_with_digest`.
        skipped: the others, and why.
    """

    positions: list[int] = field(default_factory=list)
    pixels: list[Tensor] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)
    skipped: dict[int, str] = field(default_factory=dict)

    def add(self, other: Pixels) -> None:
        """Take in the next samples."""
        self.positions += other.positions
        self.pixels += other.pixels
        self.digests += other.digests
        self.skipped |= other.skipped

    def pin_memory(self) -> Pixels:
        """The pixels in memory that a GPU reads by itself."""
        self.pixels = [part.pin_memory() for part in self.pixels]
        return self


def read_pixels(
    encoder: Encoder, dataset: ImageDataset, batches: Sequence[range], workers: int | None, skip: bool
) -> Iterator[Pixels]:
    """The samples of each batch in turn, read ahead.

    Args:
        encoder: tells how images become pixels, in which precision and where.
        dataset: of images, or of pixels that are in memory already (`PixelDataset`).
        batches: positions.
        workers: processes; 0 for one thread; None for as many as the machine has cores where the encoder runs
            on a GPU, and 0 where it needs the cores itself.
        skip: leave out what can't be read, else stop there.

    Raises:
        UnreadableImageError: without `skip`; names the sample.
    """
    on_gpu = encoder.device.type == "cuda"
    reader = _Reader(dataset, encoder.preprocess, encoder.dtype, on_gpu)
    if workers is None:
        workers = min(_MOST_WORKERS, cores()) if on_gpu else 0
    if workers < 0:
        raise ResidualError(f"workers is 0 or more, got {workers}.")
    pieces = [batch[start : start + _PIECE] for batch in batches for start in range(0, len(batch), _PIECE)]
    if isinstance(dataset, PixelDataset) or not workers:
        whole = ahead(reader.read, batches)
    else:
        loader = DataLoader(reader, batch_size=None, sampler=pieces, num_workers=workers, pin_memory=on_gpu)
        whole = _joined(iter(loader), batches)
    for batch in whole:
        for position, reason in batch.skipped.items():
            if not skip:
                raise UnreadableImageError(dataset.sample_ids[position], reason)
        yield batch


def _joined(pieces: Iterator[Pixels], batches: Sequence[range]) -> Iterator[Pixels]:
    for batch in batches:
        joined = Pixels()
        for _ in range(0, len(batch), _PIECE):
            joined.add(next(pieces))
        yield joined


class _Reader(Dataset[Pixels]):
    """Reads the samples at some positions; what goes wrong comes back as a value, also out of a process."""

    def __init__(
        self, dataset: ImageDataset, preprocess: Callable[[Any], Tensor], dtype: torch.dtype, pin: bool
    ):
        self.dataset, self.preprocess, self.dtype, self.pin = dataset, preprocess, dtype, pin

    def __getitem__(self, index: range) -> Pixels:
        return self.read(index)

    def read(self, positions: range) -> Pixels:
        if isinstance(self.dataset, PixelDataset):
            given = self.dataset.pixels[positions.start : positions.stop]
            if self.pin and not given.is_cuda:
                given = given.pin_memory()
            return Pixels(list(positions), [given], [0] * len(positions))
        got, pixels = Pixels(), []
        for position in positions:
            try:
                image, digest = self.dataset.load_with_digest(position)
            except UnreadableImageError as error:
                got.skipped[position] = error.reason
            else:
                pixels.append(self.preprocess(image))
                got.positions.append(position)
                got.digests.append(digest)
        if pixels:
            got.pixels.append(torch.stack(pixels).to(self.dtype))
        return got
