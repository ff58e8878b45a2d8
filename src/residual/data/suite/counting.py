"""`counting`: one to six of the same thing, none over another."""

from __future__ import annotations

import numpy as np

from residual.data.suite import draw
from residual.data.suite.assets import sprite
from residual.data.suite.generated import OneStyleEach, Sample


class Counting(OneStyleEach):
    """One icon set trains, the other tests."""

    def image(self, random: draw.Random, sample: Sample) -> np.ndarray:
        """Things in cells of a 2 × 2 or 3 × 3 grid, each somewhere inside its cell."""
        count = sample.entry["count"]
        grid = 2 if count <= 4 and random.rand() < 0.5 else 3
        cell = 62 / grid
        size = random.uniform(0.76, 0.92) * cell
        canvas = draw.backdrop_for(random, sprite(sample.source), (0.6, 1.0), 0.35)
        for place in random.permutation(grid * grid)[:count]:
            room = (cell - size) / 2
            x = 1 + (place % grid + 0.5) * cell + random.uniform(-room, room)
            y = 1 + (place // grid + 0.5) * cell + random.uniform(-room, room)
            thing = draw.placed(
                sprite(sample.source),
                size * random.uniform(0.9, 1.05),
                (x, y),
                random.uniform(-15, 15),
                mirror=random.rand() < 0.5,
            )
            canvas = draw.over(canvas, thing)
        return draw.to_bytes(draw.noisy(random, canvas, random.uniform(0, 0.03)))
