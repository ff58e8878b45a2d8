"""Whole groups or styles of a dataset held out for validation, so that what is chosen on val suits pictures
unlike those of training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
from PIL import Image

from residual.data.dataset import ImageDataset
from residual.data.load import load_dataset
from residual.errors import ResidualError

_KEPT, _HELD = "train-without-", "held-out-"  # and a digest: names of splits that are made here


def hold_out(datasets: Mapping[str, ImageDataset], names: Sequence[str]) -> dict[str, ImageDataset]:
    """The splits of a dataset, with every picture of train and val that a name is of in val, others in train.

    Test stays as it is. The two have splits of other names, so that stores of theirs aren't taken for those
    of the usual ones.

    Args:
        datasets: "train", "val" and others.
        names: each of a group (`group_names`), or else a whole sample id, or a pattern of ids, with `*`, `?`
            and `[ab]`: "*/sketch/*" for pictures in folders of that name, "*[[]1].png" for ids that end in
            "[1].png"; none leaves all as it is.

    Raises:
        ResidualError: a name is of no picture of train and val, or of a group that only one of them tells;
            all of them are held out, or a class has no picture of train left.
    """
    if not names:
        return dict(datasets)
    train, val = datasets["train"], datasets["val"]
    held = [np.zeros(len(part), bool) for part in (train, val)]
    for name in names:
        if (name in train.group_names) != (name in val.group_names):
            told, other = (train, val) if name in train.group_names else (val, train)
            raise ResidualError(
                f"{name!r} is a group of {told.full_name}, but {other.full_name} doesn't tell which of its "
                "pictures are of it: give both of them groups."
            )
        found = [_of(part, name) for part in (train, val)]
        if not any(each.any() for each in found):
            groups = ", ".join(map(repr, train.group_names)) or "there are none"
            raise ResidualError(
                f"Nothing of {train.name} can be held out by {name!r}: it is no group ({groups}), and no "
                f"sample's id is like it, such as {train.sample_ids[0]!r}. A pattern is of the whole id: "
                "'*/sketch/*' is every picture in a folder sketch, '[ab]*' what begins with a or b, and "
                "'[[]' stands for a bracket."
            )
        held = [have | more for have, more in zip(held, found, strict=True)]
    if all(each.all() for each in held):
        raise ResidualError(f"Holding out {', '.join(map(repr, names))} leaves no picture of {train.name}.")
    left = set(np.concatenate([train.labels[~held[0]], val.labels[~held[1]]]).tolist())
    if gone := [train.class_names[label] for label in np.unique(train.labels) if label not in left]:
        raise ResidualError(
            f"Holding out {', '.join(map(repr, names))} leaves {train.name} without training pictures of "
            f"{', '.join(map(repr, gone[:5]))}{f' and {len(gone) - 5:,} more classes' if gone[5:] else ''}."
        )
    kept = [part.subset(~own) for part, own in zip((train, val), held, strict=True)]
    tried = [part.subset(own) for part, own in zip((train, val), held, strict=True)]
    ids = "\n".join(sample for part in tried for sample in part.sample_ids)
    digest = hashlib.sha256(ids.encode()).hexdigest()[:16]
    made = {"train": Joined(kept, f"{_KEPT}{digest}"), "val": Joined(tried, f"{_HELD}{digest}")}
    return {**datasets, **made}


def load_split(name: str, split: str) -> ImageDataset:
    """A dataset's split, or all that one which `hold_out` made, as a store names it, is among.

    Raises:
        ResidualError: see `load_dataset`.
    """
    if not split.startswith((_KEPT, _HELD)):
        return load_dataset(name, split)
    return Joined([load_dataset(name, "train"), load_dataset(name, "val")], split)


class Joined(ImageDataset):
    """Parts of one dataset, one after another."""

    def __init__(self, parts: Sequence[ImageDataset], split: str):
        self._parts = [part for part in parts if len(part)]
        self._starts = np.cumsum([0, *map(len, self._parts)])
        first = self._parts[0]
        self.in_order = any(part.in_order for part in parts)
        self.notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
        groups = [part.groups for part in self._parts if part.groups is not None]
        grouped = len(groups) == len(self._parts) and len({part.group_names for part in self._parts}) == 1
        super().__init__(
            first.name,
            split,
            first.class_names,
            first.templates,
            np.concatenate([part.labels for part in self._parts]),
            [sample for part in self._parts for sample in part.sample_ids],
            first.licence,
            np.concatenate(groups) if grouped else None,
            first.group_names if grouped else (),
        )

    def load(self, index: int) -> Image.Image:
        """The part's."""
        part, row = self._place(index)
        return part.load(row)

    def load_with_digest(self, index: int) -> tuple[Image.Image, int]:
        """The part's."""
        part, row = self._place(index)
        return part.load_with_digest(row)

    def digest(self, index: int) -> int:
        """The part's."""
        part, row = self._place(index)
        return part.digest(row)

    def _place(self, index: int) -> tuple[ImageDataset, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part], index - int(self._starts[part])


def _of(dataset: ImageDataset, name: str) -> np.ndarray:
    """Which samples `(n,)` are of a group, or have an id like the name."""
    if dataset.groups is not None and name in dataset.group_names:
        return dataset.groups == dataset.group_names.index(name)
    return np.array([sample == name or fnmatchcase(sample, name) for sample in dataset.sample_ids], bool)
