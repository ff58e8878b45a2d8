"""What is known of the paper's datasets: `hub.json`, `templates.json` and the class lists in `classes/`.

And from a source's classes to ours: the same names in our order, however the source spells and orders them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from residual.data.dataset import DatasetDescription
from residual.errors import ResidualError
from residual.texts import folded

FOLDER = Path(__file__).parent
ODD_SHARE = 0.05  # of the names may be spelt as we don't know, where all others are at their places


@dataclass(frozen=True)
class Group:
    """The column that divides each class into groups, and the names of its values in our order."""

    column: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class HubEntry:
    """A dataset of the paper's suite, and where on the hub it is.

    Args:
        name: ours, as `load_dataset` takes it.
        about: one line.
        repository, config: on the hub.
        image, label: columns of images and labels.
        group: what divides classes into groups, where anything does.
        classes: which of the class lists is its own.
        splits: the source's split behind each of ours, None where we make it from the source's train.
        val_share: of train, that val is; None where no val is made of it.
        rows: samples in each split of the source.
        sizes: samples in each of our splits.
        licence: one line, as far as known.
        elsewhere: other places that have it.
        files: the files of each of the source's splits, where the repository holds more than is wanted.
        folders: where these files are archives of images in class folders: which of the classes' spellings
            the folders are called by.
    """

    name: str
    about: str
    repository: str
    image: str
    label: str
    classes: str
    splits: Mapping[str, str | None]
    rows: Mapping[str, int]
    sizes: Mapping[str, int]
    licence: str
    elsewhere: tuple[str, ...]
    config: str | None = None
    group: Group | None = None
    val_share: float | None = None
    files: Mapping[str, str] | None = None
    folders: int | None = None


@dataclass(frozen=True)
class Classes:
    """Class names of the zero-shot protocol, and how else sources spell them, each list in the same order."""

    names: tuple[str, ...]
    spellings: tuple[tuple[str, ...], ...]
    source: str
    licence: str


@functools.cache
def hub_entries() -> Mapping[str, HubEntry]:
    """Every dataset of the suite by its name, in the order of `hub.json`."""
    entries = {}
    for name, fields in _read("hub.json")["datasets"].items():
        group = fields.get("group")
        converted = {
            "elsewhere": tuple(fields["elsewhere"]),
            "group": group and Group(group["column"], tuple(group["names"])),
        }
        entries[name] = HubEntry(name=name, **fields | converted)
    return MappingProxyType(entries)


def hub_descriptions() -> list[DatasetDescription]:
    """What is known of each dataset of the suite without fetching it."""
    return [
        DatasetDescription(
            entry.name,
            entry.about,
            dict(entry.sizes),
            len(classes_of(entry.classes).names),
            entry.licence,
            f"hub: {entry.repository}",
        )
        for entry in hub_entries().values()
    ]


@functools.cache
def classes_of(name: str) -> Classes:
    """The class list `name`, as an entry's `classes` names it."""
    fields = _read(f"classes/{name}.json")
    spellings = tuple(tuple(spelling) for spelling in fields.get("spellings", ()))
    return Classes(tuple(fields["classes"]), spellings, fields["source"], fields["licence"])


def templates_of(name: str) -> tuple[str, ...]:
    """Prompt templates of a dataset of the suite, each with one `{}`."""
    return tuple(_read("templates.json")["datasets"][name]["templates"])


@functools.cache
def _read(file: str) -> Any:
    return json.loads((FOLDER / file).read_text(encoding="utf-8"))


def plain(name: str) -> str:
    """A class name without what sources write differently: case, spaces, signs, SUN397's `/a/` in front."""
    head, _, tail = folded(name).lstrip("/").partition("/")
    whole = tail if len(head) == 1 and tail else folded(name)
    return "".join(c for c in whole.casefold() if c.isalnum())


def matched(names: Sequence[str], classes: Classes, where: str) -> np.ndarray:
    """Our number `(c,)` of each of a source's classes.

    The source's names are ours in any order and in one of the spellings that we know, or the numbers of the
    classes; where all but a few are at their places, those few are taken for other spellings.

    Raises:
        ResidualError: they aren't; it says which names are on one side only.
    """
    given = [plain(name) for name in names]
    known = [[plain(name) for name in spelling] for spelling in (classes.names, *classes.spellings)]
    in_place = np.arange(len(given))
    for ours in known:
        if len(set(ours)) == len(ours) == len(given) and set(ours) == set(given):
            number = {name: index for index, name in enumerate(ours)}
            return np.array([number[name] for name in given])
    if len(given) == len(classes.names) and given == [str(index) for index in in_place]:
        return in_place
    for ours in known:
        if len(ours) != len(given):
            continue
        odd = [index for index in in_place if ours[index] != given[index]]
        elsewhere = set(ours).intersection(given[index] for index in odd)
        if len(odd) <= ODD_SHARE * len(given) and not elsewhere:
            return in_place
    nearest = max(known, key=lambda ours: len(set(ours) & set(given)))
    theirs = [name for name in names if plain(name) not in nearest]
    missing = [classes.names[index] for index, name in enumerate(nearest) if name not in given]
    raise ResidualError(
        f"{where} has other classes than ours ({len(names)} there, {len(classes.names)} here): only there "
        f"{_few(theirs)}; only here {_few(missing)}. Load it as hf:REPOSITORY to use its own."
    )


def _few(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
