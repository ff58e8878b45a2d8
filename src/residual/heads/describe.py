"""Heads described: by texts, by the samples at the ends of their components, by their spectrum and a task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.finite import whole_fields
from residual.heads.accuracy import batches_of
from residual.heads.scores import score_units
from residual.progress import Progress, named
from residual.spectral.bases import SpectralBases
from residual.spectral.dimension import linear_dimension
from residual.store.base import Store
from residual.text.classifier import PLAIN, ZeroShotClassifier
from residual.text.dictionary import TextDictionary
from residual.text.pursuit import CRITERIA, somp, weighted_components
from residual.tracing.units import UnitsLike

_GAIN = 1e-9  # of the variance: a text that explains no more was chosen by rounding

TASKS = {
    "accuracy": "accuracy alone",
    "span": "correlation in the span of the classes",
    "correlation": "correlation with the output",
}


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
        samples: for "l1", at most so many, evenly spread over the store.
        components: how many of a head's first components.
        texts: nearest to each end of a component.
        images: samples at each end, at most half of all.
        threshold: part of the variance, of the linear dimension; the paper's.

    Raises:
        ResidualError: one is out of range.
    """

    task: str = "accuracy"
    top: int = 10
    atoms: int = 10
    criterion: str = "std"
    samples: int = 10_000
    components: int = 3
    texts: int = 5
    images: int = 8
    threshold: float = 0.99

    def __post_init__(self):
        for name, known in (("task", TASKS), ("criterion", CRITERIA)):
            if getattr(self, name) not in known:
                raise ResidualError(f"Unknown {name} {getattr(self, name)!r}. Known: {', '.join(known)}.")
        counts = ("top", "atoms", "samples", "components", "texts", "images")
        whole_fields(self, *counts)
        if few := [name for name in counts if getattr(self, name) < 1]:
            raise ResidualError(f"{few[0]} must be a whole number from 1 on, got {getattr(self, few[0])}.")
        if not 0 < self.threshold < 1:
            raise ResidualError(f"threshold lies in (0, 1), got {self.threshold}.")


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
class HeadDescription:
    """One head in words and numbers.

    Args:
        unit: its position among all units.
        layer, head: where it is, from 0.
        score: on the task, or None without a classifier.
        rank: its place among all heads by that, from 1; equal scores share one.
        texts: chosen by matching pursuit, in that order.
        components: the first ones.
        eigenvalues: of all components, the largest first.
        linear_dimension: see `residual.spectral.linear_dimension`.
        participation_ratio: `(Σ λ)² / Σ λ²`, or None where contributions are all the same.
    """

    unit: int
    layer: int
    head: int
    score: float | None
    rank: int | None
    texts: tuple[ChosenText, ...]
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


