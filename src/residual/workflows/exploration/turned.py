"""What a state is worth: accuracy, its interval, the worst group, confusion, what changed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from residual.errors import ResidualError
from residual.intervals import wilson
from residual.workflows.exploration.parts import Parts
from residual.workflows.exploration.states import State
from residual.workflows.exploration.turning import Turning

_CLASSES = 40  # of a confusion matrix that is shown
_CHANGED = 48  # pictures
_GUESSES = 3
_PICTURES = 200  # that are asked for at once

Classes = Int[np.ndarray, " n"]


def turned(parts: Parts, turning: Turning, state: State, pictures: list[int]) -> dict[str, Any]:
    """See api/turn.

    Raises:
        ResidualError: as `Turning.answers`; or a position that isn't in the store.
    """
    start = time.perf_counter()
    count = len(parts.store)
    if len(pictures) > _PICTURES or any(not 0 <= place < count for place in pictures):
        raise ResidualError(
            f"Pictures are at most {_PICTURES} positions from 0 to {count - 1}, got {pictures!r:.80}."
        )
    labels, plain = parts.labels.numpy(), turning.plain
    found = turning.answers(state).numpy()
    changed = np.flatnonzero(found != plain)
    return {
        **measured(parts, labels, found),
        "before": float((plain == labels).mean()),
        "changed": len(changed),
        "per_class": _per_class(labels, found, len(parts.store.class_names)),
        "confusion": confusion(labels, found, len(parts.store.class_names)),
        "predictions": predictions(turning, state, labels, plain, pictures),
        "changed_pictures": changed[:_CHANGED].tolist(),
        "milliseconds": round(1000 * (time.perf_counter() - start), 3),
    }


def measured(parts: Parts, labels: Classes, found: Classes) -> dict[str, Any]:
    """Accuracy, its interval, and the worst group where the dataset has groups."""
    right = found == labels
    accuracy, low, high = wilson(int(right.sum()), len(right))
    worst = None
    groups, names = parts.store.groups, parts.store.group_names
    if groups is not None and len(names):
        there = np.bincount(groups, minlength=len(names))
        shares = np.bincount(groups, right, len(names)) / np.maximum(there, 1)
        shares[there == 0] = np.inf
        worst = {"name": names[int(shares.argmin())], "accuracy": float(shares.min())}
    return {"accuracy": accuracy, "interval": [low, high], "worst_group": worst}


def confusion(labels: Classes, found: Classes, classes: int) -> dict[str, Any]:
    """How often each class is taken for each: of all, or of those that are confused most."""
    shown = np.arange(classes)
    if classes > _CLASSES:
        wrong = found != labels
        errors = np.bincount(labels[wrong], minlength=classes) + np.bincount(found[wrong], minlength=classes)
        shown = np.sort(np.argsort(-errors, kind="stable")[:_CLASSES])
    place = np.full(classes, -1)
    place[shown] = np.arange(len(shown))
    rows, columns = place[labels], place[found]
    both = (rows >= 0) & (columns >= 0)
    counts = np.bincount(rows[both] * len(shown) + columns[both], minlength=len(shown) ** 2)
    return {"classes": shown.tolist(), "counts": counts.reshape(len(shown), -1).tolist()}


def predictions(
    turning: Turning, state: State, labels: Classes, plain: Classes, pictures: list[int]
) -> list[dict[str, Any]]:
    """What some pictures are and were taken for, and the likeliest classes now."""
    if not pictures:
        return []
    classifier = turning.base(state.adapter).classifier
    likely = classifier.logits(turning.outputs(state, pictures)).softmax(1)
    values, classes = torch.topk(likely, min(_GUESSES, likely.shape[1]), dim=1)
    return [
        {
            "position": position,
            "class": int(labels[position]),
            "was": int(plain[position]),
            "now": [
                {"class": guess, "probability": value}
                for guess, value in zip(classes[row].tolist(), values[row].tolist(), strict=True)
            ],
        }
        for row, position in enumerate(pictures)
    ]


def _per_class(labels: Classes, found: Classes, classes: int) -> list[float | None]:
    there = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[found == labels], minlength=classes)
    return [int(own) / int(all_) if all_ else None for own, all_ in zip(right, there, strict=True)]
