"""`road-signs`: a plate on a post, seen from somewhere, in front of sky, leaves or a road."""

from __future__ import annotations

import numpy as np

from residual.data.suite import draw
from residual.data.suite.assets import sprite
from residual.data.suite.generated import OneStyleEach, Sample


class RoadSigns(OneStyleEach):
    """Train and test plates are of different drawing styles."""

    def image(self, random: draw.Random, sample: Sample) -> np.ndarray:
        """Scenery, post, plate in perspective, light and noise."""
        canvas = _scenery(random)
        size = random.uniform(40, 58)
        cx, cy = 32 + random.uniform(-1, 1) * (62 - size) / 2, 32 + random.uniform(-1, 1) * (62 - size) / 2
        post = (abs(draw.X - cx / 64) < random.uniform(0.015, 0.03)) & (cy / 64 < draw.Y)
        canvas = draw.blend(canvas, draw.hsv(0.0, 0.0, random.uniform(0.35, 0.7)), post.astype(np.float32))

        half = size / 2
        corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
        corners = corners + random.uniform(-0.09, 0.09, (4, 2)) * size
        turn = np.deg2rad(random.uniform(-9, 9))
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        corners = corners * [random.uniform(0.78, 1), 1] @ rotation + [cx, cy]
        canvas = draw.over(canvas, draw.in_perspective(sprite(sample.source), corners))

        light = random.uniform(0.55, 1.15) + random.uniform(0, 0.5) * (draw.ramp(random) - 0.5)
        warmth = np.array([1, 1, 1], np.float32) + random.uniform(-0.08, 0.08, 3).astype(np.float32)
        haze = random.uniform(0, 0.25)
        canvas = canvas * light[..., None].astype(np.float32) * warmth * (1 - haze) + 0.7 * haze
        canvas = draw.blurred(canvas, random.uniform(0, 0.8))
        return draw.to_bytes(draw.noisy(random, canvas, random.uniform(0.005, 0.045)))


def _scenery(random: draw.Random) -> np.ndarray:
    """Sky above, then leaves, then asphalt; which of them fill the image varies."""
    sky = draw.blend(
        draw.hsv(random.uniform(0.53, 0.63), random.uniform(0.1, 0.6), random.uniform(0.7, 1)),
        draw.hsv(0.6, random.uniform(0, 0.15), random.uniform(0.75, 1)),
        1.6 * draw.field(random, ((3, 1.0), (6, 0.7), (12, 0.4))) - 0.4 + 0.3 * draw.Y,
    )
    leaves = draw.blend(
        draw.hsv(random.uniform(0.22, 0.38), random.uniform(0.4, 0.8), random.uniform(0.1, 0.3)),
        draw.hsv(random.uniform(0.18, 0.34), random.uniform(0.3, 0.7), random.uniform(0.4, 0.75)),
        1.8 * draw.field(random, ((8, 0.6), (20, 1.0), (40, 0.8))) - 0.4,
    )
    asphalt = draw.hsv(0.6, random.uniform(0, 0.12), random.uniform(0.25, 0.5)) * (
        0.8 + 0.4 * draw.field(random, ((6, 0.5), (48, 1.0)))[..., None]
    )
    kind = random.randint(4)
    skyline = (-0.5, 1.5, 0.45, 0.3)[kind] + random.uniform(-0.15, 0.15)
    ground = (1.5, 2, 0.8, -0.5)[kind] + random.uniform(-0.15, 0.15)
    edge = 0.25 * (draw.field(random, ((8, 1.0), (16, 0.6))) - 0.5)
    if kind == 1:  # nothing but sky
        return sky
    canvas = draw.blend(sky, leaves, 16 * (draw.Y - skyline + edge))
    return draw.blend(canvas, asphalt.astype(np.float32), 40 * (draw.Y - ground))
