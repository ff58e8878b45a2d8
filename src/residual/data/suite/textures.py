"""`textures`: a close-up of a material in a colour.

A material is a function of plane coordinates `(u, v)` (64, 64), whose unit is one brick, stitch, scale or the
like, and gives brightness, about 0..1. Train and test differ in scale, angle and shade, in ranges that don't
touch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from residual.data.suite import draw
from residual.data.suite.generated import Sample

# hue and saturation of each colour: middle and half width
COLOURS = {
    "red": ((0.0, 0.015), (0.78, 0.1)),
    "yellow": ((0.145, 0.012), (0.8, 0.1)),
    "green": ((0.35, 0.04), (0.65, 0.12)),
    "blue": ((0.61, 0.03), (0.7, 0.12)),
    "purple": ((0.79, 0.025), (0.6, 0.12)),
    "gray": ((0.5, 0.5), (0.03, 0.03)),
}


@dataclass(frozen=True)
class View:
    """How a material is seen: units across the image, degrees, and brightness."""

    units: float
    angle: float
    shade: float


def view(random: draw.Random, split: str) -> View:
    """Train and val: small units, nearly level, light. Test: large units, slanted, darker."""
    if split == "test":
        side = 1 if random.rand() < 0.5 else -1
        return View(random.uniform(2.7, 3.8), side * random.uniform(16, 34), random.uniform(0.6, 0.76))
    return View(random.uniform(4.4, 6.2), random.uniform(-10, 10), random.uniform(0.84, 1.0))


def sources_of_textures(entry: dict[str, Any], split: str) -> list[str]:
    """The material."""
    return [entry["material"]]


def texture(random: draw.Random, sample: Sample) -> np.ndarray:
    """The material's brightness times the colour, unevenly lit."""
    seen = view(random, sample.split)
    turn = np.deg2rad(seen.angle)
    x, y = (draw.X - 0.5) * seen.units, (draw.Y - 0.5) * seen.units
    u = x * np.cos(turn) + y * np.sin(turn) + random.uniform(20, 40)
    v = y * np.cos(turn) - x * np.sin(turn) + random.uniform(20, 40)
    brightness = MATERIALS[sample.source](random, u, v)

    (hue, hue_width), (saturation, saturation_width) = COLOURS[sample.entry["colour"]]
    colour = draw.hsv(
        hue + random.uniform(-1, 1) * hue_width,
        saturation + random.uniform(-1, 1) * saturation_width,
        seen.shade,
    )
    light = 1 + random.uniform(0, 0.2) * (draw.ramp(random) - 0.5)
    canvas = colour * (brightness * light)[..., None].astype(np.float32)
    glare = np.clip(brightness - 0.93, 0, 1)[..., None].astype(np.float32)
    return draw.to_bytes(draw.noisy(random, canvas + 0.8 * glare, random.uniform(0.005, 0.03)))


