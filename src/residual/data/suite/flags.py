"""`flags`: a country's flag in the wind."""

from __future__ import annotations

import functools

import numpy as np

from residual.data.suite import draw
from residual.data.suite.assets import sprite
from residual.data.suite.generated import OneStyleEach, Sample


class Flags(OneStyleEach):
    """One icon set trains, the other tests."""

    def image(self, random: draw.Random, sample: Sample) -> np.ndarray:
        """Sky or a plain wall, the waved flag with its folds shaded, perhaps a pole."""
        if random.rand() < 0.5:
            canvas = draw.blend(
                draw.hsv(random.uniform(0.54, 0.62), random.uniform(0.25, 0.65), random.uniform(0.7, 1)),
                draw.hsv(0.58, 0.05, random.uniform(0.85, 1)),
                1.5 * draw.field(random, ((3, 1.0), (6, 0.7), (12, 0.4))) - 0.45,
            )
        else:
            canvas = draw.backdrop(random, (0.3, 0.95), 0.3)
        flag = _flag(sample.source)  # (h, w, 4), premultiplied
        width = random.uniform(46, 58)
        height = width * flag.shape[0] / flag.shape[1] * random.uniform(0.92, 1.12)

        turn = np.deg2rad(random.uniform(-10, 10))
        x, y = draw.X * 64 - 32 - random.uniform(-3, 3), draw.Y * 64 - 32 - random.uniform(-4, 4)
        x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        u = x / width + 0.5
        waves, phase, height_of_wave = random.uniform(0.6, 1.7), random.rand(), random.uniform(1.0, 4.0)
        along = 2 * np.pi * (waves * u + phase + random.uniform(-0.15, 0.15) * y / height)
        v = (y + height_of_wave * np.sin(along) * np.clip(0.3 + u, 0, 1.2)) / height + 0.5
        inside = np.minimum(np.minimum(u, 1 - u) * width, np.minimum(v, 1 - v) * height)

        pixels = draw.resampled(flag, u * flag.shape[1] - 0.5, v * flag.shape[0] - 0.5)
        pixels = pixels * np.clip(inside + 0.5, 0, 1)[..., None].astype(np.float32)
        shade = 1 + random.uniform(0.08, 0.3) * np.cos(along + random.uniform(-0.4, 0.4))
        if random.rand() < 0.4:
            pole = (abs(u + 1.2 / width) < 1.3 / width) & (v > -0.12)
            canvas = draw.blend(
                canvas, draw.hsv(0.1, 0.1, random.uniform(0.3, 0.75)), pole.astype(np.float32)
            )
        canvas = canvas * (1 - pixels[..., 3:]) + pixels[..., :3] * shade[..., None].astype(np.float32)
        canvas = draw.blurred(canvas * np.float32(random.uniform(0.8, 1.05)), random.uniform(0, 0.6))
        return draw.to_bytes(draw.noisy(random, canvas, random.uniform(0, 0.04)))


@functools.lru_cache(maxsize=256)
def _flag(source: str) -> np.ndarray:
    """The flag without the empty rim of its icon, float32 0..1, colours premultiplied."""
    icon = sprite(source)
    icon = icon.crop(icon.getchannel("A").point([0] * 128 + [255] * 128).getbbox())
    pixels = np.asarray(icon, np.float32) / 255
    return np.concatenate([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], axis=-1)
