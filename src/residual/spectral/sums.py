"""Moments of units as work for several processes: each task sums over some samples, and gives back the sums.

They are merged in the order of the samples, whichever came first, so that the result doesn't depend on that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.read_ahead import ahead
from residual.spectral.bases import Origin
from residual.spectral.unit_moments import Contents, UnitMoments
from residual.store.base import Store
from residual.store.forward import encode_batches
from residual.store.job import Work
from residual.store.resume import check_weights
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization

R = TypeVar("R")


class Piece(NamedTuple):
    """Some samples of one of several stores."""

    store: int
    samples: slice


@dataclass(frozen=True)
class StoresJob:
    """Stores of one encoder, and the kinds of unit that get a basis."""

    stores: list[Store]
    kinds: tuple[str, ...]

    def __call__(self) -> StoresJob:
        """In a worker."""
        return self

    def sums(self, pieces: Sequence[Piece]) -> Contents:
        """Over some samples; the next ones are read meanwhile."""
        moments = UnitMoments.of_store(self.stores[0], self.kinds, find_device(None))
        units = list(range(len(self.stores[0].units)))
        for batch in ahead(
            lambda piece: self.stores[piece.store].coordinates_of(units, piece.samples), pieces
        ):
            moments.update(batch)
        return moments.contents

    def _read(self, piece: Piece) -> Coordinates:
        store = self.stores[piece.store]
        return store.coordinates_of(list(range(len(store.units))), piece.samples)


@dataclass(frozen=True)
class ImagesJob:
    """Images that go through an encoder, of which nothing but sums is kept.

    Args:
        work: of encoding.
        origin: of the sums.
    """

    work: Work
    origin: Origin

    def __call__(self) -> ImagesBench:
        """In a worker: all that is ready to encode."""
        return ImagesBench(self, *self.work.begun())


class Summed(NamedTuple):
    """Sums over some images, and which they were."""

    contents: Contents
    positions: list[int]
    digests: list[int]
    skipped: dict[int, str]


@dataclass(frozen=True)
class ImagesBench:
    """An `ImagesJob` with what it needs at hand."""

    job: ImagesJob
    encoder: Encoder
    linearization: Linearization

    def sums(self, batches: Sequence[range]) -> Summed:
        """Over the images of some batches."""
        work, kinds = self.job.work, self.job.work.settings.kinds
        moments = UnitMoments(self.linearization, kinds, kinds, self.job.origin, self.encoder.device)
        summed = Summed(moments.contents, [], [], {})
        wide = torch.promote_types(self.encoder.dtype, torch.float32)
        how = batches, work.settings, self.linearization, wide, str(self.encoder.device)
        for encoded in encode_batches(self.encoder, work.dataset, *how):
            if encoded.coordinates is not None:
                moments.update(encoded.coordinates)
            summed.positions.extend(encoded.read.positions)
            summed.digests.extend(encoded.read.digests)
            summed.skipped.update(encoded.read.skipped)
        check_weights(self.encoder, work.weights)
        return summed._replace(contents=moments.contents)


def in_order(results: Iterable[tuple[int, R]]) -> Iterator[R]:
    """Numbered results in the order of their numbers, each as soon as those before it are there."""
    waiting, following = {}, 0
    for number, result in results:
        waiting[number] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1
