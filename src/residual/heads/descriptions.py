"""What is told of a head, and how it is chosen: settings, and a description in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from residual.settings import PAPER, check_settings, setting
from residual.text.chance import Chance
from residual.text.pursuit import CRITERIA

TASKS = {
    "accuracy": "accuracy alone",
    "span": "correlation in the span of the classes",
    "correlation": "correlation with the output",
}
_OF_SAMPLES = tuple(criterion for criterion in CRITERIA if criterion != "std")


@dataclass(frozen=True)
class DescribeSettings:
    """How heads are chosen and described.

    Args:
        task: the score that ranks heads, see `score_units`: "accuracy" of a head alone, "span" or
            "correlation".
        top: so many of the best are described where none is named; all if there are fewer.
        atoms: texts for a head, chosen by `somp`; fewer where these explain all of it.
        criterion: "std" chooses them on weighted components, as Head Pursuit does (Basile et al. 2025, arXiv
            2510.21518); "l1" on the contributions of the samples.
        samples: for all but "std", at most so many, evenly spread over the store.
        components: how many of a head's first components.
        texts: nearest to each end of a component.
        images: samples at each end, at most half of all.
        threshold: part of the variance, of the linear dimension; the paper's.
        suits: a dictionary names heads only where its texts tell at least this part of what as many names of
            the data's classes tell of the output, see `Suited`. Half: on the suite, lists that speak of the
            pictures tell 0.6 to 1.0 of it, attributes of digits and letters 0.4. 0 asks nothing.

    Raises:
        ResidualError: one is out of range.
    """

    task: str = setting("accuracy", choices=tuple(TASKS))
    top: int = setting(10, least=1)
    atoms: int = setting(10, least=1, source=PAPER)
    criterion: str = setting("std", choices=CRITERIA)
    samples: int = setting(10_000, least=1, only={"criterion": _OF_SAMPLES})
    components: int = setting(3, least=1)
    texts: int = setting(5, least=1)
    images: int = setting(8, least=1)
    threshold: float = setting(0.99, above=0, below=1, source=PAPER)
    suits: float = setting(0.5, least=0, most=1)

    def __post_init__(self):
        check_settings(self)


@dataclass(frozen=True)
class ChosenText:
    """A text chosen by matching pursuit; `explained_variance` is of all texts up to this one, in (0, 1]."""

    text: str
    explained_variance: float


@dataclass(frozen=True)
class NearText:
    """A text, and its cosine with a direction."""

    text: str
    cosine: float


@dataclass(frozen=True)
class EndSample:
    """A sample at an end of a component: its position in the store, id and class, and its score there."""

    sample: int
    sample_id: str
    class_name: str
    score: float


@dataclass(frozen=True)
class ComponentDescription:
    """One component of a head.

    Args:
        index: which, from 0.
        eigenvalue: the variance of contributions along it.
        explained_variance_ratio: its part of the head's variance.
        positive_texts, negative_texts: with the largest cosines with it, and with what points the other way.
        largest, smallest: the samples with the largest scores, the largest first; and with the smallest.
    """

    index: int
    eigenvalue: float
    explained_variance_ratio: float
    positive_texts: tuple[NearText, ...]
    negative_texts: tuple[NearText, ...]
    largest: tuple[EndSample, ...]
    smallest: tuple[EndSample, ...]


@dataclass(frozen=True)
class UnitTexts:
    """Texts that make up what a unit writes, chosen by matching pursuit, and whether they name it.

    Args:
        texts: in the order chosen. They are its names only where it is `named`.
        chance: what as many texts explain of it by chance, None where there is nothing to explain.
        unsuited: why the dictionary names nothing of these data, a sentence; "" where it may.
    """

    texts: tuple[ChosenText, ...]
    chance: Chance | None
    unsuited: str = field(default="", kw_only=True)

    @property
    def share(self) -> float:
        """The part of the unit's variance that all the texts explain together."""
        return self.texts[-1].explained_variance if self.texts else 0.0

    @property
    def named(self) -> bool:
        """Whether the texts explain more than by chance, see `Chance.names`, and are of a dictionary that can
        describe the data."""
        return not self.unsuited and self.chance is not None and self.chance.names(self.share)

    @property
    def verdict(self) -> str:
        """The share and the chance, in a sentence about "this head"."""
        return self.verdict_on("this head")

    def verdict_on(self, what: str) -> str:
        """The same sentence about something else."""
        if self.chance is None:
            return f"{what[:1].upper()}{what[1:]} writes the same for every picture: no name."
        told = self.chance.verdict(self.share, what)
        if not self.unsuited or told.endswith("no name."):
            return told
        return f"{told[:-1]}; but the dictionary can't describe these pictures: no name."


@dataclass(frozen=True)
class HeadDescription(UnitTexts):
    """One head in words and numbers.

    Args:
        unit: its position among all units.
        layer, head: where it is, from 0.
        score: on the task, or None without a classifier.
        rank: its place among all heads by that, from 1; equal scores share one.
        components: the first ones.
        eigenvalues: of all components, the largest first.
        linear_dimension: see `residual.spectral.linear_dimension`.
        participation_ratio: `(Σ λ)² / Σ λ²`, or None where contributions are all the same.
        texts, chance: see `UnitTexts`.
    """

    unit: int
    layer: int
    head: int
    score: float | None
    rank: int | None
    components: tuple[ComponentDescription, ...]
    eigenvalues: tuple[float, ...]
    linear_dimension: int
    participation_ratio: float | None

    @property
    def name(self) -> str:
        """Layer and head, as "11.4"."""
        return f"{self.layer}.{self.head}"

    @property
    def explained_variance_ratio(self) -> tuple[float, ...]:
        """Each component's part of the head's variance."""
        total = sum(self.eigenvalues)
        return tuple(value / total for value in self.eigenvalues) if total else ()
