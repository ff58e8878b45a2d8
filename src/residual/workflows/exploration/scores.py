"""One number a unit: what heads are coloured and ranked by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from residual.adapters.inspection import unit_gains
from residual.errors import ResidualError, unknown_name
from residual.heads.accuracy import correct_by_unit
from residual.heads.describe import unit_texts
from residual.heads.descriptions import DescribeSettings, UnitTexts
from residual.heads.scores import check_whole, score_units
from residual.heads.suits import suited
from residual.spectral.bases import SpectralBases
from residual.spectral.dimension import linear_dimension
from residual.spectral.similarity import compare_bases
from residual.workflows.exploration.kept_adapters import HeldAdapter
from residual.workflows.exploration.parts import Parts

TOLD = "texts of units"  # what `told_by_texts` makes is kept as
_THRESHOLD = 0.99  # of the variance: the paper's linear dimension


@dataclass(frozen=True)
class Score:
    """A number that each unit has.

    Args:
        label: for a menu.
        what: it is, in a sentence.
        values: of the units that the store keeps, in their order; NaN where one has none.
        percent: whether it is shown in per cent.
        signed: whether it may be negative.
        reference: what guessing gets, or what leaves a unit as it is; None where there is none.
        needs: what has to be possible, see `overview.possible`.
    """

    label: str
    what: str
    values: Callable[[Parts], list[float]]
    percent: bool = False
    signed: bool = False
    reference: Callable[[Parts], float] | None = None
    needs: str | None = None


def accuracy_alone(parts: Parts, place: int = 0) -> list[float]:
    """Of every unit of a store, by its place."""

    def make() -> list[float]:
        store, classifier = parts.stores[place], parts.directions(place).classifier
        right = correct_by_unit(store, classifier, parts.kept_units, device=parts.sources.device)
        return right.double().mean(0).tolist()

    return parts.made.get(("accuracy alone", place), make)


def dimensions(parts: Parts, place: int = 0) -> list[float]:
    """Linear dimensions of every unit of a store, by its place."""
    eigenvalues = parts.bases_of(place).eigenvalues
    return [float(linear_dimension(values, _THRESHOLD)) for values in eigenvalues]


def moved(parts: Parts) -> list[float]:
    """How far each unit's components are others in the second store: one less the spectral cosine."""
    table = compare_bases(parts.bases_of(0), parts.bases_of(1))
    cosines = dict(zip(table["unit"].tolist(), table["spectral_cosine"].tolist(), strict=True))
    return [1 - cosines.get(unit, math.nan) for unit in parts.kept_units]


def _correlation(parts: Parts) -> list[float]:
    check_whole(parts.store)
    table = score_units(parts.store, None, ("correlation",), parts.store.kinds, device=parts.sources.device)
    return table["correlation"].tolist()


def told_by_texts(parts: Parts) -> dict[int, UnitTexts]:
    """The texts of every unit, by its position, with what chance explains."""

    def make() -> dict[int, UnitTexts]:
        return texts_told(parts, parts.bases)

    return parts.made.get(TOLD, make)


def texts_told(parts: Parts, bases: SpectralBases) -> dict[int, UnitTexts]:
    """The texts of some units, which name nothing where the dictionary can't describe the pictures."""
    found = unit_texts(bases, parts.dictionary, min(DescribeSettings().atoms, len(parts.dictionary)))
    return {unit: replace(told, unsuited=unsuited(parts)) for unit, told in found.items()}


def unsuited(parts: Parts) -> str:
    """Why the dictionary names nothing of these pictures, a sentence; "" where it may, or where no texts of
    classes are there to hold it against.
    """

    def make() -> str:
        directions = parts.directions()
        if not directions.of_text:
            return ""
        fits = suited(parts.store, parts.dictionary, directions.classifier, DescribeSettings())
        return "" if fits is None or fits.suits else fits.verdict

    try:
        return parts.made.get("unsuited", make)
    except ResidualError:  # nothing tells the classes apart
        return ""


