"""Road signs on a street-like ground."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from .paint import BIG, COLOURS, SIZE, WORDS, Made, ground, near, pick, tinted
from .shapes import draw_shape, plural
from .stock import digit_fonts, sign_drawings


def _arrow(draw: ImageDraw.ImageDraw, turn: float, radius: float, fill: tuple) -> None:
    draw_shape(draw, "arrow", (BIG / 2, BIG / 2), radius, turn, fill)


def _write(
    image: Image.Image, rng: np.random.Generator, pictures: list, text: str, colour: tuple, height: float
) -> None:
    fonts = digit_fonts(pictures)
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
        draw.text((BIG / 2, BIG / 2), "STOP", fill=white, anchor="mm", font_size=BIG * rng.uniform(0.22, 0.3))
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
        word = WORDS["sign_names"].get(thing, thing)
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
