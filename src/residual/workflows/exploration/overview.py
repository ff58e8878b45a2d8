"""What there is to explore: what the first view shows around the heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from residual.errors import ResidualError
from residual.files import shareable
from residual.libraries import version_of
from residual.text.dictionary import read_texts
from residual.workflows.exploration.parts import Parts
from residual.workflows.exploration.scores import accuracy_alone, dimensions, moved, named, scores_of
from residual.workflows.exploration.turned import measured
from residual.workflows.exploration.turning import Turning

_EXAMPLES, _SHORT = 5, 20  # texts, and letters of one
_SHOWN = ("label", "what", "percent", "signed")


def about(parts: Parts, turning: Turning | ResidualError, can: dict[str, bool | str]) -> dict[str, Any]:
    """See api/about: names, scores, adapters and what can be done.

    Args:
        parts: of the exploration.
        turning: what turns units, or why none does.
        can: what else can be done, or why not.
    """
    units, store, whole = parts.units, parts.store, isinstance(turning, Turning)
    directions = parts.directions()
    why_not = True if whole else str(turning)
    dictionary = parts.sources.dictionary
    texts = read_texts(dictionary)
    return {
        "version": version_of("residual-vit"),
        "live": True,
        "encoder": {
            "name": store.encoder_name,
            "layers": units.layers,
            "heads": units.heads,
            "output_dim": store.linearization.output_dim,
            "has_text": directions.of_text,
        },
        "stores": [
            {"name": name, "dataset": each.dataset, "samples": len(each)}
            for name, each in zip(_names(parts), parts.stores, strict=True)
        ],
        "classes": list(store.class_names),
        "groups": None if store.groups is None else list(store.group_names),
        "samples": len(store),
        "scores": [
            {"key": key, **{name: getattr(each, name) for name in _SHOWN}}
            for key, each in scores_of(parts).items()
        ],
        "adapters": [
            {
                "key": key,
                "name": key,
                "method": held.adapter.label,
                "parameters": held.adapter.weights.numel(),
            }
            for key, held in parts.adapters.items()
        ],
        "dictionary": {"name": shareable(dictionary, path=True), "texts": len(texts)},
        "examples": examples(texts),
        "can": {"turn": why_not, "save": why_not, **can},
        "baseline": _baseline(parts, turning) if isinstance(turning, Turning) else None,
        "notes": [
            *parts.origin.notes,
            *filter(None, [directions.note, *(held.note for held in parts.adapters.values())]),
        ],
    }


def examples(texts: Sequence[str]) -> list[str]:
    """A few short texts of a dictionary, evenly spread over it: to try."""
    short = [text for text in texts if len(text) <= _SHORT]
    return [short[int((place + 0.5) * len(short) / _EXAMPLES)] for place in range(_EXAMPLES * bool(short))]


def possible(parts: Parts) -> dict[str, bool | str]:
    """Whether there are directions of texts, dropped pictures, maps, and pictures of the store: True, or a
    sentence on why not. No encoder is loaded for that.
    """
    directions, origin, encoder = parts.directions(), parts.origin, ""
    try:
        parts.check_encoder()
    except ResidualError as error:
        encoder = str(error)
    why_not = {
        "text": "" if directions.of_text else directions.note or "This encoder has no text tower.",
        "drop": encoder,
        "map": encoder,
        "pictures": "" if origin.images is not None else " ".join(origin.notes),
    }
    return {what: why or True for what, why in why_not.items()}


def moves(parts: Parts) -> dict[str, Any]:
    """See api/moves: which units are others in the second store.

    Raises:
        ResidualError: there is only one store.
    """
    if len(parts.stores) < 2:
        raise ResidualError("Two stores are compared, and this is one.", "Give the second one after it.")
    columns = [moved(parts)]
    columns += [column(parts, place) for column in (accuracy_alone, dimensions) for place in (0, 1)]
    return {
        "units": [
            {**named(parts, unit), "value": value, "accuracy": [a, b], "dimension": [c, d]}
            for unit, value, a, b, c, d in zip(parts.kept_units, *columns, strict=True)
        ],
        "what": f"How far a unit's components are others in {parts.stores[1].dataset} than in "
        f"{parts.store.dataset}: one less their spectral cosine, of components up to 90 % of its variance. "
        "0: the same.",
    }


def _names(parts: Parts) -> list[str]:
    given = [shareable(place, path=True) for place in parts.sources.stores]
    return given if len(given) == len(parts.stores) else [store.dataset for store in parts.stores]


def _baseline(parts: Parts, turning: Turning) -> dict[str, Any]:
    return measured(parts, parts.labels.numpy(), turning.plain)