def _told_shares(parts: Parts) -> list[float]:
    return [each.share for each in told_by_texts(parts).values()]


def _length(parts: Parts) -> list[float]:
    """`√(‖m‖² + Σ e)`."""
    each = zip(parts.bases.means, parts.bases.eigenvalues, strict=True)
    return [math.sqrt(float(mean.square().sum() + values.sum())) for mean, values in each]


def _gains(parts: Parts, held: HeldAdapter) -> list[float]:
    """Of units that an adapter weights; of others NaN."""
    table = unit_gains(held.adapter, parts.store.units)
    gains = dict(zip(table["unit"].tolist(), table["gain"].tolist(), strict=True))
    return [gains.get(unit, math.nan) for unit in parts.kept_units]


def _guess(parts: Parts) -> float:
    """The most frequent class, always."""
    return float(np.bincount(parts.store.labels).max() / len(parts.store))


_SCORES: dict[str, Score] = {
    "accuracy": Score(
        "accuracy alone",
        "Part of the pictures that are right by this unit's contribution alone.",
        accuracy_alone,
        percent=True,
        reference=_guess,
        needs="classes",
    ),
    "correlation": Score(
        "correlation with the output",
        "How far its contribution goes along with the encoder's output, over pictures.",
        _correlation,
        signed=True,
        needs="whole",
    ),
    "told": Score(
        "told by texts",
        "Part of its variance that ten texts of the dictionary explain.",
        _told_shares,
        percent=True,
        needs="text",
    ),
    "dimension": Score("dimension", "How many components hold 99 % of its variance.", dimensions),
    "norm": Score("length", "Root mean square of the length of its contribution.", _length),
}
_MOVES = Score(
    "moves",
    "How far its components are others in the second store: one less their spectral cosine.",
    moved,
)


def scores_of(parts: Parts) -> dict[str, Score]:
    """The scores that this exploration has, by their keys."""
    found = dict(_SCORES)
    weighted = [held for held in parts.adapters.values() if held.adapter.of_units]
    for number, held in enumerate(weighted):
        found[f"weight:{held.name}" if number else "weight"] = Score(
            f"gain by {held.name}",
            f"By how much the spread of its contribution grows by the weights of {held.name}.",
            partial(_gains, held=held),
            reference=lambda _: 1.0,
        )
    return found | ({"moves": _MOVES} if len(parts.stores) > 1 else {})


def values_of(parts: Parts, key: str) -> dict[int, float | None]:
    """A score of every unit that the store keeps, by position; None where one has none.

    Raises:
        ResidualError: there is no such score; or as what it is made of.
    """
    known = scores_of(parts)
    if key not in known:
        raise unknown_name("score", key, known)
    values = parts.made.get(("score", key), lambda: known[key].values(parts))
    finite = (value if math.isfinite(value) else None for value in values)
    return dict(zip(parts.kept_units, finite, strict=True))


def heads(parts: Parts, key: str) -> dict[str, Any]:
    """See api/heads: a score of every unit, and its range.

    Raises:
        ResidualError: as `values_of`.
    """
    values = values_of(parts, key)
    score, there = scores_of(parts)[key], [value for value in values.values() if value is not None]
    rows = [{**named(parts, unit), "value": value} for unit, value in values.items()]
    note = parts.directions().note if key == "accuracy" else None
    return {
        "key": key,
        "units": rows,
        "low": min(there, default=None),
        "high": max(there, default=None),
        "reference": None if score.reference is None else score.reference(parts),
        "note": note,
    }


def named(parts: Parts, unit: int) -> dict[str, Any]:
    """A unit's name, kind, layer and head, None where it has none."""
    kind, units = parts.units.kind(unit), parts.units
    layer, head = units.layer_head(unit) if kind == "head" else (None, None)
    if kind == "mlp":
        layer = unit - 1
    return {"unit": units.name(unit), "kind": kind, "layer": layer, "head": head}
