"""Procedural scenes for Picto: pen-stroke digits, rows of digits, textures, coloured shapes, counted things, road signs.

Each is drawn from its own seed, so a corpus of scenes is the same on every machine. Nothing here is shared with
the generators of the offline suite: Picto meets those for the first time when it is tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
BIG = 192  # drawn large, then shrunk
COLOURS = {
    "red": (214, 40, 40), "orange": (245, 130, 32), "yellow": (250, 214, 50), "green": (44, 160, 60),
    "blue": (40, 90, 210), "purple": (130, 60, 180), "pink": (246, 130, 180), "brown": (130, 82, 45),
    "black": (25, 25, 25), "white": (245, 245, 245), "grey": (135, 135, 135), "cyan": (60, 200, 210),
    "dark blue": (20, 35, 110), "dark green": (15, 85, 40), "light blue": (150, 200, 245),
    "light green": (150, 225, 140), "gold": (214, 170, 50), "beige": (232, 216, 180),
}  # fmt: skip
COUNTS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]
Made = tuple[np.ndarray, str, str]  # picture (64, 64, 3) uint8, kind of caption, name


def near(rng: np.random.Generator, colour: tuple[int, int, int], spread: float = 18) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 255).astype(int)
    return int(red), int(green), int(blue)


def pick(rng: np.random.Generator, among: list) -> object:
    return among[int(rng.integers(len(among)))]


def far_colours(rng: np.random.Generator) -> tuple[tuple, tuple]:
    """Ink and ground that differ clearly in brightness."""
    while True:
        ink, ground = (tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in range(2))
        if abs(np.dot(np.subtract(ink, ground), (0.3, 0.59, 0.11))) > 60:
            return ink, ground


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """(size, size) values in 0…1, smooth over `cells` patches a side."""
    field = Image.fromarray(rng.random((cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(field.resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)


def fractal(rng: np.random.Generator, size: int, cells: int, octaves: int = 4) -> np.ndarray:
    total = sum(smooth_noise(rng, size, cells * 2**k) / 2**k for k in range(octaves))
    return (total - total.min()) / (np.ptp(total) + 1e-6)


# Pen-stroke digits: control points in a unit box, y down; several ways of writing each.
STROKES: dict[str, list[list[list[tuple[float, float]]]]] = {
    "0": [[[(0.5, 0.05), (0.15, 0.3), (0.15, 0.7), (0.5, 0.95), (0.85, 0.7), (0.85, 0.3), (0.5, 0.05)]],
          [[(0.6, 0.05), (0.2, 0.25), (0.2, 0.75), (0.5, 0.95), (0.8, 0.6), (0.8, 0.25), (0.45, 0.08)]]],
    "1": [[[(0.5, 0.05), (0.5, 0.5), (0.5, 0.95)]], [[(0.3, 0.25), (0.55, 0.05), (0.55, 0.05), (0.55, 0.95)]],
          [[(0.3, 0.22), (0.52, 0.05), (0.52, 0.05), (0.52, 0.95)], [(0.25, 0.95), (0.8, 0.95)]],
          [[(0.65, 0.05), (0.5, 0.5), (0.38, 0.95)]]],
    "2": [[[(0.18, 0.28), (0.35, 0.06), (0.7, 0.1), (0.78, 0.35), (0.5, 0.65), (0.15, 0.93), (0.15, 0.93), (0.85, 0.93)]],
          [[(0.15, 0.25), (0.45, 0.04), (0.8, 0.25), (0.55, 0.6), (0.25, 0.92), (0.15, 0.8), (0.35, 0.78), (0.6, 0.92), (0.9, 0.85)]],
          [[(0.2, 0.15), (0.6, 0.05), (0.8, 0.3), (0.5, 0.6), (0.2, 0.92), (0.2, 0.92), (0.55, 0.88), (0.85, 0.95)]]],
    "3": [[[(0.2, 0.15), (0.55, 0.04), (0.78, 0.25), (0.42, 0.47), (0.42, 0.47), (0.82, 0.68), (0.55, 0.96), (0.15, 0.85)]],
          [[(0.18, 0.08), (0.8, 0.08), (0.8, 0.08), (0.45, 0.42), (0.45, 0.42), (0.82, 0.65), (0.55, 0.96), (0.15, 0.85)]]],
    "4": [[[(0.6, 0.05), (0.12, 0.65), (0.12, 0.65), (0.9, 0.65)], [(0.65, 0.3), (0.65, 0.97)]],
          [[(0.2, 0.05), (0.18, 0.5), (0.18, 0.5), (0.8, 0.48)], [(0.78, 0.05), (0.75, 0.5), (0.72, 0.97)]],
          [[(0.25, 0.08), (0.15, 0.42), (0.4, 0.55), (0.75, 0.4)], [(0.8, 0.05), (0.74, 0.5), (0.7, 0.97)]],
          [[(0.7, 0.97), (0.7, 0.05), (0.7, 0.05), (0.1, 0.68), (0.1, 0.68), (0.92, 0.68)]]],
    "5": [[[(0.8, 0.06), (0.28, 0.06), (0.28, 0.06), (0.22, 0.45), (0.22, 0.45), (0.65, 0.4), (0.82, 0.7), (0.5, 0.96), (0.15, 0.86)]],
          [[(0.28, 0.08), (0.22, 0.45), (0.22, 0.45), (0.6, 0.4), (0.78, 0.7), (0.45, 0.97), (0.12, 0.85)], [(0.28, 0.08), (0.85, 0.05)]]],
    "6": [[[(0.7, 0.05), (0.3, 0.35), (0.18, 0.72), (0.5, 0.96), (0.8, 0.74), (0.55, 0.52), (0.22, 0.68)]],
          [[(0.5, 0.04), (0.25, 0.5), (0.3, 0.9), (0.65, 0.92), (0.72, 0.65), (0.45, 0.56), (0.26, 0.75)]]],
    "7": [[[(0.15, 0.08), (0.83, 0.08), (0.83, 0.08), (0.55, 0.5), (0.38, 0.96)]],
          [[(0.15, 0.08), (0.83, 0.08), (0.83, 0.08), (0.55, 0.5), (0.4, 0.96)], [(0.3, 0.5), (0.78, 0.48)]],
          [[(0.15, 0.22), (0.17, 0.08), (0.17, 0.08), (0.85, 0.1), (0.85, 0.1), (0.6, 0.45), (0.5, 0.96)]]],
    "8": [[[(0.72, 0.18), (0.45, 0.04), (0.24, 0.24), (0.5, 0.46), (0.78, 0.72), (0.5, 0.96), (0.22, 0.74), (0.5, 0.46), (0.76, 0.22), (0.6, 0.06)]],
          [[(0.5, 0.48), (0.22, 0.26), (0.5, 0.04), (0.78, 0.26), (0.5, 0.48), (0.2, 0.74), (0.5, 0.96), (0.8, 0.74), (0.5, 0.48)]]],
    "9": [[[(0.78, 0.28), (0.5, 0.05), (0.2, 0.28), (0.45, 0.5), (0.76, 0.32), (0.76, 0.32), (0.72, 0.95)]],
          [[(0.76, 0.2), (0.45, 0.05), (0.22, 0.3), (0.5, 0.5), (0.77, 0.25), (0.75, 0.6), (0.6, 0.88), (0.25, 0.94)]]],
}  # fmt: skip


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


def by_kind(pictures: list, kind: str) -> list:
    return [entry for entry in pictures if entry[0]["kind"] == kind]


def tinted(alpha: np.ndarray, colour: tuple) -> Image.Image:
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = colour, alpha
    return Image.fromarray(pixels)


def ground(rng: np.random.Generator, colour: tuple, rough: float) -> np.ndarray:
    """(64, 64, 3) floats: one colour, shaded and rough."""
    shade = (fractal(rng, SIZE, int(rng.integers(1, 6))) - 0.5) * rough * 160
    slope = np.outer(np.linspace(-1, 1, SIZE), np.ones(SIZE)) * rng.normal(0, 18)
    grain = rng.normal(0, rough * 14, (SIZE, SIZE))
    return np.array(colour)[None, None] + (shade + slope + grain)[..., None]


def digit_row(rng: np.random.Generator, pictures: list) -> Made:
    """Digits of one font side by side on a wall: named as a number, or by the digit in the middle."""
    digits = pictures_by_font(pictures)
    font = digits[int(rng.integers(len(digits)))]
    count = int(rng.choice([1, 2, 3, 3, 3]))
    text = "".join(str(d) for d in rng.integers(0, 10, count))
    ink, wall = far_colours(rng)
    scale = rng.uniform(0.55, 1.0)
    step = rng.uniform(0.42, 0.6) * SIZE * scale
    kind, name, offset = ("digit", text, 0.0) if count == 1 else ("number", text, 0.0)
    if count == 3 or (
        count == 2 and rng.random() < 0.5
    ):  # the named digit stands in the middle, others are cut off
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


_FONTS: dict[int, list] = {}


def pictures_by_font(pictures: list) -> list[dict[str, np.ndarray]]:
    if id(pictures) not in _FONTS:
        fonts: dict[str, dict[str, np.ndarray]] = {}
        for record, pixels in by_kind(pictures, "glyph"):
            if record["name"].isdigit():
                fonts.setdefault(record["set"], {})[record["name"]] = pixels[..., 3]
        _FONTS[id(pictures)] = [font for font in fonts.values() if len(font) == 10]
    return _FONTS[id(pictures)]


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


TEXTURES: dict[str, tuple[Callable, list[str]]] = {
    "bricks": (_bricks, ["bricks", "brick wall", "brickwork"]), "tiles": (_tiles, ["tiles", "tiled floor"]),
    "checks": (_checks, ["checkerboard", "checks", "checkered cloth", "checkered pattern"]),
    "stripes": (_stripes, ["stripes", "striped pattern", "striped cloth"]),
    "dots": (_dots, ["dots", "polka dots", "dotted pattern"]), "zigzag": (_zigzag, ["zigzag", "zigzags", "chevrons"]),
    "waves": (_waves, ["waves", "wavy lines", "ripples", "water"]),
    "wood": (_wood, ["wood", "wood grain", "wooden planks", "wooden board"]),
    "marble": (_marble, ["marble", "marbled stone"]), "grass": (_grass, ["grass", "fur", "hair", "lawn"]),
    "gravel": (_gravel, ["gravel", "pebbles", "stones", "cobblestones"]),
    "clouds": (_clouds, ["clouds", "smoke", "fog", "cloudy pattern"]),
    "weave": (_weave, ["fabric", "woven fabric", "basket weave", "woven cloth"]),
    "knit": (_knit, ["knitted wool", "knitting", "knit fabric"]), "sand": (_sand, ["sand", "sandpaper", "noise", "speckles"]),
    "scales": (_scales, ["scales", "fish scales", "roof tiles", "shingles"]),
    "hexagons": (_hexagons, ["hexagons", "honeycomb", "hexagonal tiles"]),
    "crosshatch": (_crosshatch, ["grid", "lattice", "net", "mesh", "wire fence"]),
}  # fmt: skip


def texture(rng: np.random.Generator, pictures: list) -> Made:
    paint, names = pick(rng, list(TEXTURES.values()))
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
        other = np.array(
            pick(rng, [COLOURS["white"], COLOURS["grey"], COLOURS["beige"], COLOURS["black"]]), float
        )
        picture = np.where(second[..., None], other, picture)
    picture = picture + rng.normal(0, rng.uniform(0, 12), (SIZE, SIZE, 1))
    picture *= 1 + (smooth_noise(rng, SIZE, 2)[..., None] - 0.5) * rng.uniform(0, 0.5)
    return picture.clip(0, 255).astype(np.uint8), "texture", f"{colour} {pick(rng, names)}"


def _polygon(n: int, turn: float = -math.pi / 2, inner: float | None = None) -> list[tuple[float, float]]:
    count = 2 * n if inner else n
    radii = [(inner if inner and k % 2 else 1.0) for k in range(count)]
    return [
        (r * math.cos(turn + 2 * math.pi * k / count), r * math.sin(turn + 2 * math.pi * k / count))
        for k, r in enumerate(radii)
    ]


def _heart() -> list[tuple[float, float]]:
    t = np.linspace(0, 2 * math.pi, 60)
    return list(
        zip(
            16 * np.sin(t) ** 3 / 17,
            -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 17,
            strict=True,
        )
    )


def _round(a: float, b: float) -> list[tuple[float, float]]:
    return [(a * math.cos(t), b * math.sin(t)) for t in np.linspace(0, 2 * math.pi, 60)]


SHAPES: dict[str, list[tuple[float, float]]] = {
    "circle": _round(1, 1), "oval": _round(1, 0.6), "square": _polygon(4, math.pi / 4), "diamond": _polygon(4),
    "triangle": _polygon(3), "pentagon": _polygon(5), "hexagon": _polygon(6), "octagon": _polygon(8, math.pi / 8),
    "star": _polygon(5, inner=0.42), "heart": _heart(),
    "rectangle": [(-1, -0.55), (1, -0.55), (1, 0.55), (-1, 0.55)],
    "cross": [(-.33, -1), (.33, -1), (.33, -.33), (1, -.33), (1, .33), (.33, .33), (.33, 1), (-.33, 1), (-.33, .33), (-1, .33), (-1, -.33), (-.33, -.33)],
    "arrow": [(-1, -.25), (.2, -.25), (.2, -.7), (1, 0), (.2, .7), (.2, .25), (-1, .25)],
    "crescent": [*[(math.cos(t), math.sin(t)) for t in np.linspace(0.7, 2 * math.pi - 0.7, 40)], *[(0.35 + 0.75 * math.cos(t), 0.75 * math.sin(t)) for t in np.linspace(2 * math.pi - 1.0, 1.0, 40)]],
}  # fmt: skip


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


def shrink(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX))


def plural(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return {"mouse": "mice", "fish": "fish", "sheep": "sheep", "leaf": "leaves", "knife": "knives"}.get(
        word, word + "s"
    )


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


COMMON = {"automobile": "car", "rosette": "ribbon", "wrapped": "gift"}
_THINGS: dict[int, dict[str, list]] = {}


def things(pictures: list) -> dict[str, list]:
    """Drawings of simple nouns, by name."""
    if id(pictures) not in _THINGS:
        found: dict[str, list] = {}
        for record, pixels in by_kind(pictures, "icon"):
            simple = (
                record["name"].isalpha()
                and record["style"] == "emoji"
                and record["group"] not in ("symbols", "people-body", "smileys-emotion", "flags")
            )
            if simple and record["group"]:
                found.setdefault(COMMON.get(record["name"], record["name"]), []).append(pixels)
        _THINGS[id(pictures)] = {name: drawn for name, drawn in sorted(found.items()) if len(drawn) >= 3}
    return _THINGS[id(pictures)]


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
    words = f"{COUNTS[number]} {name if number == 1 else plural(name)}"
    return shrink(image), "count", words


SIGN_ICONS = ["bicycle", "automobile", "delivery truck", "deer", "cow", "motorcycle", "pedestrian", "person walking", "train",
              "tractor", "airplane", "horse", "children crossing", "bus", "snowflake", "vertical traffic light", "wheelchair symbol",
              "telephone", "fork and knife", "hospital", "fuel pump", "construction worker", "warning", "anchor"]  # fmt: skip
_SIGNS: dict[int, dict[str, list]] = {}


def sign_drawings(pictures: list) -> dict[str, list]:
    if id(pictures) not in _SIGNS:
        found: dict[str, list] = {}
        for record, pixels in by_kind(pictures, "icon"):
            if record["name"] in SIGN_ICONS:
                found.setdefault(record["name"], []).append(pixels[..., 3])
        _SIGNS[id(pictures)] = found
    return _SIGNS[id(pictures)]


def _arrow(draw: ImageDraw.ImageDraw, turn: float, radius: float, fill: tuple) -> None:
    draw_shape(draw, "arrow", (BIG / 2, BIG / 2), radius, turn, fill)


def _write(
    image: Image.Image, rng: np.random.Generator, pictures: list, text: str, colour: tuple, height: float
) -> None:
    fonts = pictures_by_font(pictures)
    font = fonts[int(rng.integers(len(fonts)))]
    side = round(BIG * height)
    step = side * 0.56
    for place, char in enumerate(text):
        glyph = tinted(font[char], colour).resize((side, side), Image.Resampling.BILINEAR)
        x = BIG / 2 + (place - (len(text) - 1) / 2) * step - side / 2
        image.paste(glyph, (round(x), round((BIG - side) / 2)), glyph)


def sign(rng: np.random.Generator, pictures: list) -> Made:
    """A traffic sign on a street-like ground."""
    red, blue, white, black, yellow = (
        near(rng, COLOURS[c], 12) for c in ("red", "blue", "white", "black", "yellow")
    )
    image = Image.new("RGBA", (BIG, BIG))
    draw = ImageDraw.Draw(image)
    middle, r = (BIG / 2, BIG / 2), BIG * 0.46
    plate = white if rng.random() < 0.7 else yellow
    kind = int(rng.integers(13))
    if kind <= 2:  # speed limit
        name = f"speed limit {int(rng.integers(1, 14)) * 10}"
        draw_shape(draw, "circle", middle, r, 0, red)
        draw_shape(draw, "circle", middle, r * rng.uniform(0.72, 0.85), 0, plate)
        _write(image, rng, pictures, name.split()[-1], black, 0.5 if len(name) < 15 else 0.4)
    elif kind == 3:
        name = "stop"
        draw_shape(draw, "octagon", middle, r, 0, red)
        fill = white
        draw.text((BIG / 2, BIG / 2), "STOP", fill=fill, anchor="mm", font_size=BIG * rng.uniform(0.22, 0.3))
    elif kind == 4:
        name = "no entry"
        draw_shape(draw, "circle", middle, r, 0, red)
        draw.rectangle((BIG * 0.2, BIG * 0.42, BIG * 0.8, BIG * 0.58), fill=white)
    elif kind == 5:
        name = pick(rng, ["yield", "give way"])
        draw_shape(draw, "triangle", (BIG / 2, BIG * 0.4), r, math.pi, red)
        draw_shape(draw, "triangle", (BIG / 2, BIG * 0.4), r * 0.68, math.pi, plate)
    elif kind == 6:
        name = pick(rng, ["priority road", "main road"])
        draw_shape(draw, "diamond", middle, r, 0, white)
        draw_shape(draw, "diamond", middle, r * 0.72, 0, yellow)
    elif kind == 7:
        way, turn = pick(
            rng,
            [
                ("turn left", math.pi),
                ("turn right", 0.0),
                ("straight ahead", -math.pi / 2),
                ("keep right", math.pi / 4),
                ("keep left", 3 * math.pi / 4),
            ],
        )
        name = way
        draw_shape(draw, "circle", middle, r, 0, blue)
        _arrow(draw, turn, r * 0.65, white)
    elif kind == 8:
        name = pick(rng, ["parking", "no parking", "no stopping"])
        if name == "parking":
            draw_shape(draw, "square", middle, r * 1.2, 0, blue)
            draw.text(middle, "P", fill=white, anchor="mm", font_size=BIG * 0.6)
        else:
            draw_shape(draw, "circle", middle, r, 0, red)
            draw_shape(draw, "circle", middle, r * 0.8, 0, blue)
            for slope in (1, -1) if name == "no stopping" else (1,):
                draw.line(
                    (BIG * 0.22, BIG / 2 - slope * BIG * 0.28, BIG * 0.78, BIG / 2 + slope * BIG * 0.28),
                    fill=red,
                    width=16,
                )
    elif kind == 9:
        name = "roundabout"
        draw_shape(draw, "circle", middle, r, 0, blue)
        for k in range(3):
            turn = 2 * math.pi * k / 3
            draw.arc(
                (BIG * 0.27, BIG * 0.27, BIG * 0.73, BIG * 0.73), 120 * k, 120 * k + 80, fill=white, width=14
            )
            tip = (BIG / 2 + BIG * 0.2 * math.cos(turn), BIG / 2 + BIG * 0.2 * math.sin(turn))
            draw_shape(draw, "triangle", tip, 20, turn + math.pi, white)
    elif kind == 10 and rng.random() < 0.4:
        name = pick(rng, ["one way", "dead end"])
        if name == "one way":
            draw.rectangle((6, BIG * 0.3, BIG - 6, BIG * 0.7), fill=blue)
            _arrow(draw, 0.0, r * 0.8, white)
        else:
            draw_shape(draw, "square", middle, r * 1.2, 0, blue)
            draw.rectangle((BIG * 0.44, BIG * 0.35, BIG * 0.56, BIG * 0.85), fill=white)
            draw.rectangle((BIG * 0.25, BIG * 0.22, BIG * 0.75, BIG * 0.37), fill=red)
    else:
        thing = pick(rng, sorted(sign_drawings(pictures)))
        drawings = sign_drawings(pictures)[thing]
        style = int(rng.integers(3))
        names = {
            "automobile": "car",
            "person walking": "pedestrian",
            "vertical traffic light": "traffic lights",
            "construction worker": "road works",
            "delivery truck": "truck",
        }
        word = names.get(thing, thing)
        if style == 0:
            name = pick(rng, [f"warning {word}", f"{word} warning", f"{word} crossing", f"{word} ahead"])
            draw_shape(draw, "triangle", (BIG / 2, BIG * 0.58), r * 1.1, 0, red)
            draw_shape(draw, "triangle", (BIG / 2, BIG * 0.58), r * 0.85, 0, plate)
            ink, side, y = black, BIG * 0.36, BIG * 0.6
        elif style == 1:
            name = f"no {plural(word) if not word.endswith('s') else word}"
            draw_shape(draw, "circle", middle, r, 0, red)
            draw_shape(draw, "circle", middle, r * 0.8, 0, plate)
            ink, side, y = black, BIG * 0.5, BIG / 2
        else:
            name = pick(rng, [f"{word} lane", f"{word} path", word, f"{word} crossing"])
            draw_shape(draw, pick(rng, ["circle", "square"]), middle, r, 0, blue)
            ink, side, y = white, BIG * 0.5, BIG / 2
        icon = tinted(drawings[int(rng.integers(len(drawings)))], ink).resize(
            (round(side), round(side)), Image.Resampling.BILINEAR
        )
        image.paste(icon, (round(BIG / 2 - side / 2), round(y - side / 2)), icon)
        if style == 1 and rng.random() < 0.5:
            draw.line((BIG * 0.25, BIG * 0.25, BIG * 0.75, BIG * 0.75), fill=red, width=12)
    street = COLOURS[pick(rng, ["light blue", "grey", "dark green", "brown", "white", "black", "green"])]
    canvas = Image.fromarray(
        ground(rng, near(rng, street, 20), rng.uniform(0.1, 0.8)).clip(0, 255).astype(np.uint8)
    )
    side = round(SIZE * rng.uniform(0.62, 0.98))
    plate_image = image.resize((side, side), Image.Resampling.BOX).rotate(
        rng.normal(0, 5), Image.Resampling.BILINEAR
    )
    canvas.paste(plate_image, tuple(int(v) for v in (SIZE - side) / 2 + rng.normal(0, 2, 2)), plate_image)
    return (np.asarray(canvas) * rng.uniform(0.65, 1.05)).clip(0, 255).astype(np.uint8), "sign", name


MAKERS: dict[str, tuple[Callable, int]] = {
    "pen": (pen_digit, 24000), "row": (digit_row, 20000), "texture": (texture, 20000), "shape": (shape, 12000),
    "count": (count, 24000), "sign": (sign, 14000),
}  # fmt: skip


def make(which: str, index: int, pictures: list) -> Made:
    """Scene `index` of a kind; the same everywhere."""
    return MAKERS[which][0](np.random.default_rng([list(MAKERS).index(which), index, 20261124]), pictures)
