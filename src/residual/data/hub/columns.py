"""Which columns of a table are its images and its labels, and the labels as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from residual.data.dataset import MOST_CLASSES
from residual.data.hub.fetch import library
from residual.data.hub.tables import Split
from residual.errors import ResidualError, UnclearColumnError
from residual.texts import distinct, folded, why_no_name

IMAGES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
LABELS = ("label", "labels", "class", "target", "fine_label", "cls", "category")


def image_column(features: Mapping[str, Any], asked: str | None, where: str) -> str:
    """The column of images: the one asked for, or the one of images (by type, then by name).

    Tables that other programs write have what this library keeps of images, but not that they are images:
    a pair of `bytes` and `path`, or bytes alone, which only a column's name tells to be images.

    Raises:
        UnclearColumnError: there is none, or there are several; it lists the columns.
        ResidualError: the one asked for isn't there or isn't of that kind.
    """
    datasets = library(where)

    def encoded(kind: Any, *types: str) -> bool:
        return isinstance(kind, datasets.Value) and kind.dtype in types

    def is_pair(kind: Any) -> bool:
        return isinstance(kind, dict) and set(kind) == {"bytes", "path"}

    if asked is None:
        images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
        pairs = [name for name, kind in features.items() if is_pair(kind)]
        plain = [name for name, kind in features.items() if encoded(kind, "binary", "large_binary")]
        found = images or pairs or [name for name in plain if name.lower() in IMAGES]
        return _only("image", found, IMAGES, features, where)
    kind = _asked(features, asked, where)
    cells = is_pair(kind) or encoded(kind, "string", "binary", "large_binary")
    if not cells and not isinstance(kind, datasets.Image):
        raise ResidualError(f"{where}: column {asked!r} holds no images. Columns: {_listed(features)}.")
    return asked


def label_column(features: Mapping[str, Any], asked: str | None, where: str) -> str:
    """The column of labels: the one asked for, else the `ClassLabel` one, else one with such a name.

    Raises:
        UnclearColumnError: there is none, or there are several; it lists the columns.
        ResidualError: the one asked for isn't there or isn't of that kind.
    """
    datasets = library(where)

    def by_type(kind: Any) -> bool:
        return isinstance(kind, datasets.ClassLabel)

    def usable(kind: Any) -> bool:
        plain = isinstance(kind, datasets.Value) and (
            kind.dtype in ("string", "large_string", "bool") or "int" in kind.dtype
        )
        return plain or by_type(kind)

    if asked is None:
        named = [name for name, kind in features.items() if by_type(kind)] or [
            name for name, kind in features.items() if usable(kind) and name.lower() in LABELS
        ]
        return _only("label", named, LABELS, features, where)
    if not usable(_asked(features, asked, where)):
        raise ResidualError(
            f"{where}: column {asked!r} holds no labels: one whole number or name a sample is wanted. "
            f"Columns: {_listed(features)}."
        )
    return asked


def check_apart(tables: Mapping[str, Split], column: str, where: str) -> None:
    """Refuse splits that have a file in common: the library finds splits by the names of folders at any
    depth, so that pictures in `test/train/` are in both.

    Raises:
        ResidualError: they have; only files that cells name are compared.
    """
    found: dict[str, str] = {}
    for split, table in tables.items():
        if not table.is_here:  # its files are of a split of its own, and hold its pictures
            continue
        for cells in table.cells(column).chunks:
            kind = cells.type
            if not {"bytes", "path"} <= {kind.field(number).name for number in range(kind.num_fields)}:
                return
            named = cells.field("path").filter(cells.field("bytes").is_null()).drop_null()
            for path in named.to_pylist():
                if found.setdefault(path, split) != split:
                    raise ResidualError(
                        f"{where}: {'/'.join(Path(path).parts[-3:])!r} and others are in its "
                        f"{found[path]!r} and in its {split!r}; a folder there seems to be called as a "
                        "split. Load it as folder:."
                    )


def with_labels(tables: Mapping[str, Split], column: str) -> dict[str, Split]:
    """The splits with labels: where those of a test are kept secret, every row of it has -1 or nothing."""
    labelled = {name: split for name, split in tables.items() if split.is_labelled(column)}
    return labelled or dict(tables)


def names_classes(features: Mapping[str, Any], column: str) -> bool:
    """Whether a column tells its classes by itself, so that no other split's labels are needed for them."""
    return getattr(features[column], "names", None) is not None