def describe_heads(
    store: Store,
    encoder: Encoder | None,
    dictionary: TextDictionary,
    bases: SpectralBases,
    heads: UnitsLike | None = None,
    settings: DescribeSettings | None = None,
    *,
    classifier: ZeroShotClassifier | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> list[HeadDescription]:
    """Describe heads by texts, by the ends of their components, by their spectrum and by a task.

    Texts are those of `somp(weighted_components(bases, unit), dictionary, atoms, "std", centre=False)`. A
    sample's score on a component `φ` is `⟨c − m, φ⟩`, with `c` the head's contribution to it and `m` the mean
    that `bases` hold; it is made of coordinates, `f (M φ) + ⟨o − m, φ⟩` (see `Linearization`). It has the
    unit of the encoder's output.

    Args:
        store: `n` samples, one token an image; heads at least, and all kinds of unit for the tasks "span" and
            "correlation".
        encoder: that of the store, with a text tower; where no classifier is given it makes one of the
            store's classes, with the template "a photo of a {}.".
        dictionary: `(m, d)`, by the same encoder.
        bases: of these heads, by the same encoder; of this store or of other data.
        heads: which (see `Units.checked`), described in this order; by default the best by the task.
        settings: how.
        classifier: of the store's classes. Without it and without an encoder only the task "correlation"
            scores heads.
        device: where to compute; by default the GPU if there is one, else the CPU.
        progress: told of every pass.

    Raises:
        ResidualError: a store without heads or with several tokens an image, a unit that is no head, bases, a
            dictionary or an encoder that don't fit, more atoms than entries, NaN; or the best are wanted and
            nothing scores them.
    """
    settings, where = settings or DescribeSettings(), find_device(device)
    check_atoms(settings.atoms, len(dictionary))
    named_heads = None if heads is None else parse_heads(heads, store)
    every = _checked(store, encoder, dictionary, bases)
    if classifier is None and encoder is not None and settings.task != "correlation":
        classifier = ZeroShotClassifier.from_text(encoder, store.class_names, PLAIN)
    scores: dict[int, float] = {}
    if classifier is not None or settings.task == "correlation":
        table = score_units(
            store, classifier, (settings.task,), device=where, progress=named(progress, "score heads")
        )
        scores = dict(zip(every, table[settings.task].tolist(), strict=True))
    if named_heads is None:
        if not scores:
            raise ResidualError(
                f"The best heads by {settings.task} can't be told without a classifier or an encoder: give "
                "one, or name heads."
            )
        named_heads = sorted(every, key=lambda unit: -scores[unit])[: settings.top]
    bases = bases.select(named_heads)
    along = _scores_along(store, bases, settings.components, where, progress)
    descriptions = []
    for place, unit in enumerate(bases.units):
        layer, head = store.linearization.units.layer_head(unit)
        eigenvalues = bases.eigenvalues[place]
        total = eigenvalues.sum().item()
        descriptions.append(
            HeadDescription(
                unit=unit,
                layer=layer,
                head=head,
                score=scores.get(unit),
                rank=1 + sum(other > scores[unit] for other in scores.values()) if scores else None,
                texts=_texts(store, bases, unit, dictionary, settings, where) if total else (),
                components=_components(store, bases, place, along[place], dictionary, settings),
                eigenvalues=tuple(eigenvalues.tolist()),
                linear_dimension=linear_dimension(eigenvalues, settings.threshold),
                participation_ratio=total**2 / eigenvalues.square().sum().item() if total else None,
            )
        )
        if progress is not None:
            progress("describe heads", place + 1, len(bases))
    return descriptions


def parse_heads(names: UnitsLike, store: Store) -> list[int]:
    """Positions of heads, in whichever form they are given ("11.4"); one that comes twice is taken once.

    Raises:
        ResidualError: none is named, there is no such unit, or it is no head.
    """
    check_heads(store)
    units = store.linearization.units
    heads, every = units.checked(names), units.of_field["z"]
    if not heads:
        raise ResidualError("No head was named: name one at least, or none at all for the best.")
    if wrong := [units.name(unit) for unit in heads if unit not in every]:
        raise ResidualError(
            f"No head: {', '.join(wrong)}. Heads are {units.name(every[0])} to {units.name(every[-1])}, or "
            f"units {every[0]} to {every[-1]}."
        )
    return list(dict.fromkeys(heads))


def check_heads(store: Store) -> None:
    """Refuse a store without heads.

    Raises:
        ResidualError: it has none.
    """
    if "head" not in store.kinds:
        raise ResidualError(
            f"{store.dataset} was encoded without heads, only with units of kind {', '.join(store.kinds)}: "
            "encode it with heads."
        )


def check_atoms(atoms: int, entries: int) -> None:
    """Refuse to choose more texts than there are.

    Raises:
        ResidualError: it would.
    """
    if atoms > entries:
        raise ResidualError(
            f"The dictionary has {entries} entries, so {atoms} texts can't be chosen of it: ask for fewer "
            "atoms or take a longer one."
        )


def _checked(
    store: Store,
    encoder: Encoder | None,
    dictionary: TextDictionary,
    bases: SpectralBases,
) -> list[int]:
    """All heads of a store, if what is to describe them belongs to it."""
    check_heads(store)
    if encoder is not None and encoder.fingerprint != store.fingerprint:
        raise ResidualError(
            f"The store is of {store.encoder_name} (weights {store.fingerprint[:8]}), not of {encoder.name} "
            f"(weights {encoder.fingerprint[:8]}): load the encoder that made it."
        )
    bases.check_store(store)
    width = store.linearization.output_dim
    for what, wide in (("bases", bases.dim), ("dictionary's embeddings", dictionary.embeddings.shape[1])):
        if wide != width:
            raise ResidualError(f"The {what} have width {wide}, the encoder's output has {width}.")
    return store.linearization.units.positions("head")


def _scores_along(
    store: Store, bases: SpectralBases, components: int, device: torch.device, progress: Progress | None
) -> list[Float[Tensor, "n k"]]:
    """Scores of all samples on the first components of each unit, in float64 on the CPU."""
    linearization, maps = store.linearization, {}
    for unit, mean, rows in zip(bases.units, bases.means, bases.components, strict=True):
        turn, offset = rows[:components].T, linearization.offset(unit) - mean
        maps[unit] = (linearization.matrix(unit) @ turn).to(device), (offset @ turn).to(device)
    scores: dict[int, list[Tensor]] = {unit: [] for unit in maps}
    for _, batch in batches_of(store, device, named(progress, "find ends"), units=bases.units, exact=True):
        for unit, (matrix, offset) in maps.items():
            own = torch.addmm(offset, linearization.features(batch, unit), matrix).cpu()
            if not own.isfinite().all():
                raise ResidualError(f"The store holds NaN or infinity in unit {unit}: encode it again.")
            scores[unit].append(own)
    return [torch.cat(parts) for parts in scores.values()]


def _texts(
    store: Store,
    bases: SpectralBases,
    unit: int,
    dictionary: TextDictionary,
    settings: DescribeSettings,
    device: torch.device,
) -> tuple[ChosenText, ...]:
    if settings.criterion == "std":
        rows = weighted_components(bases, unit).to(device)
        chosen = somp(rows, dictionary, settings.atoms, "std", centre=False)
    else:
        few = min(len(store), settings.samples)
        samples = np.linspace(0, len(store) - 1, few).round().astype(np.int64)
        rows = store.contributions(samples, [unit])[:, 0].to(device)
        if (rows == rows[:1]).all():
            return ()
        chosen = somp(rows, dictionary, settings.atoms, settings.criterion)
    explained = chosen.explained_variance
    gains = (explained.diff(prepend=explained.new_zeros(1)) > _GAIN).tolist()
    every = zip(chosen.texts, explained.tolist(), gains, strict=True)
    return tuple(ChosenText(text, part) for text, part, gain in every if gain)


def _components(
    store: Store,
    bases: SpectralBases,
    place: int,
    along: Float[Tensor, "n k"],
    dictionary: TextDictionary,
    settings: DescribeSettings,
) -> tuple[ComponentDescription, ...]:
    directions, eigenvalues = bases.components[place][: along.shape[1]], bases.eigenvalues[place]
    near, far = (dictionary.nearest(sign * directions, settings.texts) for sign in (1, -1))
    ratios = eigenvalues / (eigenvalues.sum().item() or 1.0)
    count = min(settings.images, len(store) // 2)
    return tuple(
        ComponentDescription(
            index=index,
            eigenvalue=eigenvalues[index].item(),
            explained_variance_ratio=ratios[index].item(),
            positive_texts=tuple(NearText(*text) for text in near[index]),
            negative_texts=tuple(NearText(*text) for text in far[index]),
            largest=_end(store, along[:, index], count, largest=True),
            smallest=_end(store, along[:, index], count, largest=False),
        )
        for index in range(len(directions))
    )


def _end(store: Store, scores: Float[Tensor, " n"], count: int, largest: bool) -> tuple[EndSample, ...]:
    order = scores.argsort(descending=largest, stable=True)[:count].tolist()
    return tuple(
        EndSample(
            sample=sample,
            sample_id=store.sample_ids[sample],
            class_name=store.class_names[store.labels[sample]],
            score=scores[sample].item(),
        )
        for sample in order
    )
