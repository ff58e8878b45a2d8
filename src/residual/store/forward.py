"""A dataset through an encoder, batch by batch: the one loop behind every store and every fit without one.

Images come off the disk in worker processes or one thread, ahead of the encoder. Workers read small pieces
and hand them over in the encoder's precision, so that little memory is in flight.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from residual.data import ImageDataset, PixelDataset
from residual.data.own import OwnDataset
from residual.devices import cores
from residual.encoders.encoder import Encoder
from residual.errors import RawPixelsWarning, ResidualError, UnreadableImageError
from residual.hashing import row_sums
from residual.libraries import first_line
from residual.read_ahead import ahead
from residual.store.encoding import Encoding
from residual.tracing.checks import check_sum
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.trace import trace

_PIECE = 64  # images that a worker reads at a time
MOST_PROCESSES = 256
_MOST_WORKERS = 16


@dataclass
class Pixels:
    """Some samples, ready to be encoded.

    Args:
        positions: of the samples that could be read.
        pixels: theirs, one piece or several.
        digests: theirs, see `ImageDataset.load_with_digest`.
        skipped: the others, and why.
        failed: why none of them could be read: the message of an error and its hint.
    """

    positions: list[int] = field(default_factory=list)
    pixels: list[Tensor] = field(default_factory=list)
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
        with suppress(RuntimeError):
            for part in self.pixels:
                part.share_memory_()
            return
        packed: list[Any] = [_Packed(part) for part in self.pixels]
        self.pixels = packed

    def pin_memory(self) -> Pixels:
        """The pixels in memory that a GPU reads by itself."""
        self.pixels = [part.pin_memory() for part in self.pixels]
        return self


class _Packed:
    """A tensor that goes to another process as a copy, through a pipe; it arrives as a tensor."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor

    def __reduce__(self) -> tuple:
        bytes_ = self.tensor.contiguous().view(torch.uint8).numpy()
        return _unpacked, (bytes_, self.tensor.dtype)


