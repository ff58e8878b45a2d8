"""Coloured shapes, and one to eight of the same thing."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from .paint import BIG, COLOURS, WORDS, Made, near, pick, shrink
from .stock import things

Outline = list[tuple[float, float]]  # corners, in units of the radius, y down


def _polygon(n: int, turn: float = -math.pi / 2, inner: float | None = None) -> Outline:
    count = 2 * n if inner else n
    radii = [(inner if inner and k % 2 else 1.0) for k in range(count)]
    return [
        (r * math.cos(turn + 2 * math.pi * k / count), r * math.sin(turn + 2 * math.pi * k / count))
        for k, r in enumerate(radii)
    ]


def _heart() -> Outline:
    t = np.linspace(0, 2 * math.pi, 60)
    return list(
        zip(
            16 * np.sin(t) ** 3 / 17,
            -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 17,
            strict=True,
        )
    )


def _round(a: float, b: float) -> Outline:
    return [(a * math.cos(t), b * math.sin(t)) for t in np.linspace(0, 2 * math.pi, 60)]


def _cross() -> Outline:
    w = 0.33
    top = [(-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w)]
    return [*top, (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w)]


def _crescent() -> Outline:
    outer = [(math.cos(t), math.sin(t)) for t in np.linspace(0.7, 2 * math.pi - 0.7, 40)]
    inner = [(0.35 + 0.75 * math.cos(t), 0.75 * math.sin(t)) for t in np.linspace(2 * math.pi - 1.0, 1.0, 40)]
    return outer + inner


SHAPES: dict[str, Outline] = {
    "circle": _round(1, 1),
    "oval": _round(1, 0.6),
    "square": _polygon(4, math.pi / 4),
    "diamond": _polygon(4),
    "triangle": _polygon(3),
    "pentagon": _polygon(5),
    "hexagon": _polygon(6),
    "octagon": _polygon(8, math.pi / 8),
    "star": _polygon(5, inner=0.42),
    "heart": _heart(),
    "rectangle": [(-1, -0.55), (1, -0.55), (1, 0.55), (-1, 0.55)],
    "cross": _cross(),
    "arrow": [(-1, -0.25), (0.2, -0.25), (0.2, -0.7), (1, 0), (0.2, 0.7), (0.2, 0.25), (-1, 0.25)],
    "crescent": _crescent(),
}


def draw_shape(
    draw: ImageDraw.ImageDraw,
    name: str,
    at: tuple,
    radius: float,
    turn: float,
    fill: tuple,
    line: tuple | None = None,
) -> None:
    c, s = math.cos(turn), math.sin(turn)
    points = [(at[0] + radius * (x * c - y * s), at[1] + radius * (x * s + y * c)) for x, y in SHAPES[name]]
    draw.polygon(points, fill=fill, outline=line, width=4 if line else 1)


def shape(rng: np.random.Generator, pictures: list) -> Made:
    name, (colour, other) = pick(rng, list(SHAPES)), rng.choice(list(COLOURS), 2, replace=False)
    image = Image.new("RGB", (BIG, BIG), near(rng, COLOURS[other], 10))
    small = rng.random()
    radius = BIG * (rng.uniform(0.12, 0.2) if small < 0.25 else rng.uniform(0.26, 0.45))
    reach = max(1.0, BIG / 2 - radius)
    at = tuple(BIG / 2 + rng.uniform(-1, 1, 2) * reach * 0.8)
    line = (20, 20, 20) if rng.random() < 0.3 else None
    draw_shape(
        ImageDraw.Draw(image), name, at, radius, rng.normal(0, 0.15), near(rng, COLOURS[colour], 10), line
    )
    size = "small " if small < 0.25 else ("large " if radius > BIG * 0.38 and rng.random() < 0.5 else "")
    text = f"{size}{colour} {name}" + (f" on a {other} background" if rng.random() < 0.6 else "")
    return shrink(image), "shape", text


def plural(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return WORDS["plurals"].get(word, word + "s")


def places(rng: np.random.Generator, count: int) -> tuple[list[tuple[float, float]], float]:
    """Centres of `count` things that don't touch, in units of the side, and how wide each may be."""
    width = rng.uniform(0.75, 1.0) * {1: 0.8, 2: 0.5, 3: 0.42, 4: 0.4}.get(count, 0.3)
    while True:
        centres: list[tuple[float, float]] = []
        for _ in range(200):
            x, y = rng.uniform(width / 2, 1 - width / 2, 2)
            if all(math.hypot(x - a, y - b) > width * 0.95 for a, b in centres):
                centres.append((float(x), float(y)))
            if len(centres) == count:
                return centres, width
        width *= 0.92


def count(rng: np.random.Generator, pictures: list) -> Made:
    """One to eight of the same thing: icons, or coloured shapes."""
    number = int(rng.integers(1, 9)) if rng.random() < 0.3 else int(rng.integers(1, 7))
    centres, width = places(rng, number)
    back = near(rng, COLOURS[pick(rng, list(COLOURS))], 15) if rng.random() < 0.6 else (255, 255, 255)
    image = Image.new("RGB", (BIG, BIG), back)
    if rng.random() < 0.65:
        name = pick(rng, list(things(pictures)))
        drawings = things(pictures)[name]
        drawing = Image.fromarray(drawings[int(rng.integers(len(drawings)))])
        for x, y in centres:
            side = round(BIG * width * rng.uniform(0.85, 1.05))
            icon = drawing.resize((side, side), Image.Resampling.BILINEAR).rotate(
                rng.normal(0, 12), Image.Resampling.BILINEAR
            )
            image.paste(icon, (round(x * BIG - side / 2), round(y * BIG - side / 2)), icon)
    else:
        kind, colour = pick(rng, list(SHAPES)), pick(rng, list(COLOURS))
        draw = ImageDraw.Draw(image)
        while np.abs(np.subtract(COLOURS[colour], back)).sum() < 120:
            colour = pick(rng, list(COLOURS))
        for x, y in centres:
            draw_shape(
                draw,
                kind,
                (x * BIG, y * BIG),
                BIG * width / 2 * rng.uniform(0.75, 0.95),
                rng.normal(0, 0.2),
                near(rng, COLOURS[colour], 6),
            )
        name = f"{colour} {kind}"
    words = f"{WORDS['counts'][number]} {name if number == 1 else plural(name)}"
    return shrink(image), "count", words
