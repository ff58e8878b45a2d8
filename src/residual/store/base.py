"""What every store of coordinates offers, and the one in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError
from residual.store.positions import Samples, positions_of
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.units import KINDS, UnitsLike


def parts_of(n: int, size: int) -> list[slice]:
    """`n` samples, `size` at a time.

    Raises:
        ResidualError: `size` is below 1.
    """
    if size < 1:
        raise ResidualError(f"A batch's size must be at least 1, got {size}.")
    return [slice(start, start + size) for start in range(0, n, size)]


@dataclass(kw_only=True, eq=False)
class Store(ABC):
    """Coordinates of `n` samples, in the dataset's order, and what they are of.

    Attributes:
        linearization: from coordinates to contributions.
        labels: `(n,)`, int64.
        sample_ids: one a sample; a tuple, or for over a million what stands for one (see `ResidualStore`).
        digests: `(n,)`, uint64: what tells each sample's image from others.
        groups: `(n,)`, int64, where the dataset has groups, else None.
        reasons: why each of the samples that could not be read could not, by id.
        class_names: one a class.
        group_names: one a group.
        dataset: name and split, as "name/split".
        encoder_name: what made the coordinates.
        fingerprint: of that encoder's weights.
        pooling: which tokens, see `decompose`.
        kinds: the kinds of unit that are kept.
    """

    linearization: Linearization
    labels: np.ndarray
    sample_ids: Sequence[str]
    digests: np.ndarray
    groups: np.ndarray | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...]
    group_names: tuple[str, ...] = ()
    dataset: str
    encoder_name: str
    fingerprint: str
    pooling: str = "own"
    kinds: tuple[str, ...] = KINDS

    @property
    def units(self) -> pd.DataFrame:
        """The table of units."""
        return self.linearization.units.table

    @property
    def centering(self) -> str:
        """How the last LayerNorm's mean is shared out among units."""
        return self.linearization.centering

    @property
    def skipped(self) -> tuple[str, ...]:
        """Ids of the samples that could not be read."""
        return tuple(self.reasons)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def contributions(
        self, samples: Samples | None = None, units: UnitsLike | None = None
    ) -> Float[Tensor, "n *t u d"]:
        """Contributions of some samples and units (see `Units.checked`), by default of all."""

    @abstractmethod
    def coordinates_of(self, units: UnitsLike, samples: Samples | None = None) -> Coordinates:
        """What `linearization.features` needs for these units, of some samples or of all.

        Nothing else is read. The precision is that in which they are kept.
        """

    @abstractmethod
    def batches(self, size: int = 1024, kinds: Sequence[str] | None = None) -> Iterator[Coordinates]:
        """The coordinates, `size` samples at a time, in order; of all kinds of unit that are kept, or some.

        The precision is that in which they are kept.
        """

    def output(self) -> Float[Tensor, "n *t d"]:
        """The encoder's output for every sample: the sum of all its contributions."""
        return torch.cat([self.linearization.output(batch) for batch in self.batches()])


@dataclass(kw_only=True, eq=False)
class MemoryStore(Store):
    """A `Store` whose `coordinates` are a field, on the CPU, in float32 (float64 if the encoder is)."""

    coordinates: Coordinates

    @classmethod
    def of(cls, store: Store, coordinates: Coordinates) -> MemoryStore:
        """These coordinates, with everything that a store says of its samples."""
        about: dict[str, Any] = {each.name: getattr(store, each.name) for each in fields(Store)}
        return cls(coordinates=coordinates, **about)

    def __len__(self) -> int:
        return len(self.coordinates)

    def contributions(
        self, samples: Samples | None = None, units: UnitsLike | None = None
    ) -> Float[Tensor, "n *t u d"]:
        """Contributions of some samples and units, by default of all: `n · u · d` numbers."""
        return self.linearization.contributions(self._of(samples), units)

    def coordinates_of(self, units: UnitsLike, samples: Samples | None = None) -> Coordinates:
        """Coordinates of some samples, by default of all.

        Raises:
            ResidualError: there is no such unit.
        """
        self.linearization.units.checked(units)
        return self._of(samples)

    def batches(self, size: int = 1024, kinds: Sequence[str] | None = None) -> Iterator[Coordinates]:
        """The coordinates, `size` samples at a time, in order.

        Raises:
            ResidualError: `size` is below 1.
        """
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
            digests=self.digests[positions],
            groups=None if self.groups is None else self.groups[positions],
        )

    def _of(self, samples: Samples | None) -> Coordinates:
        if samples is None:
            return self.coordinates
        if isinstance(samples, slice) and (samples.step or 1) > 0:  # which torch takes, and copies nothing
            return self.coordinates[samples]
        return self.coordinates[torch.from_numpy(positions_of(samples, len(self)))]
