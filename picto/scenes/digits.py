"""Digits as a pen writes them, and digits of fonts side by side on a wall."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .paint import BIG, SIZE, Made, far_colours, ground, near, tinted
from .stock import digit_fonts

Stroke = list[list[float]]
STROKES: dict[str, list[list[Stroke]]] = json.loads(
    (Path(__file__).parent / "strokes.json").read_text(encoding="utf-8")
)["digits"]


def curve(points: np.ndarray) -> np.ndarray:
    """A Catmull-Rom line through the points; a point given twice is a corner."""
    padded = np.vstack([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, 12, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        if np.allclose(b, c):
            continue
        a, d = (b if np.allclose(a, b) else a), (c if np.allclose(c, d) else d)
        parts.append(
            0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        )
    return np.vstack([*parts, points[-1:]])


def pen_digit(rng: np.random.Generator, pictures: list) -> Made:
    """A digit as a pen writes it, mostly white on black."""
    name = str(rng.integers(10))
    ways = STROKES[name]
    image = Image.new("L", (BIG, BIG))
    draw = ImageDraw.Draw(image)
    width = rng.uniform(6, 24)
    side = BIG * rng.uniform(0.5, 0.78)
    aspect, slant = rng.uniform(0.6, 1.05), rng.normal(0.08, 0.22)
    turn = rng.normal(0, 0.12)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    wobble = rng.uniform(0.01, 0.05)
    for stroke in ways[int(rng.integers(len(ways)))]:
        points = np.array(stroke, float)
        same = np.r_[False, (points[1:] == points[:-1]).all(1)]
        points += rng.normal(0, wobble, points.shape)
        points[same] = points[np.flatnonzero(same) - 1]
        points = (curve(points) - 0.5) * (aspect, 1)
        points[:, 0] -= slant * points[:, 1]
        points = points @ rotation.T * side + BIG / 2
        draw.line([tuple(p) for p in points], fill=255, width=round(width), joint="curve")
        for x, y in points[:: max(1, len(points) // 40)]:
            r = width / 2
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    ink = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32)[..., None] / 255
    front, back = ((255, 255, 255), (0, 0, 0)) if rng.random() < 0.65 else far_colours(rng)
    picture = ink * np.array(front) + (1 - ink) * np.array(back)
    return picture.clip(0, 255).astype(np.uint8), "digit_hand", name


def digit_row(rng: np.random.Generator, pictures: list) -> Made:
    """Digits of one font side by side on a wall: named as a number, or by the digit in the middle."""
    fonts = digit_fonts(pictures)
    font = fonts[int(rng.integers(len(fonts)))]
    count = int(rng.choice([1, 2, 3, 3, 3]))
    text = "".join(str(d) for d in rng.integers(0, 10, count))
    ink, wall = far_colours(rng)
    scale = rng.uniform(0.55, 1.0)
    step = rng.uniform(0.42, 0.6) * SIZE * scale
    kind, name, offset = "digit" if count == 1 else "number", text, 0.0
    # The named digit stands in the middle, others are cut off.
    if count == 3 or (count == 2 and rng.random() < 0.5):
        at = 1 if count == 3 else int(rng.integers(2))
        kind, name, offset = "middle", text[at], (count - 1) / 2 - at
        scale, step = max(scale, 0.8), max(step, 26)
    elif count > 1:
        scale = min(scale, 1.7 / count)
        step = 0.5 * SIZE * scale
    canvas = Image.fromarray(ground(rng, wall, rng.uniform(0, 0.6)).clip(0, 255).astype(np.uint8))
    side = max(8, round(SIZE * scale))
    tilt = rng.normal(0, 7)
    for place, digit in enumerate(text):
        glyph = tinted(font[digit], near(rng, ink, 8)).resize((side, side), Image.Resampling.BILINEAR)
        glyph = glyph.rotate(tilt, Image.Resampling.BILINEAR)
        x = SIZE / 2 + (place - (count - 1) / 2 + offset) * step - side / 2 + rng.normal(0, 1)
        canvas.paste(glyph, (round(x), round((SIZE - side) / 2 + rng.normal(0, 2))), glyph)
    return np.asarray(canvas), kind, name
