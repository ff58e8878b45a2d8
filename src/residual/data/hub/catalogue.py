"""What is known of the paper's datasets: `hub.json`, `templates.json` and the class lists in `classes/`."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


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
def hub_entries() -> dict[str, HubEntry]:
    """Every dataset of the suite by its name, in the order of `hub.json`."""
    entries = {}
    for name, held in _read("hub.json")["datasets"].items():
        group = held.get("group")
        told: dict[str, Any] = held | {
            "elsewhere": tuple(held["elsewhere"]),
            "group": group and Group(group["column"], tuple(group["names"])),
        }
        entries[name] = HubEntry(name=name, **told)
    return entries


@functools.cache
def classes_of(name: str) -> Classes:
    """The class list `name`, as an entry's `classes` names it."""
    held = _read(f"classes/{name}.json")
    spellings = tuple(tuple(spelling) for spelling in held.get("spellings", ()))
    return Classes(tuple(held["classes"]), spellings, held["source"], held["licence"])


def templates_of(name: str) -> tuple[str, ...]:
    """Prompt templates of a dataset of the suite, each with one `{}`."""
    return tuple(_read("templates.json")["datasets"][name]["templates"])


@functools.cache
def _read(file: str) -> Any:
    return json.loads((HERE / file).read_text(encoding="utf-8"))
