"""What datasets of other libraries tell of themselves without reading a picture: labels, classes, ids.

torchvision's list their labels as `targets` or `labels` and their classes as `classes`; torch's `Subset` and
`ConcatDataset` are looked through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from residual.data.hub.columns import IMAGES, LABELS
from residual.errors import ResidualError, UnclearColumnError
from residual.finite import plain

_PIXELS = ("pixel_values", "pixels")
_LISTS = ("targets", "labels", "_labels")  # where torchvision's datasets have their labels


@dataclass(frozen=True)
class Known:
    """Labels, class names and ids, one a sample; None where they aren't told."""

    labels: Sequence[Any] | None
    names: tuple[str, ...] | None
    ids: tuple[str, ...] | None


def known_of(data: Any) -> Known:
    """What a dataset says, itself or through the dataset that it is a part of.

    Raises:
        ResidualError: parts that are joined have other classes than each other; or a `Subset` has a sample
            that isn't there.
    """
    if isinstance(data, Subset):
        whole, at, size = known_of(data.dataset), [int(index) for index in data.indices], len(data.dataset)
        if wrong := [index for index in at if not -size <= index < size]:
            raise ResidualError(f"A Subset names sample {wrong[0]} of a dataset that has {size}.")
        labels = None if whole.labels is None else [whole.labels[index] for index in at]
        ids = whole.ids or tuple(f"{index:06d}" for index in range(size))
        return Known(labels, whole.names, tuple(ids[index] for index in at))
    if isinstance(data, ConcatDataset):
        return _joined([known_of(part) for part in data.datasets], [len(part) for part in data.datasets])
    labels = next((found for name in _LISTS if (found := _listed(data, name)) is not None), None)
    names, transform = _names(data), getattr(data, "target_transform", None)
    if callable(transform):  # the classes are those of before
        labels = None if labels is None else [plain(transform(label)) for label in labels]
        names = None
    return Known(labels, names, _ids(data))


def parted(sample: Any, columns: tuple[str | None, str | None], labelled: bool) -> tuple[Any, Any]:
    """A sample as its picture and its label, which is None where there is none.

    Args:
        sample: a picture, `(picture, label)` or a dictionary.
        columns: keys of a dictionary; None for the usual ones.
        labelled: whether the label counts, so that it has to be clear.

    Raises:
        ResidualError: a pair has more than two parts, of which the label can't be told, or a dictionary has
            no picture or several.
    """
    if isinstance(sample, Mapping):
        image = _key(sample, columns[0], (*IMAGES, *_PIXELS), "image")
        label = _key(sample, columns[1], LABELS, "label", needed=columns[1] is not None) if labelled else None
        return sample[image], None if label is None else sample[label]
    if not isinstance(sample, tuple | list):
        return sample, None
    if labelled and len(sample) > 2:
        raise ResidualError(
            f"Samples are (picture, label), got {len(sample)} parts "
            f"({', '.join(type(part).__name__ for part in sample)}).",
            "Give the labels apart, labels=[...]: then the first part is the picture.",
        )
    if not sample:
        raise ResidualError("Samples are (picture, label), got an empty one.")
    return sample[0], sample[1] if len(sample) > 1 else None


def _key(sample: Mapping[str, Any], asked: str | None, usual: Sequence[str], kind: str, needed: bool = True):
    if asked is not None:
        if asked not in sample:
            raise ResidualError(f"Samples have no {asked!r}, only {', '.join(map(repr, sample))}.")
        return asked
    found = [key for key in sample if str(key).lower() in usual]
    if len(found) == 1:
        return found[0]
    if not found and not needed:
        return None
    many = f"several that may be the {kind} ({', '.join(map(repr, found))})" if found else f"no {kind}"
    raise UnclearColumnError(
        f"Samples are dictionaries with {many}: {', '.join(map(repr, sample))}.", f"{kind}_column"
    )


def _joined(parts: Sequence[Known], sizes: Sequence[int]) -> Known:
    names = {part.names for part in parts}
    if len(names) > 1:
        shown = "; ".join("none" if each is None else ", ".join(each[:4]) for each in names)
        raise ResidualError(
            f"The datasets that are joined have other classes than each other ({shown}).",
            "Join those of the same classes in the same order, or encode each by itself.",
        )
    labels = None
    if all(part.labels is not None for part in parts):
        labels = [label for part in parts for label in part.labels or ()]
    ids = [
        part.ids or tuple(f"{index:06d}" for index in range(size))
        for part, size in zip(parts, sizes, strict=True)
    ]
    flat = [sample for part in ids for sample in part]
    if any(count > 1 for count in Counter(flat).values()):
        flat = [f"{number}/{sample}" for number, part in enumerate(ids) for sample in part]
    return Known(labels, next(iter(names)), tuple(flat))


def _listed(data: Any, name: str) -> list[Any] | None:
    values = plain(getattr(data, name, None))
    if not isinstance(values, list | tuple) or len(values) != len(data):
        return None
    return [plain(value) for value in values]


def _names(data: Any) -> tuple[str, ...] | None:
    """Of the classes, in the order of their numbers: `classes`, unless `class_to_idx` says otherwise."""
    names, numbers = getattr(data, "classes", None), getattr(data, "class_to_idx", None)
    if isinstance(numbers, Mapping) and sorted(numbers.values()) == list(range(len(numbers))):
        by_number = sorted(numbers, key=lambda name: numbers[name])
        if not isinstance(names, list | tuple) or len(names) == len(by_number):
            names = by_number
    if not isinstance(names, list | tuple) or not names:
        return None
    first = [name[0] if isinstance(name, tuple) and name else name for name in names]  # ImageNet's synonyms
    return tuple(first) if all(isinstance(name, str) for name in first) else None


def _ids(data: Any) -> tuple[str, ...] | None:
    """Files' names inside the dataset's folder, where it lists them; the path on this machine is no part."""
    files, root = getattr(data, "samples", None), getattr(data, "root", None)
    if not isinstance(files, list) or len(files) != len(data) or not isinstance(root, str | Path):
        return None
    try:
        ids = tuple(Path(file).relative_to(root).as_posix() for file, *_ in files)
    except (TypeError, ValueError):
        return None
    return ids if len(set(ids)) == len(ids) else None
