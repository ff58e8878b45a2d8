"""Whether scores, labels, adapter and classifier belong together: asked once, before any work."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from residual.adapters.adapter import Adapter
from residual.adapters.scores import Scores
from residual.errors import ResidualError
from residual.text.classifier import ZeroShotClassifier

Labels = Int[np.ndarray, " _"] | Int[Tensor, " _"]

_NAMED = 5  # classes in a message


def check_match(
    adapter: Adapter, scores: Scores, labels: Labels, classifier: ZeroShotClassifier, what: str
) -> Int[Tensor, " n"]:
    """The labels as a tensor beside the scores, once everything belongs together.

    Raises:
        ResidualError: says what doesn't, by name.
    """
    if len(scores) == 0:
        raise ResidualError(f"There are no {what} samples.")
    if len(scores) != len(labels):
        raise ResidualError(f"There are {len(scores)} {what} samples, but {len(labels)} labels.")
    adapter.widened(adapter.weights.detach(), scores.ranks)
    if scores.directions.shape[1] != classifier.dim:
        raise ResidualError(
            f"The {what} scores have width {scores.directions.shape[1]}, the classifier {classifier.dim}."
        )
    origin = adapter.origin
    prints = {"adapter": None if origin is None else origin.fingerprint, "classifier": classifier.fingerprint}
    for name, fingerprint in prints.items():
        if fingerprint not in (None, scores.fingerprint):
            raise ResidualError(
                f"The {what} scores are of another encoder (weights {scores.fingerprint[:8]}) than the "
                f"{name} ({fingerprint[:8]})."
            )
    y = torch.as_tensor(labels).to(scores.scores.device, torch.long)
    if int(y.min()) < 0 or int(y.max()) >= len(classifier):
        raise ResidualError(
            f"The {what} labels go from {int(y.min())} to {int(y.max())}, the classifier has "
            f"{len(classifier)} classes."
        )
    return y


def check_finite(scores: Scores, what: str) -> None:
    """Refuse scores with NaN or infinity in them.

    Raises:
        ResidualError: there are some.
    """
    if not (scores.scores.sum().isfinite() and scores.rest.sum().isfinite()):
        raise ResidualError(f"The {what} scores hold NaN or infinity.")


def check_classes(labels: Int[Tensor, " n"], classifier: ZeroShotClassifier) -> None:
    """Refuse to train where a class has no sample: its weights would only be pushed away from it.

    Raises:
        ResidualError: names the classes.
    """
    counts = torch.bincount(labels, minlength=len(classifier))
    missing = [classifier.class_names[place] for place in (counts == 0).nonzero()[:, 0].tolist()]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ResidualError(
            f"No training samples of {', '.join(missing[:_NAMED])}{more}: add some, make a classifier "
            'without them, or say missing="ignore" in the settings.'
        )


def few_shot(labels: Labels, shots: int, seed: int = 0) -> Int[np.ndarray, " m"]:
    """Positions of `shots` random samples of each class, in order.

    Raises:
        ResidualError: a class has fewer, or `shots` is below 1.
    """
    labels = np.asarray(labels)
    if shots < 1:
        raise ResidualError(f"shots is 1 or more, got {shots}.")
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    chosen = []
    for label in np.unique(labels):
        own = shuffled[labels[shuffled] == label]
        if len(own) < shots:
            raise ResidualError(f"Class {label} has {len(own)} samples, fewer than {shots} shots.")
        chosen.append(own[:shots])
    return np.sort(np.concatenate(chosen))
