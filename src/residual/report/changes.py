"""What an adapter changed: the test pictures that it gets right now and didn't before, and the other way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from residual.intervals import Interval, paired_difference


@dataclass(frozen=True)
class Change:
    """One test picture whose answer became right or wrong.

    Args:
        sample_id: its id.
        position: of it in the store of test pictures.
        label: the name of its class.
        before, after: the names of the classes that were answered.
    """

    sample_id: str
    position: int
    label: str
    before: str
    after: str


@dataclass(frozen=True, eq=False)
class Changes:
    """Answers to all test pictures without an adapter and with one.

    Args:
        method: of the adapter.
        seed: of the fit.
        sample_ids: one a picture.
        class_names: of all classes.
        labels: class numbers `(n,)`.
        before: the zero-shot answers `(n,)`.
        after: those of the adapter.
    """

    method: str
    seed: int
    sample_ids: Sequence[str]
    class_names: Sequence[str]
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @cached_property
    def fixed(self) -> list[Change]:
        """What was wrong and is right."""
        return self._where((self.before != self.labels) & (self.after == self.labels))

    @cached_property
    def broken(self) -> list[Change]:
        """What was right and is wrong."""
        return self._where((self.before == self.labels) & (self.after != self.labels))

    @property
    def difference(self) -> Interval:
        """How much more of the pictures are right, with its interval over pictures."""
        return paired_difference(self.before == self.labels, self.after == self.labels)

    @property
    def by_class(self) -> pd.DataFrame:
        """A row a class with test pictures: `class_name, pictures, before, after`, the last two shares."""
        rows = {"before": self.before == self.labels, "after": self.after == self.labels}
        table = pd.DataFrame({"label": self.labels, **rows}).groupby("label")
        shares = table.mean().assign(pictures=table.size()).reset_index()
        names = [self.class_names[label] for label in shares["label"]]
        return shares.assign(class_name=names)[["class_name", "pictures", "before", "after"]]

    def counts(self) -> dict[str, Any]:
        """In numbers, for JSON."""
        return {"seed": self.seed, "fixed": len(self.fixed), "broken": len(self.broken)}

    def _where(self, mask: np.ndarray) -> list[Change]:
        return [
            Change(
                self.sample_ids[k],
                k,
                *(self.class_names[each[k]] for each in (self.labels, self.before, self.after)),
            )
            for k in np.flatnonzero(mask).tolist()
        ]
