"""A dataset through an encoder, batch by batch: the one loop behind every store and every fit without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.store.pixel_reader import Pixels, read_pixels
from residual.tracing.coordinates import Coordinates
from residual.tracing.decompose import check_sum
from residual.tracing.linearization import Linearization
from residual.tracing.trace import trace
from residual.tracing.units import KINDS

ON_ERROR = ("raise", "skip")


@dataclass(frozen=True)
class Encoding:
    """How a dataset is encoded.

    Args:
        pooling: which tokens, see `decompose`.
        kinds: kinds of unit to keep: "emb", "mlp", "head".
        batch_size: images at a time; changes speed and memory, not results (but for rounding).
        workers: see `encode_dataset`.
        on_error: an image that can't be read stops the run ("raise") or is left out and listed ("skip").

    Raises:
        ResidualError: a choice that isn't known.
    """

    pooling: str = "own"
    kinds: tuple[str, ...] = KINDS
    batch_size: int = 64
    workers: int | None = None
    on_error: str = "raise"

    def __post_init__(self):
        if self.on_error not in ON_ERROR:
            raise ResidualError(f"on_error is {' or '.join(map(repr, ON_ERROR))}, got {self.on_error!r}.")
        if self.batch_size < 1:
            raise ResidualError(f"batch_size must be at least 1, got {self.batch_size}.")
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ResidualError(
                f"Kinds of unit are one or more of {', '.join(KINDS)}; got {', '.join(self.kinds) or 'none'}."
            )

    def batches(self, samples: range) -> list[range]:
        """The samples in batches."""
        return [samples[at : at + self.batch_size] for at in range(0, len(samples), self.batch_size)]


@dataclass(frozen=True)
class Part:
    """One of so many equal parts of the work; `Part(1, 1)` is all of it.

    Raises:
        ResidualError: there is no such part.
    """

    number: int
    of: int

    def __post_init__(self):
        if not 1 <= self.number <= self.of:
            raise ResidualError(
                f"A part is (number, of) with a number from 1 to of, got ({self.number}, {self.of})."
            )

    def share(self, count: int) -> range:
        """Which of `count` things are this part's."""
        return range(count * (self.number - 1) // self.of, count * self.number // self.of)


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

    Raises:
        UnreadableImageError: with `on_error="raise"`; names the sample.
        ResidualError: the sum of units misses the model's own output; or a coordinate isn't finite.
    """
    waiting: _Underway | None = None
    checked = False
    skip = settings.on_error == "skip"
    for read in read_pixels(encoder, dataset, batches, settings.workers, skip):
        coordinates = None
        if read.pixels:
            with torch.inference_mode():
                coordinates, output = trace(encoder, _moved(encoder, read.pixels), pooling=settings.pooling)
            if not checked:
                check_sum(encoder, linearization, coordinates, output)
                checked = True
            coordinates = _narrowed(coordinates.only(settings.kinds), dtype)
        begun = _Underway(dataset, read, coordinates, keep)
        if waiting is not None:
            yield waiting.arrived()
        waiting = begun
    if waiting is not None:
        yield waiting.arrived()


def _moved(encoder: Encoder, parts: list[Tensor]) -> Tensor:
    moved = [part.to(encoder.device, encoder.dtype, non_blocking=True) for part in parts]
    return moved[0] if len(moved) == 1 else torch.cat(moved)


def _narrowed(coordinates: Coordinates, dtype: torch.dtype) -> Coordinates:
    wide = torch.promote_types(coordinates.mean.dtype, torch.float32)
    mean, std = coordinates.mean.to(wide), coordinates.std.to(wide)
    return replace(coordinates.to(dtype=dtype), mean=mean, std=std)


class _Underway:
    """Coordinates on their way off a GPU, while that goes on with the next batch."""

    def __init__(self, dataset: ImageDataset, read: Pixels, coordinates: Coordinates | None, keep: str):
        self.dataset, self.read, self.coordinates, self.copied = dataset, read, coordinates, None
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
            raise ResidualError(
                f"The coordinates of {self.dataset.sample_ids[first]!r} aren't finite numbers. If the model "
                "itself doesn't give NaN there, they don't fit into float16, which ends at 65,504: keep them "
                "in float32."
            )
        return Encoded(self.read, self.coordinates)
