"""What there is to explore: what the first view shows around the heads."""

from __future__ import annotations

from typing import Any

from residual.errors import ResidualError
from residual.files import shareable
from residual.heads.scores import check_whole
from residual.libraries import version_of
from residual.text.dictionary import read_texts
from residual.workflows.exploration.bounded import tried
from residual.workflows.exploration.parts import Parts
from residual.workflows.exploration.scores import accuracy_alone, dimensions, moved, named, scores_of
from residual.workflows.exploration.turned import measured
from residual.workflows.exploration.turning import Turning

_NEEDED = ("classes", "whole")  # by scores, and told by what else can't be done
_SHOWN = ("label", "what", "percent", "signed")


def about(parts: Parts, turning: Turning | ResidualError) -> dict[str, Any]:
    """See api/about: names, scores, adapters and what can be done.

    Args:
        parts: of the exploration.
        turning: what turns units, or why none does.
    """
    units, store, can = parts.units, parts.store, possible(parts, turning)
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
            "has_text": can["text"] is True,
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
            if each.needs is None or can[each.needs] is True
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
        "can": {what: why for what, why in can.items() if what not in _NEEDED},
        "baseline": _baseline(parts, turning) if isinstance(turning, Turning) else None,
        "notes": [
            *parts.origin.notes,
            *filter(None, [_of_classes(parts), *(held.note for held in parts.adapters.values())]),
        ],
    }


def possible(parts: Parts, turning: Turning | ResidualError) -> dict[str, bool | str]:
    """Whether there are classes, units of all kinds, turned units, directions of texts, dropped pictures,
    maps, and pictures of the store: True, or a sentence on why not.
    """
    directions, origin, encoder = tried(parts.directions), parts.origin, tried(parts.check_encoder)
    classes = directions if isinstance(directions, ResidualError) else None
    of_text = not isinstance(directions, ResidualError) and directions.of_text
    turned = turning if isinstance(turning, ResidualError) else None
    why_not = {
        "classes": classes,
        "whole": tried(lambda: check_whole(parts.store)),
        "turn": turned,
        "save": turned,
        "text": None if of_text else _of_classes(parts),
        "drop": encoder or classes,
        "map": encoder,
        "pictures": None if origin.images is not None else " ".join(origin.notes),
    }
    return {what: True if why is None else str(why) for what, why in why_not.items()}


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


def _of_classes(parts: Parts) -> str | None:
    """What has to be known of the directions of classes."""
    directions = tried(parts.directions)
    if isinstance(directions, ResidualError):
        return f"Nothing tells the classes apart: no text tower is here, nor are there means. {directions}"
    return directions.note


def _names(parts: Parts) -> list[str]:
    given = [shareable(place, path=True) for place in parts.sources.stores]
    return given if len(given) == len(parts.stores) else [store.dataset for store in parts.stores]


def _baseline(parts: Parts, turning: Turning) -> dict[str, Any]:
    return measured(parts, parts.labels.numpy(), turning.plain)
