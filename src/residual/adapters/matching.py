"""Whether samples, adapter and classifier belong together: asked once, before any work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from residual.adapters.adapter import Adapter
from residual.adapters.fit_settings import FitSettings, TrainSettings
from residual.adapters.scores import Scores
from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.errors import MissingClassError, ResidualError
from residual.files import shareable
from residual.store.base import Store
from residual.text.classifier import ZeroShotClassifier

Labels = Int[np.ndarray, " _"] | Int[Tensor, " _"]

_NAMED = 5  # classes in a message
_SAME_TEXTS = (
    "Make it of the encoder that the samples are of. Of texts it is the same for what keep, without or an "
    "adapter made of an encoder."
)


def check_match(adapter: Adapter, samples: Store | Scores, classifier: ZeroShotClassifier, what: str) -> None:
    """Refuse samples that don't belong to the adapter and to the classifier.

    Raises:
        ResidualError: says what doesn't, by name.
    """
    if len(samples) == 0:
        raise ResidualError(f"There are no {what} samples.")
    if isinstance(samples, Scores):
        adapter.widened(adapter.weights.detach(), samples.ranks)
        dim = samples.directions.shape[1]
    else:
        dim = samples.linearization.output_dim
    if dim != classifier.dim:
        raise ResidualError(f"The {what} samples have width {dim}, the classifier {classifier.dim}.")
    origin = adapter.origin
    prints = {"adapter": None if origin is None else origin.fingerprint, "classifier": classifier.fingerprint}
    for name, fingerprint in prints.items():
        if fingerprint not in (None, samples.fingerprint):
            raise ResidualError(
                f"The {what} samples are of another encoder (weights {samples.fingerprint[:8]}) than the "
                f"{name} ({fingerprint[:8]}).",
                _SAME_TEXTS if name == "classifier" else "",
            )
    check_labels(samples.labels, classifier, what)
    if not isinstance(samples, Scores):
        _check_numbering(samples.class_names, classifier.class_names, what)


def _check_numbering(names: Sequence[str], wanted: Sequence[str], what: str) -> None:
    """Refuse classes that have another number in the classifier; other names for them may be given there.

    Raises:
        ResidualError: names the first.
    """
    if len(set(wanted)) < len(wanted):
        return
    for number, name in enumerate(names):
        if name in wanted and wanted.index(name) != number:
            raise ResidualError(
                f"The {what} samples have {name!r} as class {number}, the classifier as class "
                f"{wanted.index(name)}.",
                "Number both alike: class_names=... when the pictures are encoded.",
            )


def check_labels(labels: Labels, classifier: ZeroShotClassifier, what: str) -> None:
    """Refuse labels that aren't numbers of the classifier's classes.

    Raises:
        ResidualError: says how far they go.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classifier):
        raise ResidualError(
            f"The {what} labels go from {low} to {high}, the classifier has {len(classifier)} classes."
        )


def check_classes(labels: Labels, class_names: Sequence[str]) -> None:
    """Refuse to train where a class has no sample: its weights would only be pushed away from it.

    Raises:
        MissingClassError: names the classes.
    """
    counts = torch.bincount(torch.as_tensor(labels), minlength=len(class_names))
    missing = [class_names[place] for place in (counts == 0).nonzero()[:, 0].tolist()]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise MissingClassError(f"No training samples of {', '.join(missing[:_NAMED])}{more}.")


def check_every_class(
    encoder: Encoder, train: ImageDataset, limit: int, fits: Sequence[FitSettings | TrainSettings] = ()
) -> None:
    """Find out before the long work whether every class has a picture that it needs: for its mean, where the
    encoder has no text tower, and to be fitted on.

    Args:
        encoder: of the classifier.
        train: what is left of the train part.
        limit: that it was cut to; 0 for none.
        fits: what is fitted on it.

    Raises:
        ResidualError: some class has none.
    """
    some, every = np.unique(train.labels), len(train.class_names)
    fitted = any(each.missing == "raise" for each in fits)
    if (fitted or not encoder.has_text) and len(some) < every and len(train) == limit < every:
        why = "methods are fitted on pictures of each"
        if not encoder.has_text:
            no_text = f"{shareable(encoder.name)}, which has no text,"
            why = f"{no_text} tells them apart by the means of their pictures"
        raise ResidualError(
            f"{shareable(train.name)} has {every} classes, and {why}: of {limit} pictures some have none. "
            f"The smallest limit that works is {every}."
        )
    if fitted:
        check_classes(train.labels, train.class_names)


def few_shot(labels: Labels, shots: int, seed: int = 0) -> Int[np.ndarray, " m"]:
    """Positions of `shots` random samples of each class, in order.

    Raises:
        ResidualError: a class has fewer, or `shots` is below 1.
    """
    labels = np.asarray(labels)
    if shots < 1 or labels.ndim != 1 or not len(labels):
        raise ResidualError(
            f"shots is 1 or more, of labels in a row, one at least; got {shots} of the shape {labels.shape}."
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    together = shuffled[np.argsort(labels[shuffled], kind="stable")]  # class by class
    known, starts, counts = np.unique(labels[together], return_index=True, return_counts=True)
    if (few := counts < shots).any():
        label, count = known[few][0], counts[few][0]
        raise ResidualError(f"Class {label} has {count} samples, fewer than {shots} shots.")
    return np.sort(together[starts[:, None] + np.arange(shots)].flatten())
