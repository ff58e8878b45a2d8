"""Pieces of a dataset on their way from a worker process: packed as bytes in one tensor in shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from residual.data import ImageDataset, PixelDataset
from residual.data.jpeg import plain_jpeg
from residual.encoders.halves import Geometry
from residual.encoders.pixels import ToPixels
from residual.errors import ResidualError, UnreadableImageError
from residual.libraries import first_line

_ALIGNED = 16  # bytes
_MOST_DECODED = 2**24  # pixels of a picture; 64 of them are 3 GB where they are decoded


@dataclass
class Files:
    """JPEGs that are still to be decoded, one after another in `data`, and how long each is; and then the
    pictures, None of what the decoder refused; resized and cropped if they are `drawn`.
    """

    data: Tensor
    lengths: list[int]
    pictures: list[Tensor | None] = field(default_factory=list)
    drawn: bool = False


@dataclass
class Pixels:
    """Some samples, ready to be encoded.

    Args:
        positions: of the samples that could be read.
        pixels: theirs, in that order, one piece or several. On their way they are bytes that are still to be
            normalised, `Files`, or pixels that were given as such.
        digests: theirs, see `ImageDataset.load_with_digest`.
        skipped: the others, and why.
        failed: why none of them could be read: the message of an error and its hint.
    """

    positions: list[int] = field(default_factory=list)
    pixels: list[Any] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)
    skipped: dict[int, str] = field(default_factory=dict)
    failed: tuple[str, str] | None = None

    def add(self, other: Pixels) -> None:
        """Take in the next samples."""
        self.positions += other.positions
        self.pixels += other.pixels
        self.digests += other.digests
        self.skipped |= other.skipped

    def hand_over(self) -> None:
        """Put the pixels where another process can have them without a copy, as far as there is room."""
        if self.pixels:
            self.pixels = [_Packed(self.pixels)]

    def arrived(self) -> Pixels:
        """What another process handed over."""
        if self.pixels:
            self.pixels = self.pixels[0].parts()
        return self


class _Packed:
    """Tensors and files in one tensor in shared memory; where there is no room for that, it goes through a
    pipe, as a copy.
    """

    def __init__(self, parts: list[Any]):
        tensors = [each.data if isinstance(each, Files) else each for each in parts]
        self.about = [
            each.lengths if isinstance(each, Files) else (each.dtype, tuple(each.shape)) for each in parts
        ]
        sizes = [-(-each.nbytes // _ALIGNED) * _ALIGNED for each in tensors]
        self.data: Any = torch.empty(sum(sizes), dtype=torch.uint8)
        shared = False
        with suppress(RuntimeError):
            self.data.share_memory_()
            shared = True
        at = 0
        for each, size in zip(tensors, sizes, strict=True):
            self.data[at : at + each.nbytes].copy_(each.contiguous().view(-1).view(torch.uint8))
            at += size
        if not shared:
            self.data = self.data.numpy()

    def parts(self) -> list[Any]:
        """They again, which share its memory."""
        data = self.data if isinstance(self.data, Tensor) else torch.from_numpy(self.data)
        made, at = list[Any](), 0
        for about in self.about:
            if isinstance(about, list):
                size = sum(about)
                made.append(Files(data[at : at + size], about))
            else:
                dtype, shape = about
                size = dtype.itemsize * int(np.prod(shape))
                made.append(data[at : at + size].view(dtype).view(shape))
            at += -(-size // _ALIGNED) * _ALIGNED
        return made


class Reader(Dataset[Pixels]):
    """Reads the samples at some positions; what goes wrong comes back as a value, also out of a process.

    Args:
        dataset: of which.
        draw: from a picture to its bytes or pixels.
        geometry: of those files that are to be decoded elsewhere; None for no file.
        pin: pixels that are in memory already are copied to where a GPU reads them by itself.
    """

    def __init__(self, dataset: ImageDataset, draw: ToPixels, geometry: Geometry | None, pin: bool):
        self.dataset, self.draw, self.geometry, self.pin = dataset, draw, geometry, pin

    def __getitem__(self, index: range) -> Pixels:
        """In a worker process."""
        try:
            read = self.read(index)
        except ResidualError as error:
            return Pixels(failed=(error.message, error.hint))
        except Exception as error:
            return Pixels(failed=(f"{self.dataset.full_name} can't be read: {first_line(error)}.", ""))
        read.hand_over()
        return read

    def read(self, positions: range) -> Pixels:
        """The samples at some positions.

        Raises:
            ResidualError: the fault of no picture.
        """
        if isinstance(self.dataset, PixelDataset):
            given = self.dataset.pixels[positions.start : positions.stop]
            if self.pin and not given.is_cuda:
                given = given.pin_memory()
            return Pixels(list(positions), [given], [0] * len(positions))
        read, made = Pixels(), list[Any]()
        for position in positions:
            try:
                one, digest = self.one(position)
            except UnreadableImageError as error:
                read.skipped[position] = error.reason
                continue
            made.append(one)
            read.positions.append(position)
            read.digests.append(digest)
        read.pixels = self._parts(made, read.positions)
        return read

    def _parts(self, made: list[Any], positions: list[int]) -> list[Any]:
        """Those that lie together and are of one kind as one part."""
        parts, start, shape = list[Any](), 0, None
        for at, one in enumerate(made):
            if isinstance(one, Tensor):
                if shape is not None and one.shape != shape:
                    raise self.odd(positions[at], one.shape, shape)
                shape = one.shape
            if at + 1 < len(made) and _kind(made[at + 1]) == _kind(one):
                continue
            run, start = made[start : at + 1], at + 1
            if isinstance(one, bytes):
                data = torch.from_numpy(np.frombuffer(b"".join(run), np.uint8).copy())
                parts.append(Files(data, list(map(len, run))))
            else:
                parts.append(torch.stack(run))
        return parts

    def odd(self, position: int, shape: Sequence[int], other: Sequence[int]) -> ResidualError:
        """For a sample whose pixels have another shape than those before it."""
        return ResidualError(
            f"After preprocessing {self.dataset.sample_ids[position]!r} has the shape {tuple(shape)}, and "
            f"one before it {tuple(other)}: an encoder's preprocessing has to crop pictures to one size."
        )

    def one(self, position: int, as_file: bool = True) -> tuple[Any, int]:
        """The bytes of the picture, or of the file, or the pixels of one sample, and its digest; what goes
        wrong with a picture is told by its name.
        """
        takes = self._travels if as_file else lambda content: False
        try:
            image, digest = self.dataset.load_or_file(position, takes)
        except ResidualError:  # unreadable, or the fault of no picture
            raise
        except Exception as error:
            raise UnreadableImageError(self.dataset.sample_ids[position], first_line(error)) from error
        if isinstance(image, bytes):
            return image, digest
        if not isinstance(
            image, Image.Image
        ):  # pixels already: of the wrong size it is the fault of no picture
            return self.draw(image), digest
        try:
            return self.draw(image), digest
        except Exception as error:
            raise UnreadableImageError(self.dataset.sample_ids[position], first_line(error)) from error

    def _travels(self, content: bytes) -> bool:
        """Whether a file is one to be decoded beside the encoder. What is too large is told by Pillow; what
        is enlarged shows each pixel that a decoder makes otherwise, and costs Pillow little.
        """
        if self.geometry is None or (size := plain_jpeg(content)) is None:
            return False
        if size[0] * size[1] > _MOST_DECODED:
            return False
        try:
            self.geometry.check(*size)
        except ResidualError:
            return False
        return all(now >= then for now, then in zip(size, self.geometry.resized(*size), strict=True))


def _kind(one: bytes | Tensor) -> object:
    return bytes if isinstance(one, bytes) else one.dtype
