"""Coordinates of a dataset in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from residual.store.base import Samples, Store, parts_of, positions_of
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.units import KINDS


@dataclass(frozen=True)
class MemoryStore(Store):
    """A `Store` whose `coordinates` are a field, on the CPU, in float32 (float64 if the encoder is)."""

    coordinates: Coordinates
    linearization: Linearization
    labels: np.ndarray
    sample_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    dataset: str
    encoder_name: str
    fingerprint: str
    pooling: str = "own"
    kinds: tuple[str, ...] = KINDS
    skipped: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    group_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.coordinates)

    def contributions(
        self, samples: Samples | None = None, units: Sequence[int] | np.ndarray | None = None
    ) -> Float[Tensor, "n *t u d"]:
        """Contributions of some samples and units, by default of all: `n · u · d` numbers."""
        return self.linearization.contributions(self._of(samples), units)

    def coordinates_of(
        self, units: Sequence[int] | np.ndarray, samples: Samples | None = None
    ) -> Coordinates:
        """Coordinates of some samples, by default of all."""
        self.linearization.units.checked(units)
        return self._of(samples)

    def batches(self, size: int = 1024, kinds: Sequence[str] | None = None) -> Iterator[Coordinates]:
        """The coordinates, `size` samples at a time, in order."""
        coordinates = self.coordinates if kinds is None else self.coordinates.only(kinds)
        for part in parts_of(len(self), size):
            yield coordinates[part]

    def subset(self, samples: Samples) -> MemoryStore:
        """A store of those samples only."""
        positions = positions_of(samples, len(self))
        return replace(
            self,
            coordinates=self.coordinates[torch.from_numpy(positions)],
            labels=self.labels[positions],
            sample_ids=tuple(self.sample_ids[position] for position in positions),
            groups=None if self.groups is None else self.groups[positions],
        )

    def _of(self, samples: Samples | None) -> Coordinates:
        return self.coordinates if samples is None else self.coordinates[self._index(samples)]

    def _index(self, samples: Samples) -> slice | Tensor:
        if isinstance(samples, slice) and (samples.step or 1) > 0:  # which torch takes, and copies nothing
            return samples
        return torch.from_numpy(positions_of(samples, len(self)))
