"""What there is to explore, and one number a unit: what the first view shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from residual.errors import unknown_name
from residual.heads.accuracy import correct_by_unit
from residual.heads.scores import pursuit_scores, score_units
from residual.libraries import version_of
from residual.spectral.dimension import linear_dimension
from residual.workflows.exploration.parts import Parts

_THRESHOLD = 0.99  # of the variance: the paper's linear dimension


@dataclass(frozen=True)
class Score:
    """A number that each unit has.

    Args:
        label: for a menu.
        what: it is, in a sentence.
        values: of the units that the store keeps, in their order.
        percent: whether it is shown in per cent.
        signed: whether it may be negative.
        reference: what guessing gets, or chance; None where there is none.
    """

    label: str
    what: str
    values: Callable[[Parts], list[float]]
    percent: bool = False
    signed: bool = False
    reference: Callable[[Parts], float] | None = None


def _accuracy(parts: Parts) -> list[float]:
    right = correct_by_unit(parts.store, parts.classifier, parts.kept_units, device=parts.sources.device)
    return right.double().mean(0).tolist()


def _correlation(parts: Parts) -> list[float]:
    table = score_units(parts.store, None, ("correlation",), parts.store.kinds, device=parts.sources.device)
    return table["correlation"].tolist()


def _told(parts: Parts) -> list[float]:
    return pursuit_scores(parts.bases, parts.dictionary).tolist()


def _dimension(parts: Parts) -> list[float]:
    return [float(linear_dimension(values, _THRESHOLD)) for values in parts.bases.eigenvalues]


def _norm(parts: Parts) -> list[float]:
    """`√(‖m‖² + Σ e)`."""
    bases = parts.bases
    squares = [
        float(mean.square().sum() + values.sum())
        for mean, values in zip(bases.means, bases.eigenvalues, strict=True)
    ]
    return [math.sqrt(square) for square in squares]


def _guess(parts: Parts) -> float:
    return float(np.bincount(parts.store.labels).max() / len(parts.store))


SCORES: dict[str, Score] = {
    "accuracy": Score(
        "accuracy alone",
        "Part of the pictures that are right by this unit's contribution alone.",
        _accuracy,
        percent=True,
        reference=_guess,
    ),
    "correlation": Score(
        "correlation with the output",
        "How far its contribution goes along with the encoder's output, over pictures.",
        _correlation,
        signed=True,
    ),
    "told": Score(
        "told by texts",
        "Part of its variance that ten texts of the dictionary explain.",
        _told,
        percent=True,
    ),
    "dimension": Score("dimension", "How many components hold 99 % of its variance.", _dimension),
    "norm": Score("length", "Root mean square of the length of its contribution.", _norm),
}


def scores_of(parts: Parts) -> dict[str, Score]:
    """The scores that this exploration has."""
    return dict(SCORES)


def about(parts: Parts) -> dict[str, Any]:
    """See api/about: names, scores, adapters and what can be done."""
    units, store = parts.units, parts.store
    return {
        "version": version_of("residual-vit"),
        "live": True,
        "encoder": {
            "name": store.encoder_name,
            "layers": units.layers,
            "heads": units.heads,
            "output_dim": store.linearization.output_dim,
        },
        "stores": [
            {"name": each.dataset, "dataset": each.dataset, "samples": len(each)} for each in parts.stores
        ],
        "classes": list(store.class_names),
        "groups": list(store.group_names) if store.groups is not None else None,
        "samples": len(store),
        "scores": [
            {
                "key": key,
                "label": each.label,
                "what": each.what,
                "percent": each.percent,
                "signed": each.signed,
            }
            for key, each in scores_of(parts).items()
        ],
        "notes": [*parts.origin.notes, *filter(None, [parts.classifier_note])],
    }


def heads(parts: Parts, key: str) -> dict[str, Any]:
    """See api/heads: a score of every unit, and its range.

    Raises:
        ResidualError: there is no such score; or as what it is made of.
    """
    known = scores_of(parts)
    if key not in known:
        raise unknown_name("score", key, known)
    score = known[key]
    values = score.values(parts)
    finite = [value for value in values if math.isfinite(value)]
    rows = []
    for unit, value in zip(parts.kept_units, values, strict=True):
        kind = parts.units.kind(unit)
        layer, head = parts.units.layer_head(unit) if kind == "head" else (None, None)
        if kind == "mlp":
            layer = unit - 1
        rows.append(
            {
                "unit": parts.units.name(unit),
                "kind": kind,
                "layer": layer,
                "head": head,
                "value": value if math.isfinite(value) else None,
            }
        )
    return {
        "key": key,
        "units": rows,
        "low": min(finite, default=0.0),
        "high": max(finite, default=0.0),
        "reference": None if score.reference is None else score.reference(parts),
        "note": None,
    }
