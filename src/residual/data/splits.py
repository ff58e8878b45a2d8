"""The parts of a dataset, and how they are made where a source has only some of them.

A source has train, val and test; or train and test, and then val is 20 % of train; or a single part, which is
then divided 60/20/20. What is divided here keeps the classes' proportions and never changes (seed 42).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from residual.errors import ResidualError

SPLITS = ("train", "val", "test")
_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
ALL = ""  # what the single part of a source is called, where it has no name
SHARES = {1: (1.0,), 2: (0.8, 0.2), 3: (0.6, 0.2, 0.2)}  # of so many parts


def split_of_name(name: str) -> str:
    """Which of our splits a name means, in any case; "" of none.

    Example:
        >>> from residual.data.splits import split_of_name
        >>> split_of_name("Valid"), split_of_name("cats")
        ('val', '')
    """
    return next((split for split, names in _NAMES.items() if name.casefold() in names), "")


def divided_part(split: str, given: Mapping[str, object]) -> tuple[str, tuple[str, ...]]:
    """Which of the given parts a split is taken from, and the splits that this part is divided into.

    Args:
        split: "train", "val" or "test".
        given: the source's parts by our names of splits, or a single one, named `ALL`.
    """
    if ALL in given:
        return ALL, SPLITS
    if "val" in given or split == "test":
        return split, (split,)
    return "train", ("train", "val")


def rows_of_parts(
    labels: np.ndarray, parts: Sequence[str], where: str, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Which of the samples `(n,)` of a source's part are of which split, if it is divided into `parts`.

    Args:
        labels: `(n,)`.
        parts: as `divided_part` tells them.
        where: names the source in errors.
        names: of the classes, for errors.

    Raises:
        ResidualError: a class has fewer samples than there are parts.
    """
    if len(parts) == 1:
        return {parts[0]: np.arange(len(labels))}
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count < len(parts):
            name = f"Class {names[label]!r}" if names else f"Class number {label}"
            every = f"{', '.join(parts[:-1])} and {parts[-1]}"
            raise ResidualError(
                f"{name} of {where} has too few images to split: {count}, where {every} need at least "
                f"{len(parts)}. Add images or remove the class, or give every split images of its own."
            )
    return dict(zip(parts, stratified_split(labels, SHARES[len(parts)]), strict=True))


def stratified_split(
    labels: np.ndarray, parts: Sequence[float] = (0.6, 0.2, 0.2), seed: int = 42
) -> list[np.ndarray]:
    """Indices `(n_i,)`, ascending, of each part of a split that keeps the classes' proportions.

    Samples are shuffled inside each class; part borders are rounded so that every class of at least
    `len(parts)` samples is in every part.
    """
    labels = np.asarray(labels)
    random = np.random.RandomState(seed)
    chosen: list[list[np.ndarray]] = [[] for _ in parts]
    by_class = np.argsort(labels, kind="stable")
    _, starts = np.unique(labels[by_class], return_index=True)
    for members in np.split(by_class, starts[1:]) if len(labels) else ():
        members = random.permutation(members)
        n, p = len(members), len(parts)
        borders = [int(np.floor(n * sum(parts[: i + 1]) + 0.5)) for i in range(p - 1)]
        if n >= p:
            for i in range(p - 1):
                least = borders[i - 1] + 1 if i else 1
                borders[i] = min(max(borders[i], least), n - (p - 1 - i))
        for part, piece in zip(chosen, np.split(members, borders), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) if part else np.empty(0, np.int64) for part in chosen]
