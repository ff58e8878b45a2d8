"""Samples that are in two stores at once: what is chosen by a sample, or fitted on it, isn't tested by it.

A sample is known by the digest of its picture, whatever it is called and in whichever split it is. Datasets
do repeat a few pictures; where that is a small part, accuracy can be off by no more than it.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt64

from residual.errors import SharedSamplesError, SharedSamplesWarning
from residual.store.base import Store

# Of the tested samples. As many points may an accuracy be off; above it, the test is refused.
MOST_SHARED = 0.1


@dataclass(frozen=True, eq=False)
class Seen:
    """What some samples are known by.

    Args:
        where: what they are of, for messages.
        keys: a number for each, the same for the same picture.
    """

    where: str
    keys: UInt64[np.ndarray, " n"]

    @classmethod
    def of(cls, store: Store) -> Seen:
        """The digests of a store's pictures; where it has none (stores of 0.1), of dataset and id."""
        keys = np.asarray(store.digests, np.uint64).copy()
        for place in np.flatnonzero(keys == 0).tolist():
            name = f"{store.dataset}\n{store.sample_ids[place]}".encode()
            keys[place] = int.from_bytes(hashlib.sha256(name).digest()[:8], "little")
        return cls(store.dataset, keys)

    def take(self, rows: np.ndarray) -> Seen:
        """Some of them."""
        return Seen(self.where, self.keys[rows])

    def among(self, others: Seen) -> int:
        """How many of these are among others."""
        return int(np.isin(self.keys, others.keys).sum())


def check_apart(chosen: Seen, tested: Seen, what: str) -> None:
    """Refuse to test on samples that something was chosen by, or fitted on.

    A few, up to a tenth (`MOST_SHARED`), are told in a `SharedSamplesWarning`.

    Args:
        chosen: what they were.
        tested: all that is tested on.
        what: "heads are chosen by", for the message.

    Raises:
        SharedSamplesError: more are; says how many.
    """
    if (count := tested.among(chosen)) > MOST_SHARED * len(tested.keys):
        raise SharedSamplesError(f"{_how_many(count, chosen, tested, what)}: that is no test.")
    warn_of_shared(chosen, tested, what)


def warn_of_shared(chosen: Seen, tested: Seen, what: str, so: str = "") -> None:
    """Tell in a `SharedSamplesWarning` how many samples are shared, if any, and what follows."""
    if count := tested.among(chosen):
        so = so or f"accuracy may be too high by up to {100 * count / len(tested.keys):.2g} points"
        warnings.warn(f"{_how_many(count, chosen, tested, what)}: {so}.", SharedSamplesWarning, stacklevel=3)


def _how_many(count: int, chosen: Seen, tested: Seen, what: str) -> str:
    n = len(tested.keys)
    some = f"All {n:,}" if count == n else f"{count:,} of the {n:,}"
    where = f"those of {chosen.where} that" if chosen.where != tested.where else "those that"
    return f"{some} samples of {tested.where} are also among {where} {what}"
