"""The corpus's drawings that scenes are put together from, found once for each list of pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from .paint import WORDS

Found = TypeVar("Found")


def once(find: Callable[[list], Found]) -> Callable[[list], Found]:
    """Remember what was found in a list, by its identity; the list is kept, so that no other takes it."""
    kept: dict[int, tuple[list, Found]] = {}

    @functools.wraps(find)
    def remembered(pictures: list) -> Found:
        if id(pictures) not in kept:
            kept[id(pictures)] = pictures, find(pictures)
        return kept[id(pictures)][1]

    return remembered


def by_kind(pictures: list, kind: str) -> list:
    return [entry for entry in pictures if entry[0]["kind"] == kind]


@once
def digit_fonts(pictures: list) -> list[dict[str, np.ndarray]]:
    """The fonts that have all ten digits: the coverage of each digit."""
    fonts: dict[str, dict[str, np.ndarray]] = {}
    for record, pixels in by_kind(pictures, "glyph"):
        if record["name"].isdigit():
            fonts.setdefault(record["set"], {})[record["name"]] = pixels[..., 3]
    return [font for font in fonts.values() if len(font) == 10]


@once
def things(pictures: list) -> dict[str, list]:
    """Drawings of simple nouns, by name."""
    found: dict[str, list] = {}
    for record, pixels in by_kind(pictures, "icon"):
        simple = (
            record["name"].isalpha()
            and record["style"] == "emoji"
            and record["group"] not in ("symbols", "people-body", "smileys-emotion", "flags")
        )
        if simple and record["group"]:
            name = WORDS["common_names"].get(record["name"], record["name"])
            found.setdefault(name, []).append(pixels)
    return {name: drawn for name, drawn in sorted(found.items()) if len(drawn) >= 3}


@once
def sign_drawings(pictures: list) -> dict[str, list]:
    """The coverage of drawings that fit on a road sign, by name."""
    found: dict[str, list] = {}
    for record, pixels in by_kind(pictures, "icon"):
        if record["name"] in WORDS["sign_icons"]:
            found.setdefault(record["name"], []).append(pixels[..., 3])
    return found
