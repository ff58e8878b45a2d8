"""A dataset through an encoder, batch by batch: the one loop behind every store and every fit without one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from residual.data import ImageDataset, PixelDataset
from residual.data.own import OwnDataset
from residual.encoders.encoder import Encoder
from residual.errors import RawPixelsWarning, ResidualError
from residual.hashing import row_sums
from residual.store.decoding import road
from residual.store.encoding import Encoding
from residual.store.pieces import Pixels
from residual.store.reading import read_pixels
from residual.tracing.checks import check_sum
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.trace import trace


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
    skip, decode = settings.on_error == "skip", road(settings.decode, encoder, dataset)
    reading = read_pixels(encoder, dataset, batches, settings.workers, skip, decode)
    beside = _beside(encoder.device)
    while True:
        with beside():
            if (read := next(reading, None)) is None:
                break
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


def _beside(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """A stream of one's own on a GPU: what goes to its default one, as decoders do, would wait for all that
    the encoder has yet to do there.
    """
    if device.type != "cuda":
        return nullcontext
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return lambda: torch.cuda.stream(stream)


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

    def _hand_over(self) -> None:
        """Coordinates that stay on the GPU are for another stream than the encoder's from now on."""
        for each in vars(self.coordinates).values() if self.coordinates is not None else ():
            if isinstance(each, Tensor) and each.is_cuda:
                each.record_stream(torch.cuda.current_stream(each.device))

    def arrived(self) -> Encoded:
        if self.copied is not None:
            self.copied.synchronize()
            self._hand_over()
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
