"""Procedural scenes: pen-stroke digits, rows of digits, textures, shapes, counted things, road signs.

Each is drawn from its own seed, so a corpus of scenes is the same on every machine. Nothing here is shared
with the generators of the offline suite: Picto meets those for the first time when it is tested.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .digits import digit_row, pen_digit
from .paint import Made
from .shapes import count, shape
from .signs import sign
from .textures import texture

__all__ = ["MAKERS", "make"]

# Who draws each kind, and how many are made for a training. The order of the kinds is part of every seed.
MAKERS: dict[str, tuple[Callable[[np.random.Generator, list], Made], int]] = {
    "pen": (pen_digit, 24_000),
    "row": (digit_row, 20_000),
    "texture": (texture, 20_000),
    "shape": (shape, 12_000),
    "count": (count, 24_000),
    "sign": (sign, 14_000),
}


def make(which: str, index: int, pictures: list) -> Made:
    """Scene `index` of a kind; the same everywhere."""
    return MAKERS[which][0](np.random.default_rng([list(MAKERS).index(which), index, 20261124]), pictures)
