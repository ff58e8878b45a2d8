"""`house-numbers`: the digit in the middle counts; its neighbours and the wall behind distract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from residual.data.suite import draw
from residual.data.suite.assets import fonts, sprite
from residual.data.suite.generated import Family, Sample

STRIP = 128  # the digits are set on a strip larger than the image, so that turning it leaves no gap


class HouseNumbers(Family):
    """Train and test digits are of different fonts."""

    def sources(self, entry: dict[str, Any], split: str) -> Sequence[str]:
        """The split's fonts."""
        return [f"glyphs/{font}" for font in fonts(split)]

    def image(self, random: draw.Random, sample: Sample) -> np.ndarray:
        """Wall, digits in one colour, blur and noise."""
        canvas = _wall(random)
        behind = draw.luma(canvas[16:48, 16:48].mean((0, 1)))
        contrast = random.uniform(0.22, 0.6)
        brighter = behind + contrast < 1 and (behind - contrast < 0 or random.rand() < 0.5)
        value = np.clip(behind + (contrast if brighter else -contrast), 0.03, 1)
        ink = draw.hsv(random.rand(), random.uniform(0, 0.75), 1.0)
        ink = np.clip(ink * value / draw.luma(ink), 0, 1).astype(np.float32)

        strip = _strip(random, sample)
        digits = draw.placed(
            strip,
            float(STRIP),
            (32 + random.uniform(-2, 2), 32 + random.uniform(-4, 4)),
            random.uniform(-9, 9),
            random.uniform(0.88, 1.12),
            random.uniform(-0.15, 0.15),
        )
        if random.rand() < 0.4:  # a cast shadow
            shadow = draw.tinted(
                digits.transform((64, 64), Image.Transform.AFFINE, (1, 0, -1.5, 0, 1, -1.5)), ink * 0
            )
            canvas = draw.over(canvas, shadow, random.uniform(0.2, 0.5))
        canvas = draw.over(canvas, draw.tinted(digits, ink))
        canvas = draw.blurred(canvas, random.uniform(0, 1.3))
        canvas = canvas * (1 + random.uniform(0, 0.3) * (draw.ramp(random) - 0.5))[..., None]
        return draw.to_bytes(draw.noisy(random, canvas, random.uniform(0.005, 0.06)))


def _strip(random: draw.Random, sample: Sample) -> Image.Image:
    """The digit in the middle and up to two a side, as coverage."""
    height = random.uniform(32, 46)
    gap = random.uniform(2, 6)
    strip = Image.new("L", (STRIP, STRIP))
    middle = _digit(sample.source, sample.entry["name"], height)
    strip.paste(middle, ((STRIP - middle.width) // 2, (STRIP - middle.height) // 2))
    left = (STRIP - middle.width) / 2 - gap
    right = (STRIP + middle.width) / 2 + gap
    for side in range(2):
        for _ in range(random.randint(3)):
            glyph = _digit(sample.source, str(random.randint(10)), height)
            x = left - glyph.width if side == 0 else right
            if side == 0:
                left = x - gap
            else:
                right = x + glyph.width + gap
            strip.paste(glyph, (round(x), (STRIP - glyph.height) // 2))
    return strip


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
