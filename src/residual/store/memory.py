"""Run an encoder over a dataset once and keep every sample's coordinates in memory.

Images are read and preprocessed by a second thread while the encoder works on the batch before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError, UnreadableImageError
from residual.tracing.coordinates import Coordinates
from residual.tracing.decompose import check_sum
from residual.tracing.linearization import Linearization
from residual.tracing.trace import trace

ON_ERROR = ("raise", "skip")
Samples = slice | Sequence[int] | np.ndarray


@dataclass(frozen=True)
class MemoryStore:
    """Coordinates of `n` samples, in the dataset's order, and what they are of.

    Args:
        coordinates: on the CPU, in float32 (float64 if the encoder is).
        linearization: from coordinates to contributions.
        labels: `(n,)`, int64.
        sample_ids: one a sample.
        class_names: one a class.
        dataset: name and split, as "name/split".
        encoder_name: what made the coordinates.
        fingerprint: of that encoder's weights.
        skipped: ids of the samples that could not be read.
    """

    coordinates: Coordinates
    linearization: Linearization
    labels: np.ndarray
    sample_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    dataset: str
    encoder_name: str
    fingerprint: str
    skipped: tuple[str, ...] = ()

    @property
    def units(self) -> pd.DataFrame:
        """The table of units."""
        return self.linearization.units

    @property
    def split(self) -> str:
        """How the last LayerNorm's mean is shared out among units."""
        return self.linearization.split

    def __len__(self) -> int:
        return len(self.coordinates)

    def contributions(
        self, samples: Samples | None = None, units: Sequence[int] | np.ndarray | None = None
    ) -> Float[Tensor, "n u d"]:
        """Contributions of some samples and units, by default of all: `n · u · d` numbers."""
        coordinates = self.coordinates if samples is None else self.coordinates[_index(samples)]
        return self.linearization.contributions(coordinates, units)

    def output(self) -> Float[Tensor, "n d"]:
        """The encoder's output for every sample: the sum of all its contributions."""
        return torch.cat([self.linearization.output(batch) for batch in self.batches()])

    def batches(self, size: int = 1024) -> Iterator[Coordinates]:
        """The coordinates, `size` samples at a time, in order."""
        for start in range(0, len(self), size):
            yield self.coordinates[start : start + size]

    def subset(self, samples: Samples) -> MemoryStore:
        """A store of those samples only."""
        positions = np.arange(len(self))[samples]
        return replace(
            self,
            coordinates=self.coordinates[torch.from_numpy(positions)],
            labels=self.labels[positions],
            sample_ids=tuple(self.sample_ids[position] for position in positions),
        )


def encode_dataset(
    encoder: Encoder,
    dataset: ImageDataset,
    *,
    batch_size: int = 64,
    on_error: str = "raise",
    progress: Callable[[int, int], object] | None = None,
) -> MemoryStore:
    """Run `encoder` over `dataset`.

    Args:
        encoder: from `load_encoder` or `wrap_encoder`.
        dataset: from `load_dataset`, or an `ImageDataset` of your own.
        batch_size: images at a time; changes speed and memory, not results.
        on_error: an image that can't be read stops the run ("raise") or is left out and listed ("skip").
        progress: called with the number of samples done and their total, after every batch.

    Raises:
        UnreadableImageError: with `on_error="raise"`; names the sample.
        ResidualError: no sample is there or none can be read; or the sum of units misses the model's own
            output, which is checked on the first batch.
    """
    if on_error not in ON_ERROR:
        raise ResidualError(f"on_error is {' or '.join(map(repr, ON_ERROR))}, got {on_error!r}.")
    if batch_size < 1:
        raise ResidualError(f"batch_size must be at least 1, got {batch_size}.")
    if len(dataset) == 0:
        raise ResidualError(f"Dataset {_label(dataset)} has no samples.")

    linearization = Linearization.of(encoder)
    kept, parts, skipped = [], [], []
    for done, batch in enumerate(_read_ahead(encoder, dataset, batch_size, on_error == "skip"), start=1):
        skipped += batch.skipped
        if batch.positions:
            with torch.inference_mode():
                coordinates, output = trace(encoder, torch.stack(batch.pixels))
            if not parts:
                check_sum(encoder, linearization, coordinates, output)
            parts.append(coordinates.to("cpu", torch.promote_types(encoder.dtype, torch.float32)))
            kept += batch.positions
        if progress is not None:
            progress(min(done * batch_size, len(dataset)), len(dataset))
    if not kept:
        raise ResidualError(f"None of the {len(dataset)} images of {_label(dataset)} can be read.")
    return MemoryStore(
        coordinates=Coordinates.cat(parts),
        linearization=linearization,
        labels=np.asarray(dataset.labels, dtype=np.int64)[kept],
        sample_ids=tuple(dataset.sample_ids[position] for position in kept),
        class_names=tuple(dataset.class_names),
        dataset=_label(dataset),
        encoder_name=encoder.name,
        fingerprint=encoder.fingerprint,
        skipped=tuple(skipped),
    )


@dataclass(frozen=True)
class _Batch:
    pixels: list[Tensor]
    positions: list[int]
    skipped: list[str]


def _read_ahead(encoder: Encoder, dataset: ImageDataset, size: int, skip: bool) -> Iterator[_Batch]:
    """Batches in order; the next one is read by another thread while the caller works on this one."""

    def read(start: int) -> _Batch:
        batch = _Batch([], [], [])
        for position in range(start, min(start + size, len(dataset))):
            try:
                image, _ = dataset[position]
            except UnreadableImageError as error:
                if not skip:
                    raise
                batch.skipped.append(error.sample_id)
            else:
                batch.pixels.append(encoder.preprocess(image))
                batch.positions.append(position)
        return batch

    with ThreadPoolExecutor(max_workers=1) as reader:
        waiting = reader.submit(read, 0)
        for start in range(size, len(dataset) + size, size):
            batch = waiting.result()
            if start < len(dataset):
                waiting = reader.submit(read, start)
            yield batch


def _label(dataset: ImageDataset) -> str:
    return f"{dataset.name}/{dataset.split}"


def _index(samples: Samples) -> slice | Tensor:
    return samples if isinstance(samples, slice) else torch.as_tensor(np.asarray(samples))