def _unpacked(content: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(content).view(dtype)


@dataclass(frozen=True)
class Encoded:
    """A batch of samples after the encoder: `coordinates` of `read.positions`, None where there are none."""

    read: Pixels
    coordinates: Coordinates | None


def encode_batches(
    encoder: Encoder,
    dataset: ImageDataset,
    batches: Sequence[range],
    settings: Encoding,
    linearization: Linearization,
    dtype: torch.dtype,
    keep: str = "cpu",
    skipped: Mapping[int, str] | None = None,
) -> Iterator[Encoded]:
    """Coordinates of each batch in turn; a batch comes out when the next one is in the encoder.

    Args:
        encoder: from `load_encoder` or `wrap_encoder`.
        dataset: what to encode.
        batches: positions.
        settings: how.
        linearization: of the encoder, to check the first batch against the model's own output.
        dtype: of `z`, `mlp` and `emb`; `mean` and `std` stay in float32 or more.
        keep: "cpu", or the encoder's device to leave them there.
        skipped: what was left out before, by position, and why; it counts for `settings.allowance`.

    Raises:
        UnreadableImageError: with `on_error="raise"`; names the sample.
        TooManySkippedError: more can't be read than may be left out.
        ResidualError: the sum of units misses the model's own output; or a pixel or coordinate isn't finite.
    """
    waiting: _Underway | None = None
    checked = False
    left_out = dict(skipped or {})
    settings.check_skipped(dataset, left_out)
    for read in read_pixels(encoder, dataset, batches, settings.workers, settings.on_error == "skip"):
        left_out |= read.skipped
        settings.check_skipped(dataset, left_out)
        coordinates = digests = None
        if read.pixels:
            with torch.inference_mode():
                pixels = _moved(encoder, read.pixels)
                coordinates, output = trace(encoder, pixels, pooling=settings.pooling)
                digests = row_sums(pixels) if isinstance(dataset, PixelDataset) else None
            if not checked:
                _check_pixels(dataset, read)
                _warn_of_raw(encoder, dataset, read)
                check_sum(encoder, linearization, coordinates, output)
                checked = True
            coordinates = _narrowed(coordinates.only(settings.kinds), dtype)
        begun = _Underway(dataset, read, coordinates, digests, keep)
        if waiting is not None:
            yield waiting.arrived()
        waiting = begun
    if waiting is not None:
        yield waiting.arrived()


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
        ResidualError: `workers` is out of bounds; or a process ended early, most often since memory ran out.
    """
    on_gpu = encoder.device.type == "cuda"
    reader = _Reader(dataset, encoder.to_pixels, encoder.dtype, on_gpu)
    if workers is None:
        workers = min(_MOST_WORKERS, cores()) if on_gpu and not dataset.in_order else 0
    if not 0 <= workers <= MOST_PROCESSES:
        raise ResidualError(f"workers is from 0 to {MOST_PROCESSES}, got {workers}.")
    if isinstance(dataset, PixelDataset) or not (workers and _can_have_workers()):
        whole = ahead(reader.read, batches)
    else:
        whole = _by_processes(reader, batches, workers)
    for batch in whole:
        for position, reason in batch.skipped.items():
            if not skip:
                raise UnreadableImageError(dataset.sample_ids[position], reason)
        yield batch


def _can_have_workers() -> bool:
    """Whether processes can talk to each other here, for which they need semaphores."""
    try:
        multiprocessing.get_context().Lock()
    except (OSError, ImportError) as error:
        warnings.warn(
            f"Pictures are read in one thread: worker processes can't be had here ({first_line(error)}), as "
            "where /dev/shm is missing or closed.",
            stacklevel=4,
        )
        return False
    return True


def _by_processes(reader: _Reader, batches: Sequence[range], workers: int) -> Iterator[Pixels]:
    pieces = [batch[start : start + _PIECE] for batch in batches for start in range(0, len(batch), _PIECE)]
    loader = DataLoader(reader, batch_size=None, sampler=pieces, num_workers=workers, pin_memory=reader.pin)
    begun: list[Iterator[Pixels]] = []

    def joined(batch: range) -> Pixels:
        try:
            if not begun:
                begun.append(iter(loader))
            parts = [next(begun[0]) for _ in range(0, len(batch), _PIECE)]
        except (OSError, RuntimeError) as error:  # what the reader itself trips over comes as a value
            raise ResidualError(
                f"A process that reads pictures couldn't be started or ended early ({first_line(error)}). "
                "Most often memory has run out.",
                "Have fewer of them, or none: workers=0.",
            ) from error
        whole = Pixels()
        for part in parts:
            if part.failed:
                raise ResidualError(*part.failed)
            whole.add(part)
        return whole

    # Not in the main thread, where torch has the death of a worker raised wherever that thread is.
    return ahead(joined, batches)


class _Reader(Dataset[Pixels]):
    """Reads the samples at some positions; what goes wrong comes back as a value, also out of a process."""

    def __init__(
        self, dataset: ImageDataset, to_pixels: Callable[[Any], Tensor], dtype: torch.dtype, pin: bool
    ):
        self.dataset, self.to_pixels, self.dtype, self.pin = dataset, to_pixels, dtype, pin

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
        if isinstance(self.dataset, PixelDataset):
            given = self.dataset.pixels[positions.start : positions.stop]
            if self.pin and not given.is_cuda:
                given = given.pin_memory()
            return Pixels(list(positions), [given], [0] * len(positions))
        read, pixels = Pixels(), []
        for position in positions:
            try:
                made, digest = self._one(position)
            except UnreadableImageError as error:
                read.skipped[position] = error.reason
                continue
            if pixels and made.shape != pixels[0].shape:
                raise ResidualError(
                    f"After preprocessing {self.dataset.sample_ids[position]!r} has the shape "
                    f"{tuple(made.shape)}, and one before it {tuple(pixels[0].shape)}: an encoder's "
                    "preprocessing has to crop pictures to one size."
                )
            pixels.append(made)
            read.positions.append(position)
            read.digests.append(digest)
        if pixels:
            read.pixels.append(torch.stack(pixels).to(self.dtype))
        return read

    def _one(self, position: int) -> tuple[Tensor, int]:
        """The pixels and the digest of one sample; what goes wrong with a picture is told by its name."""
        try:
            image, digest = self.dataset.load_with_digest(position)
        except ResidualError:  # unreadable, or the fault of no picture
            raise
        except Exception as error:
            raise UnreadableImageError(self.dataset.sample_ids[position], first_line(error)) from error
        if not isinstance(
            image, Image.Image
        ):  # pixels already: of the wrong size it is the fault of no picture
            return self.to_pixels(image), digest
        try:
            return self.to_pixels(image), digest
        except Exception as error:
            raise UnreadableImageError(self.dataset.sample_ids[position], first_line(error)) from error


def _check_pixels(dataset: ImageDataset, read: Pixels) -> None:
    """Refuse pixels that aren't finite; which waits for them, so it is asked where a number already isn't."""
    finite = torch.cat([part.flatten(1).isfinite().all(1) for part in read.pixels])
    if not finite.all():
        first = read.positions[int(finite.logical_not().nonzero()[0, 0])]
        raise ResidualError(f"The pixels of {dataset.sample_ids[first]!r} hold NaN or infinity.")


def _warn_of_raw(encoder: Encoder, dataset: ImageDataset, read: Pixels) -> None:
    """Tell of tensors from 0 to 1 (torchvision's `ToTensor`) where the encoder normalises pictures."""
    if not isinstance(dataset, PixelDataset | OwnDataset):
        return
    low, high = (float(bound) for bound in torch.cat([part.flatten() for part in read.pixels]).aminmax())
    if not 0 <= low < high <= 1 or encoder.preprocess(Image.new("RGB", (256, 256))).min() >= 0:
        return
    if isinstance(dataset, OwnDataset) and isinstance(dataset.load(read.positions[0]), Image.Image):
        return
    warnings.warn(
        f"The pixels of {dataset.full_name} are from 0 to 1, as before {encoder.name} normalises "
        "pictures: tensors are taken as they are. Give pictures (PIL, or bytes as uint8), or transform them "
        "with encoder.preprocess.",
        RawPixelsWarning,
        stacklevel=4,
    )


def _moved(encoder: Encoder, parts: list[Tensor]) -> Tensor:
    moved = [part.to(encoder.device, encoder.dtype, non_blocking=True) for part in parts]
    return moved[0] if len(moved) == 1 else torch.cat(moved)


def _narrowed(coordinates: Coordinates, dtype: torch.dtype) -> Coordinates:
    wide = torch.promote_types(coordinates.mean.dtype, torch.float32)
    mean, std = coordinates.mean.to(wide), coordinates.std.to(wide)
    return replace(coordinates.to(dtype=dtype), mean=mean, std=std)


class _Underway:
    """Coordinates on their way off a GPU, while that goes on with the next batch."""

    def __init__(
        self,
        dataset: ImageDataset,
        read: Pixels,
        coordinates: Coordinates | None,
        digests: Tensor | None,
        keep: str,
    ):
        self.dataset, self.read, self.coordinates, self.copied = dataset, read, coordinates, None
        self.digests = None if digests is None else digests.to("cpu", non_blocking=True)
        if coordinates is not None:
            self.finite = coordinates.finite().to("cpu", non_blocking=True)
            self.coordinates = coordinates.to(keep, non_blocking=True)
            if coordinates.mean.is_cuda:
                self.copied = torch.cuda.Event()
                self.copied.record()

    def arrived(self) -> Encoded:
        if self.copied is not None:
            self.copied.synchronize()
        if self.coordinates is not None and not self.finite.all():
            first = self.read.positions[int(self.finite.logical_not().nonzero()[0, 0])]
            _check_pixels(self.dataset, self.read)
            raise ResidualError(
                f"The coordinates of {self.dataset.sample_ids[first]!r} aren't finite numbers. If the model "
                "itself doesn't give NaN there, they don't fit into float16, which ends at 65,504: keep them "
                "in float32."
            )
        if self.digests is not None:
            self.read.digests = self.digests.numpy().view(np.uint64).tolist()
        return Encoded(self.read, self.coordinates)