def read_labels(
    tables: Mapping[str, Split], column: str, where: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """The labels `(n,)` of each split, and the classes' names where the source has any.

    Names of a `ClassLabel` keep their order; names in the cells themselves are sorted, and those that
    look the same are one; whole numbers have none.

    Raises:
        ResidualError: a sample has no label, or one that is no class, or splits disagree on the classes.
    """
    datasets = library(where)
    kinds = {split: table.features[column] for split, table in tables.items()}
    cells = {split: table.cells(column) for split, table in tables.items()}
    for split, cell in cells.items():
        if cell.null_count:
            row = int(np.flatnonzero(cell.is_null().to_numpy(zero_copy_only=False))[0])
            raise ResidualError(f"{where}: sample {row} of its {split!r} has no label in column {column!r}.")
    first = next(iter(kinds.values()))
    if any(str(kind) != str(first) for kind in kinds.values()):
        raise ResidualError(f"{where}: its splits {_quoted(kinds)} have other classes in column {column!r}.")
    if isinstance(first, datasets.Value) and "string" in first.dtype:
        texts = {split: cell.to_pylist() for split, cell in cells.items()}
        written = set().union(*texts.values())
        names = distinct(" ".join(text.split()) for text in written)
        number = {folded(name): index for index, name in enumerate(names)}
        number = {text: number[folded(text)] for text in written}
        labels = {s: np.array([number[t] for t in text], np.int64) for s, text in texts.items()}
        return labels, _readable(names, labels, column, where)
    labels = {split: cell.to_numpy().astype(np.int64) for split, cell in cells.items()}
    if getattr(first, "names_file", None):
        raise ResidualError(f"{where}: the class names of column {column!r} are in another file.")
    names = tuple(map(str, first.names)) if isinstance(first, datasets.ClassLabel) else None
    for split, numbers in labels.items():
        most = MOST_CLASSES if names is None else len(names)
        odd = np.flatnonzero((numbers < 0) | (numbers >= most))
        if odd.size and names is None and numbers[odd[0]] >= most:
            raise ResidualError(
                f"{where}: label {numbers[odd[0]]} in column {column!r} is too large for a class number from "
                f"0 on (at most {MOST_CLASSES - 1:,}). Number the classes anew, or give their names instead."
            )
        if odd.size:
            label = numbers[odd[0]]
            raise ResidualError(
                f"{where}: {odd.size:,} samples of its {split!r} have no class: {column!r} of sample "
                f"{odd[0]} is {label}. Labels that are kept secret can't be tested on."
            )
    return labels, None if names is None else _readable(names, labels, column, where)


def _readable(
    names: Sequence[str], labels: Mapping[str, np.ndarray], column: str, where: str
) -> tuple[str, ...]:
    """Names of classes with single spaces; an empty one without samples is its number.

    Raises:
        ResidualError: one is empty or no text, or looks like another.
    """
    seen: dict[str, str] = {}
    used = set(np.concatenate(list(labels.values())).tolist())
    for number, text in enumerate(names):
        name = " ".join(text.split()) or ("" if number in used else f"class {number}")
        why = why_no_name(name)
        if not why and (other := seen.get(folded(name))):
            why = f"(in signs {name!a}) looks like {other!a}"
        if why:
            raise ResidualError(
                f"{where}: the name {text!r} of class {number} in column {column!r} {why}.",
                f"Name its classes anew: table.cast_column({column!r}, ClassLabel(names=[...])), or "
                "table.map where its cells are texts.",
            )
        seen[folded(name)] = name
    return tuple(seen.values())


def _asked(features: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in features:
        raise ResidualError(f"{where} has no column {name!r}. Columns: {_listed(features)}.")
    return features[name]


def _only(kind: str, found: list[str], known: Sequence[str], features: Mapping[str, Any], where: str) -> str:
    few = found if len(found) == 1 else [name for name in found if name.lower() in known]
    if len(few) == 1:
        return few[0]
    many = f"several columns of {kind}s ({_quoted(found)})" if found else f"no column of {kind}s"
    raise UnclearColumnError(f"{where} has {many}. Columns: {_listed(features)}.", f"{kind}_column")


def _listed(features: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} ({getattr(kind, 'dtype', None) or type(kind).__name__})" for name, kind in features.items()
    )


def _quoted(names: Any) -> str:
    return ", ".join(map(repr, names))
