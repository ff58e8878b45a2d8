"""What every store of coordinates offers, in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization

Samples = slice | Sequence[int] | np.ndarray


class Store(Protocol):
    """Coordinates of `n` samples, in the dataset's order, and what they are of."""

    @property
    def linearization(self) -> Linearization:
        """From coordinates to contributions."""
        ...

    @property
    def units(self) -> pd.DataFrame:
        """The table of units."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """`(n,)`, int64."""
        ...

    @property
    def sample_ids(self) -> tuple[str, ...]:
        """One a sample."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One a class."""
        ...

    @property
    def dataset(self) -> str:
        """Name and split, as "name/split"."""
        ...

    @property
    def encoder_name(self) -> str:
        """What made the coordinates."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of that encoder's weights."""
        ...

    @property
    def split(self) -> str:
        """How the last LayerNorm's mean is shared out among units."""
        ...

    @property
    def pooling(self) -> str:
        """Which tokens, see `decompose`."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of unit that are kept."""
        ...

    @property
    def skipped(self) -> tuple[str, ...]:
        """Ids of the samples that could not be read."""
        ...

    def __len__(self) -> int: ...

    def contributions(
        self, samples: Samples | None = None, units: Sequence[int] | np.ndarray | None = None
    ) -> Float[Tensor, "n *t u d"]:
        """Contributions of some samples and units, by default of all: `n · u · d` numbers."""
        ...

    def output(self) -> Float[Tensor, "n *t d"]:
        """The encoder's output for every sample: the sum of all its contributions."""
        ...

    def batches(self, size: int = 1024, kinds: Sequence[str] | None = None) -> Iterator[Coordinates]:
        """The coordinates, `size` samples at a time, in order; of all kinds of unit that are kept, or some.

        The precision is that in which they are kept.
        """
        ...
