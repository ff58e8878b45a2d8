"""What every store of coordinates offers, in memory or on disk."""

# ruff: noqa: D102 (the attributes are documented in the docstring of their class)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization

Samples = slice | Sequence[int] | np.ndarray


def positions_of(samples: Samples, n: int) -> np.ndarray:
    """Where some of `n` samples are: a slice, positions in any order and more than once, or a mask."""
    if isinstance(samples, slice):
        return np.ascontiguousarray(np.arange(n)[samples])
    chosen = np.asarray(samples)
    return np.arange(n)[chosen if chosen.size else chosen.astype(np.int64)]


def parts_of(n: int, size: int) -> list[slice]:
    """`n` samples, `size` at a time.

    Raises:
        ResidualError: `size` is below 1.
    """
    if size < 1:
        raise ResidualError(f"A batch's size must be at least 1, got {size}.")
    return [slice(start, start + size) for start in range(0, n, size)]


class Store(ABC):
    """Coordinates of `n` samples, in the dataset's order, and what they are of.

    Attributes:
        linearization: from coordinates to contributions.
        labels: `(n,)`, int64.
        sample_ids: one a sample.
        class_names: one a class.
        dataset: name and split, as "name/split".
        encoder_name: what made the coordinates.
        fingerprint: of that encoder's weights.
        pooling: which tokens, see `decompose`.
        kinds: the kinds of unit that are kept.
        skipped: ids of the samples that could not be read.
        groups: `(n,)`, int64, where the dataset has groups, else None.
        group_names: one a group.
    """

    if TYPE_CHECKING:  # fields in one store, read when asked for in another

        @property
        def linearization(self) -> Linearization: ...
        @property
        def labels(self) -> np.ndarray: ...
        @property
        def sample_ids(self) -> tuple[str, ...]: ...
        @property
        def class_names(self) -> tuple[str, ...]: ...
        @property
        def dataset(self) -> str: ...
        @property
        def encoder_name(self) -> str: ...
        @property
        def fingerprint(self) -> str: ...
        @property
        def pooling(self) -> str: ...
        @property
        def kinds(self) -> tuple[str, ...]: ...
        @property
        def skipped(self) -> tuple[str, ...]: ...
        @property
        def groups(self) -> np.ndarray | None: ...
        @property
        def group_names(self) -> tuple[str, ...]: ...

    @property
    def units(self) -> pd.DataFrame:
        """The table of units."""
        return self.linearization.units.table

    @property
    def centering(self) -> str:
        """How the last LayerNorm's mean is shared out among units."""
        return self.linearization.centering

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def contributions(
        self, samples: Samples | None = None, units: Sequence[int] | np.ndarray | None = None
    ) -> Float[Tensor, "n *t u d"]:
        """Contributions of some samples and units, by default of all: `n · u · d` numbers."""

    @abstractmethod
    def coordinates_of(
        self, units: Sequence[int] | np.ndarray, samples: Samples | None = None
    ) -> Coordinates:
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
