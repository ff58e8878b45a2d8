"""Pictures of characters: `letters`, and `house-numbers`. Train and test are of different fonts."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from residual.data.suite import draw
from residual.data.suite.assets import fonts, sprite
from residual.data.suite.generated import Sample

STRIP = 128  # house numbers are set on a strip larger than the image, so that turning it leaves no gap


def sources_of_letters(entry: dict[str, Any], split: str) -> list[str]:
    """Each character of the class in each of the split's fonts."""
    return [f"glyphs/{font}/{char}" for font in fonts(split) for char in entry["characters"]]


def sources_of_house_numbers(entry: dict[str, Any], split: str) -> list[str]:
    """The split's fonts."""
    return [f"glyphs/{font}" for font in fonts(split)]


def letter(random: draw.Random, sample: Sample) -> np.ndarray:
    """One letter, upper or lower case: paper, a letter turned and slanted, noise."""
    dark = random.rand() < 0.4
    canvas = draw.backdrop(random, (0.05, 0.45) if dark else (0.6, 1.0), 0.5)
    if random.rand() < 0.2:  # ruled paper
        period, phase = random.uniform(6, 14) / 64, random.rand()
        lines = ((draw.Y / period + phase) % 1 < 1.2 / 64 / period).astype(np.float32)
        canvas = draw.blend(canvas, draw.hsv(random.rand(), 0.4, 0.5), 0.45 * lines)
    value = random.uniform(0.75, 1) if dark else random.uniform(0, 0.4)
    ink = draw.hsv(random.rand(), random.uniform(0, 0.8), value)
    if abs(draw.luma(ink) - draw.luma(canvas.mean((0, 1)))) < 0.3:
        ink = ink * 0 + np.float32(dark)

    glyph = sprite(sample.source)
    left, top, right, bottom = glyph.getbbox() or (0, 0, 64, 64)
    scale = min(random.uniform(30, 52) / max(right - left, bottom - top), 2.2)
    letter = draw.placed(
        glyph,
        glyph.width * scale,
        (32 + random.uniform(-5, 5), 32 + random.uniform(-5, 5)),
        random.uniform(-18, 18),
        random.uniform(0.8, 1.25),
        random.uniform(-0.22, 0.22),
    )
    canvas = draw.over(canvas, draw.tinted(letter, ink))
    canvas = draw.blurred(canvas, random.uniform(0, 0.9))
    return draw.to_bytes(draw.noisy(random, canvas, random.uniform(0, 0.07)))


def house_number(random: draw.Random, sample: Sample, things: draw.Things) -> np.ndarray:
    """A digit in the middle, which counts; its neighbours and the wall behind distract."""
    canvas = _wall(random)
    behind = draw.luma(canvas[16:48, 16:48].mean((0, 1)))
    contrast = random.uniform(0.22, 0.6)
    brighter = behind + contrast < 1 and (behind - contrast < 0 or random.rand() < 0.5)
    value = np.clip(behind + (contrast if brighter else -contrast), 0.03, 1)
    ink = draw.hsv(random.rand(), random.uniform(0, 0.75), 1.0)
    ink = np.clip(ink * value / draw.luma(ink), 0, 1).astype(np.float32)

    strip, own = _strip(random, sample)
    where = (
        float(STRIP),
        (32 + random.uniform(-2, 2), 32 + random.uniform(-4, 4)),
        random.uniform(-9, 9),
        random.uniform(0.88, 1.12),
        random.uniform(-0.15, 0.15),
    )
    digits = draw.placed(strip, *where)
    things += [draw.placed(each, *where) for each in own]
    if random.rand() < 0.4:  # a cast shadow
        shadow = draw.tinted(
            digits.transform((64, 64), Image.Transform.AFFINE, (1, 0, -1.5, 0, 1, -1.5)), ink * 0
        )
        canvas = draw.over(canvas, shadow, random.uniform(0.2, 0.5))
    canvas = draw.over(canvas, draw.tinted(digits, ink))
    canvas = draw.blurred(canvas, random.uniform(0, 1.3))
    canvas = canvas * (1 + random.uniform(0, 0.3) * (draw.ramp(random) - 0.5))[..., None]
    return draw.to_bytes(draw.noisy(random, canvas, random.uniform(0.005, 0.06)))


def _strip(random: draw.Random, sample: Sample) -> tuple[Image.Image, list[Image.Image]]:
    """The digit in the middle and up to two a side, as coverage; and each that is the same digit, alone."""
    height = random.uniform(32, 46)
    gap = random.uniform(2, 6)
    strip, own = Image.new("L", (STRIP, STRIP)), []
    middle = _digit(sample.source, sample.entry["name"], height)
    strip.paste(middle, ((STRIP - middle.width) // 2, (STRIP - middle.height) // 2))
    own.append(strip.copy())
    left = (STRIP - middle.width) / 2 - gap
    right = (STRIP + middle.width) / 2 + gap
    for side in range(2):
        for _ in range(random.randint(3)):
            digit = str(random.randint(10))
            glyph = _digit(sample.source, digit, height)
            x = left - glyph.width if side == 0 else right
            if side == 0:
                left = x - gap
            else:
                right = x + glyph.width + gap
            corner = round(x), (STRIP - glyph.height) // 2
            strip.paste(glyph, corner)
            if digit == sample.entry["name"]:
                own.append(Image.new("L", strip.size))
                own[-1].paste(glyph, corner)
    return strip, own


def _digit(font: str, digit: str, height: float) -> Image.Image:
    glyph = sprite(f"{font}/{digit}")
    glyph = glyph.crop(glyph.getbbox())
    k = height / glyph.height
    return glyph.resize((max(2, round(glyph.width * k)), max(2, round(height))), Image.Resampling.BICUBIC)


def _wall(random: draw.Random) -> np.ndarray:
    """Plaster, planks, bricks or a plate, with things that stand about."""
    base = draw.hsv(random.rand(), random.uniform(0.05, 0.55), random.uniform(0.25, 0.95))
    shade = 0.75 + 0.5 * draw.field(random, ((4, 1.0), (12, 0.6), (32, 0.6)))
    kind = random.randint(4)
    period = random.uniform(7, 16) / 64
    phase = random.rand()
    if kind == 1:
        shade = shade * np.where((draw.X / period + phase) % 1 < 0.12, 0.6, 1)
    elif kind == 2:
        rows = draw.Y / period + phase
        joints = (draw.X / (2 * period) + 0.5 * (np.floor(rows) % 2)) % 1 < 0.06
        shade = shade * np.where((rows % 1 < 0.14) | joints, 1.25, 1)
    canvas = base * shade[..., None].astype(np.float32)
    for _ in range(random.randint(4)):  # clutter: boxes at the rim
        x, y = random.uniform(-0.1, 1.1, 2)
        w, h = random.uniform(0.08, 0.45, 2)
        inside = (abs(draw.X - x) < w / 2) & (abs(draw.Y - y) < h / 2)
        colour = draw.hsv(random.rand(), random.uniform(0, 0.6), random.uniform(0.2, 0.95))
        canvas = draw.blend(canvas, colour, inside * np.float32(random.uniform(0.25, 0.7)))
    if kind == 3:
        plate = (abs(draw.Y - 0.5) < random.uniform(0.36, 0.46)).astype(np.float32)
        canvas = draw.blend(
            canvas, draw.hsv(random.rand(), random.uniform(0, 0.5), random.uniform(0.3, 1)), plate
        )
    return canvas
