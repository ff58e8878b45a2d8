"""`letters`: one letter, upper or lower case, in varied ink on varied paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from residual.data.suite import draw
from residual.data.suite.assets import fonts, sprite
from residual.data.suite.generated import Family, Sample


class Letters(Family):
    """Train and test letters are of different fonts."""

    def sources(self, entry: dict[str, Any], split: str) -> Sequence[str]:
        """Each character of the class in each of the split's fonts."""
        return [f"glyphs/{font}/{char}" for font in fonts(split) for char in entry["characters"]]

    def image(self, random: draw.Random, sample: Sample) -> np.ndarray:
        """Paper, a letter turned and slanted, noise."""
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
