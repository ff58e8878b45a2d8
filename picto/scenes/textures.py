"""Textures: eighteen materials and patterns, each in any colour, turned and scaled.

A painter gets the coordinates of the pixels in units of one repeat, `u` and `v` (64, 64), and returns
brightness 0…1 (64, 64) and where the pattern's other part is (64, 64 booleans), or None where it has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .paint import COLOURS, SIZE, WORDS, Made, fractal, near, pick, smooth_noise


def grid(angle: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels, turned and scaled; one unit is one repeat of a pattern."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] - SIZE / 2
    c, s = math.cos(angle), math.sin(angle)
    return (x * c + y * s) / scale, (y * c - x * s) / scale


def _bricks(rng, u, v):
    row = np.floor(v)
    x = u / 2 + 0.5 * (row % 2)
    mortar = ((v % 1) < 0.14) | ((x % 1) < 0.07)
    tone = np.sin(row * 12.9 + np.floor(x) * 78.2) * 0.12
    return np.where(mortar, 0.9, 0.35 + tone), mortar


def _tiles(rng, u, v):
    gap = ((u % 1) < 0.08) | ((v % 1) < 0.08)
    return np.where(gap, 0.15, 0.6), gap


def _checks(rng, u, v):
    odd = (np.floor(u) + np.floor(v)) % 2
    return 0.2 + 0.65 * odd, odd > 0.5


def _stripes(rng, u, v):
    on = (u % 1) < rng.uniform(0.3, 0.7)
    return np.where(on, 0.3, 0.8), ~on


def _dots(rng, u, v):
    on = ((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2) < rng.uniform(0.04, 0.11)
    return np.where(on, 0.35, 0.85), ~on


def _zigzag(rng, u, v):
    on = ((v + np.abs(u % 1 - 0.5)) % 1) < 0.5
    return np.where(on, 0.3, 0.8), ~on


def _waves(rng, u, v):
    return 0.5 + 0.4 * np.sin(2 * np.pi * (v + 0.3 * np.sin(2 * np.pi * u * 0.5))), None


def _wood(rng, u, v):
    warp = fractal(rng, SIZE, 2) * 2
    return 0.5 + 0.22 * np.sin(2 * np.pi * (v * 1.2 + warp + 0.1 * u)) + rng.normal(0, 0.04, u.shape), None


def _marble(rng, u, v):
    vein = np.abs(np.sin(2 * np.pi * (0.25 * u + 1.6 * fractal(rng, SIZE, 3, 5))))
    return 0.45 + 0.5 * vein**0.4, None


def _grass(rng, u, v):
    blades = rng.random((SIZE, SIZE))
    lean = rng.integers(-1, 2)
    long = sum(np.roll(np.roll(blades, k, 0), lean * (k // 3), 1) for k in range(7)) / 7
    return 0.5 + (long - 0.5) * 2.2, None


def _gravel(rng, u, v):
    points = rng.random((int(rng.integers(40, 160)), 2)) * SIZE
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    apart = (x[..., None] - points[:, 0].astype(np.float32)) ** 2 + (
        y[..., None] - points[:, 1].astype(np.float32)
    ) ** 2
    near2 = np.partition(apart, 1, -1)[..., :2]
    edge = np.sqrt(near2[..., 1]) - np.sqrt(near2[..., 0])
    return 0.25 + 0.6 * np.clip(edge / 4, 0, 1), None


def _clouds(rng, u, v):
    return 0.2 + 0.8 * fractal(rng, SIZE, 2, 4), None


def _weave(rng, u, v):
    over = (np.floor(u) + np.floor(v)) % 2 > 0.5
    return np.where(over, 0.4 + 0.4 * np.sin(np.pi * (u % 1)), 0.4 + 0.4 * np.sin(np.pi * (v % 1))), None


def _knit(rng, u, v):
    arm = np.abs(u % 1 - 0.5)
    return 0.35 + 0.5 * np.abs(np.sin(np.pi * (v * 1.2 + arm * 1.6))) * (0.6 + arm), None


def _sand(rng, u, v):
    return 0.6 + rng.normal(0, 0.14, u.shape), None


def _scales(rng, u, v):
    row = np.floor(v)
    x, y = (u + 0.5 * (row % 2)) % 1 - 0.5, v % 1
    return 0.3 + 0.6 * np.clip(np.hypot(x, y), 0, 1), None


def _hexagons(rng, u, v):
    def cell(a, b):
        a, b = a % 1 - 0.5, b % math.sqrt(3) - math.sqrt(3) / 2
        return np.maximum(np.abs(a), np.abs(a) / 2 + np.abs(b) * math.sqrt(3) / 2)

    edge = np.minimum(cell(u, v), cell(u + 0.5, v + math.sqrt(3) / 2))
    return np.where(edge > 0.43, 0.15, 0.65), edge > 0.43


def _crosshatch(rng, u, v):
    on = ((u % 1) < 0.2) | ((v % 1) < 0.2)
    return np.where(on, 0.3, 0.85), ~on


PAINTERS: dict[str, Callable] = {
    "bricks": _bricks,
    "tiles": _tiles,
    "checks": _checks,
    "stripes": _stripes,
    "dots": _dots,
    "zigzag": _zigzag,
    "waves": _waves,
    "wood": _wood,
    "marble": _marble,
    "grass": _grass,
    "gravel": _gravel,
    "clouds": _clouds,
    "weave": _weave,
    "knit": _knit,
    "sand": _sand,
    "scales": _scales,
    "hexagons": _hexagons,
    "crosshatch": _crosshatch,
}
TEXTURES = [(PAINTERS[name], called) for name, called in WORDS["textures"].items()]


def texture(rng: np.random.Generator, pictures: list) -> Made:
    paint, names = pick(rng, TEXTURES)
    colour = pick(rng, list(COLOURS))
    u, v = grid(
        rng.uniform(0, 2 * math.pi) if rng.random() < 0.3 else rng.normal(0, 0.12), rng.uniform(5, 24)
    )
    value, second = paint(rng, u + rng.random(), v + rng.random())
    base = np.array(near(rng, COLOURS[colour], 15), float)
    amount = rng.uniform(0.5, 1.0)
    picture = (
        base * (1 + (np.asarray(value)[..., None] - 0.5) * amount)
        + (40 * amount if sum(base) < 150 else 0) * value[..., None]
    )
    if second is not None and rng.random() < 0.6:  # the pattern's other part in a quieter colour
        other = np.array(COLOURS[pick(rng, ["white", "grey", "beige", "black"])], float)
        picture = np.where(second[..., None], other, picture)
    picture = picture + rng.normal(0, rng.uniform(0, 12), (SIZE, SIZE, 1))
    picture *= 1 + (smooth_noise(rng, SIZE, 2)[..., None] - 0.5) * rng.uniform(0, 0.5)
    return picture.clip(0, 255).astype(np.uint8), "texture", f"{colour} {pick(rng, names)}"
