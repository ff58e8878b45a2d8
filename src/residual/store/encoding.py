"""How a dataset is encoded: in batches, in parts, and with how many pictures left out that can't be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from residual.data import ImageDataset
from residual.errors import ResidualError, TooManySkippedError
from residual.tracing.units import KINDS

ON_ERROR = ("raise", "skip")
AUTO, CPU, GPU = "auto", "cpu", "gpu"
DECODE = (AUTO, CPU, GPU)


@dataclass(frozen=True)
class Allowance:
    """How many pictures may be left out before the dataset itself is taken for a damaged one.

    Args:
        share: of a dataset's pictures, though one may always be.
        number: of pictures; whichever is less counts.

    Raises:
        ResidualError: one is out of range.
    """

    share: float | int = 0.01
    number: int = 100

    def __post_init__(self):
        if not 0 <= self.share <= 1 or self.number < 0:
            raise ResidualError(
                f"What may be left out is a share from 0 to 1 and a number of pictures, got {self.share} and "
                f"{self.number}."
            )

    def of(self, total: int) -> int:
        """How many of so many pictures."""
        return min(self.number, max(1, int(self.share * total)))


@dataclass(frozen=True)
class Encoding:
    """How a dataset is encoded.

    Args:
        pooling: which tokens, see `decompose`.
        kinds: kinds of unit to keep: "emb", "mlp", "head".
        batch_size: images at a time; changes speed and memory, not results (but for rounding).
        workers: see `encode_dataset`.
        on_error: an image that can't be read stops the run ("raise") or is left out and listed ("skip").
        allowance: with "skip", how many may be; None for any number.
        decode: where JPEGs are decoded: "cpu", "gpu" or "auto", see `encode_dataset`.

    Raises:
        ResidualError: a choice that isn't known.
    """

    pooling: str = "own"
    kinds: tuple[str, ...] = KINDS
    batch_size: int = 64
    workers: int | None = None
    on_error: str = "raise"
    allowance: Allowance | None = None
    decode: str = AUTO

    def __post_init__(self):
        if self.on_error not in ON_ERROR:
            raise ResidualError(f"on_error is {' or '.join(map(repr, ON_ERROR))}, got {self.on_error!r}.")
        if self.decode not in DECODE:
            raise ResidualError(f"decode is {', '.join(map(repr, DECODE))}; got {self.decode!r}.")
        if self.batch_size < 1:
            raise ResidualError(f"batch_size must be at least 1, got {self.batch_size}.")
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ResidualError(
                f"Kinds of unit are one or more of {', '.join(KINDS)}; got {', '.join(self.kinds) or 'none'}."
            )

    def batches(self, samples: range) -> list[range]:
        """The samples in batches."""
        return [samples[at : at + self.batch_size] for at in range(0, len(samples), self.batch_size)]

    def check_skipped(self, dataset: ImageDataset, skipped: Mapping[int, str]) -> None:
        """Refuse to go on when more images are left out than may be.

        Args:
            dataset: of which.
            skipped: positions of those that can't be read, and why.

        Raises:
            TooManySkippedError: says how many there are, how many may be, and which is the first.
        """
        may = self.allowance
        if may is None or len(skipped) <= may.of(len(dataset)):
            return
        first = min(skipped)
        raise TooManySkippedError(
            f"{len(skipped):,} images of {dataset.full_name} can't be read, of {len(dataset):,} that it has; "
            f"left out may be {may.share:.4g} of them and at most {may.number:,}, which is "
            f"{may.of(len(dataset)):,}. The first is {dataset.sample_ids[first]!r} ({skipped[first]})."
        )


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
