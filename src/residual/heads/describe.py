"""Heads described: by texts, by the samples at the ends of their components, by their spectrum and a task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.heads.accuracy import batches_of
from residual.heads.by_name import check_atoms, check_heads, parse_heads
from residual.heads.descriptions import (
    ChosenText,
    ComponentDescription,
    DescribeSettings,
    EndSample,
    HeadDescription,
    NearText,
    UnitTexts,
)
from residual.heads.scores import score_units
from residual.progress import Progress, named
from residual.spectral.bases import SpectralBases
from residual.spectral.dimension import linear_dimension
from residual.store.base import Store
from residual.text.chance import chances, compact
from residual.text.classifier import PLAIN, ZeroShotClassifier
from residual.text.dictionary import TextDictionary
from residual.text.pursuit import somp, weighted_components
from residual.tracing.units import UnitsLike

_GAIN = 1e-9  # of the variance: a text that explains no more was chosen by rounding


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

    Texts explain something of any head: `HeadDescription.chance` says how much as many explain by chance, by
    draws of seed 0, and `named` whether these explain more.

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
    descriptions, written = [], {}
    for place, unit in enumerate(bases.units):
        layer, head = store.linearization.units.layer_head(unit)
        eigenvalues = bases.eigenvalues[place]
        total = eigenvalues.sum().item()
        texts: tuple[ChosenText, ...] = ()
        if total and (rows := _explained(store, bases, unit, settings, where)) is not None:
            texts, written[unit] = _texts(rows, dictionary, settings), compact(rows)
        descriptions.append(
            HeadDescription(
                unit=unit,
                layer=layer,
                head=head,
                score=scores.get(unit),
                rank=1 + sum(other > scores[unit] for other in scores.values()) if scores else None,
                texts=texts,
                chance=None,  # of all heads at once, below
                components=_components(store, bases, place, along[place], dictionary, settings),
                eigenvalues=tuple(eigenvalues.tolist()),
                linear_dimension=linear_dimension(eigenvalues, settings.threshold),
                participation_ratio=total**2 / eigenvalues.square().sum().item() if total else None,
            )
        )
        if progress is not None:
            progress("describe heads", place + 1, len(bases))
    drawn = chances([*written.values()], dictionary.embeddings, settings.atoms)
    chance = dict(zip(written, drawn, strict=True))
    return [replace(head, chance=chance.get(head.unit)) for head in descriptions]


def unit_texts(bases: SpectralBases, dictionary: TextDictionary, atoms: int = 10) -> dict[int, UnitTexts]:
    """For each unit of the bases, head or MLP, the texts that its components are made of, and their chance.

    Args:
        bases: by the same encoder as the dictionary.
        dictionary: `(m, d)`.
        atoms: texts for a unit.

    Raises:
        ResidualError: as `check_atoms`, or another width.
    """
    check_atoms(atoms, len(dictionary))
    rows = {unit: weighted_components(bases, unit) for unit in bases.units}
    rows = {unit: own for unit, own in rows.items() if own.any()}
    settings = DescribeSettings(atoms=atoms)
    drawn = chances([*rows.values()], dictionary.embeddings, atoms)
    told = {
        unit: UnitTexts(_texts(own, dictionary, settings), chance)
        for (unit, own), chance in zip(rows.items(), drawn, strict=True)
    }
    return {unit: told.get(unit, UnitTexts((), None)) for unit in bases.units}


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


def _explained(
    store: Store, bases: SpectralBases, unit: int, settings: DescribeSettings, device: torch.device
) -> Float[Tensor, "n d"] | None:
    """The rows that texts are to explain, about their mean; None where a head writes the same everywhere."""
    if settings.criterion == "std":
        return weighted_components(bases, unit).to(device)
    few = min(len(store), settings.samples)
    samples = np.linspace(0, len(store) - 1, few).round().astype(np.int64)
    rows = store.contributions(samples, [unit])[:, 0].to(device)
    return None if (rows == rows[:1]).all() else rows - rows.mean(0)


def _texts(
    rows: Float[Tensor, "n d"], dictionary: TextDictionary, settings: DescribeSettings
) -> tuple[ChosenText, ...]:
    chosen = somp(rows, dictionary, settings.atoms, settings.criterion, centre=settings.criterion != "std")
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