def _per_cell(random: draw.Random, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """A random number 0..1 for each whole cell (i, j)."""
    return random.rand(64, 64)[i.astype(np.intp) % 64, j.astype(np.intp) % 64]


def _bricks(random: draw.Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    row = np.floor(v * 1.4)
    along = u * 0.7 + 0.5 * (row % 2)
    fu, fv = along % 1, (v * 1.4) % 1
    mortar = (fu < 0.07) | (fv < 0.14)
    brick = (
        0.6 + 0.3 * _per_cell(random, row, np.floor(along)) + 0.12 * (draw.field(random, ((32, 1.0),)) - 0.5)
    )
    return np.where(mortar, 0.3, brick * (1 - 0.25 * (fv < 0.24)))


def _wood(random: draw.Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    plank = np.floor(v * 0.6)
    own = _per_cell(random, plank, plank * 0)
    bend = 0.35 * np.sin(u * 0.6 + 6.3 * own) + 0.5 * (draw.field(random, ((4, 1.0),)) - 0.5)
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * (v * 2.6 + bend * 2 + 3 * own))
    seam = (v * 0.6) % 1 < 0.05
    return np.where(seam, 0.2, 0.58 + 0.22 * grain**2 + 0.2 * own)


def _marble(random: draw.Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    cloud = draw.field(random, ((3, 1.0), (6, 0.6), (12, 0.35), (24, 0.2)))
    vein = 1 - np.abs(np.sin(np.pi * ((u + v) * 0.22 + 3.2 * cloud)))
    fine = 1 - np.abs(np.sin(np.pi * ((u - v) * 0.3 + 4.5 * cloud[::-1])))
    return 0.62 + 0.22 * cloud + 0.42 * vein**5 + 0.2 * fine**8


def _tiles(random: draw.Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    fu, fv = u * 0.8 % 1, v * 0.8 % 1
    edge = np.minimum(np.minimum(fu, 1 - fu), np.minimum(fv, 1 - fv))
    tile = 0.72 + 0.16 * _per_cell(random, np.floor(u * 0.8), np.floor(v * 0.8))
    bevel = np.where(edge < 0.15, np.where((fu + fv < 1), 0.14, -0.12), 0)
    return np.where(edge < 0.055, 0.28, tile + bevel)


def _cloth(random: draw.Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = u * 2.2, v * 2.2
    across = (np.floor(a) + np.floor(b)) % 2 < 0.5
    round_ = np.where(across, np.sin(np.pi * (b % 1)), np.sin(np.pi * (a % 1)))
    along = np.where(across, np.sin(np.pi * (a % 1)), np.sin(np.pi * (b % 1)))
    return 0.3 + np.where(across, 0.55, 0.4) * round_ * (0.55 + 0.45 * along)


def _wool(random: draw.Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = u * 1.1, v * 1.5
    side = np.abs(a % 1 - 0.5) * 2  # 0 in the middle of a stitch, 1 between two columns
    stitch = (b + 0.75 * side) % 1
    yarn = np.sin(np.pi * stitch) ** 0.7 * np.sin(np.pi * np.clip(side * 0.86 + 0.12, 0, 1)) ** 0.6
    return 0.22 + 0.7 * yarn + 0.12 * (draw.field(random, ((40, 1.0),)) - 0.5)


def _scales(random: draw.Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = u, v * 1.5
    shade = np.full_like(a, 0.2)
    for above in (0, 1):  # the row above lies over the row below
        row = np.floor(b) - above
        middle = np.round(a - 0.5 * (row % 2)) + 0.5 * (row % 2)
        distance = np.hypot((a - middle) / 0.53, (b - row) / 1.75)
        scale = 0.98 - 0.45 * distance**2 - 0.3 * (distance > 0.88)
        shade = np.where(distance < 1, scale, shade)
    return shade


def _pebbles(random: draw.Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = u * 1.1, v * 1.1
    jitter = random.rand(3, 64, 64)
    nearest, second = np.full_like(a, 9.0), np.full_like(a, 9.0)
    own = np.zeros_like(a)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            i, j = np.floor(a) + di, np.floor(b) + dj
            at = (i.astype(np.intp) % 64, j.astype(np.intp) % 64)
            distance = np.hypot(i + 0.15 + 0.7 * jitter[0][at] - a, j + 0.15 + 0.7 * jitter[1][at] - b)
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            own = np.where(closer, jitter[2][at], own)
            nearest = np.where(closer, distance, nearest)
    gap = second - nearest
    return np.where(gap < 0.1, 0.16, 0.5 + 0.3 * own + 0.25 * np.clip(gap, 0, 0.6))


def _metal(random: draw.Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    scratches = np.interp((v * 9 + 0.15 * u) % 250, np.arange(256), random.rand(256))
    fine = np.interp((v * 23) % 250, np.arange(256), random.rand(256))
    shine = np.exp(-(((u - u.mean()) / np.ptp(u) * 2.2 + random.uniform(-0.4, 0.4)) ** 2) * 4)
    return 0.46 + 0.16 * scratches + 0.1 * fine + 0.42 * shine


def _zigzags(random: draw.Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    phase = (v * 0.9 + np.abs(u * 0.9 % 1 - 0.5)) % 1
    return np.where(phase < 0.5, 0.92, 0.36)


MATERIALS: dict[str, Callable[[draw.Random, np.ndarray, np.ndarray], np.ndarray]] = {
    "bricks": _bricks,
    "wood": _wood,
    "marble": _marble,
    "tiles": _tiles,
    "cloth": _cloth,
    "wool": _wool,
    "scales": _scales,
    "pebbles": _pebbles,
    "metal": _metal,
    "zigzags": _zigzags,
}
