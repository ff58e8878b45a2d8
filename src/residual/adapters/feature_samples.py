"""Rows of features and their labels, of whatever kind, as tensors: checked, numbered, split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from residual.data.dataset import digest64
from residual.data.splits import SHARES, stratified_split
from residual.errors import ResidualError
from residual.finite import check_finite, plain
from residual.store.shared import Seen, check_apart, warn_of_shared

Features = Float[np.ndarray, "_ _"] | Float[Tensor, "_ _"]


class Labelled(NamedTuple):
    """Features and class numbers."""

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]

    def take(self, rows: np.ndarray) -> Labelled:
        """Some of the samples."""
        at = torch.from_numpy(rows)
        return Labelled(self.features[at], self.labels[at])

    @property
    def seen(self) -> Seen:
        """What the samples are known by: their features."""
        return Seen(
            "your own features",
            np.array([digest64(row.tobytes()) for row in self.features.numpy()], np.uint64),
        )


def as_features(values: Any, what: str = "Features") -> Float[Tensor, "n d"]:
    """Rows of numbers on the CPU, in float32 or float64.

    Raises:
        ResidualError: they are no table of finite fractions.
    """
    what = what[0].upper() + what[1:]
    if not isinstance(values, np.ndarray | Tensor):
        values = np.asarray(values)
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiu":
            raise ResidualError(f"{what} are numbers (n, d), got {values.dtype}.")
        values = torch.tensor(values.astype(np.float64) if values.dtype.kind != "f" else values)
    if values.ndim != 2 or not values.numel():
        hint = "One row of numbers a sample: features.reshape(len(features), -1)." if values.numel() else ""
        raise ResidualError(f"{what} are numbers (n, d), got the shape {tuple(values.shape)}.", hint)
    wide = values.detach().to("cpu", torch.promote_types(values.dtype, torch.float32))
    return check_finite(wide, what)


def listed(labels: Iterable[Any]) -> list[Any]:
    """Labels as plain numbers or texts, one a sample.

    Raises:
        ResidualError: one is a row of several, or missing.
    """
    found = [plain(one) for one in plain(labels)]
    for place, one in enumerate(found):
        if isinstance(one, list | tuple):
            hint = "Of one-hot rows take the column of the 1: labels.argmax(1)."
            raise ResidualError(f"The label of sample {place} is a row of {len(one)}; each has one.", hint)
        if one is None or one != one:
            raise ResidualError(f"The label of sample {place} is missing.")
    return found


def classes_of(labels: Sequence[Any], names: Sequence[str] | None, embeddings: Tensor | None) -> list[Any]:
    """What labels there are, in the order of class numbers.

    Raises:
        ResidualError: a single one; texts and numbers; or embeddings of which it isn't known whose they are.
    """
    numbers = all(isinstance(one, int) for one in labels)
    if names is not None:
        classes: list[Any] = list(range(len(names))) if numbers else list(names)
    elif embeddings is not None and numbers:
        classes = list(range(len(embeddings)))
    elif embeddings is not None:
        raise ResidualError("class_embeddings need class_names in their order, where labels are no numbers.")
    else:
        try:
            classes = sorted(set(labels))
        except TypeError as error:
            raise ResidualError("Labels are all texts or all numbers, got both.") from error
    if embeddings is not None and len(embeddings) != len(classes):
        raise ResidualError(f"{len(classes)} classes need as many class_embeddings, got {len(embeddings)}.")
    if len(classes) < 2:
        raise ResidualError(f"All labels are of one class ({classes[0]!r}): telling apart needs two classes."
                            if classes else "There are no labels, so no class.")  # fmt: skip
    return classes


def as_labelled(features: Any, labels: Iterable[Any], classes: Sequence[Any], what: str) -> Labelled:
    """Features with class numbers.

    Raises:
        ResidualError: not one label a row, or one that is no class.
    """
    rows, each = as_features(features, f"{what} features"), listed(labels)
    if len(each) != len(rows):
        raise ResidualError(f"{len(rows)} rows of {what} features have {len(each)} labels; each row has one.")
    number = {label: place for place, label in enumerate(classes)}
    if unknown := [label for label in dict.fromkeys(each) if label not in number]:
        few = ", ".join(map(repr, classes[:5])) + (", …" if classes[5:] else "")
        raise ResidualError(f"The {what} label {unknown[0]!r} is none of the {len(classes)} classes: {few}.")
    return Labelled(rows, torch.tensor([number[label] for label in each]))


def parted(whole: Labelled, given: list[Labelled], has_val: bool, has_test: bool) -> list[Labelled]:
    """Train, val and test: what isn't given is split off the whole.

    Raises:
        SharedSamplesError: more than a tenth of the given test samples are in train or val, too.
        ResidualError: of another width, or too few.
    """
    width = whole.features.shape[1]
    for part in given:
        if part.features.shape[1] != width:
            raise ResidualError(f"Features have width {width} and {part.features.shape[1]}: one is needed.")
    rows = stratified_split(whole.labels.numpy(), SHARES[3 - len(given)])
    made = [whole.take(own) for own in rows]
    parts = [made.pop(0), given.pop(0) if has_val else made.pop(0), given.pop(0) if has_test else made.pop(0)]
    for what, part in zip(("training", "validation", "test"), parts, strict=True):
        if not len(part.labels):
            raise ResidualError(
                f"{len(whole.labels)} samples are too few to be split: none is left for the {what} part.",
                "Give val=(features, labels) and test=(features, labels), or more samples.",
            )
    train, chosen, tested = (part.seen for part in parts)
    if has_val:
        warn_of_shared(train, chosen, "weights are fitted on", "the epoch is chosen by what was fitted")
    if has_test:
        check_apart(train, tested, "maps are fitted on")
        check_apart(chosen, tested, "epochs are chosen by")
    return parts
