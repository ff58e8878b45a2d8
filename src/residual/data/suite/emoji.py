"""`emoji-groups` and `emoji-concepts`: icons on varied backgrounds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from residual.data.dataset import SPLITS, stratified_split
from residual.data.suite import draw
from residual.data.suite.assets import emoji, sprite
from residual.data.suite.generated import Family, OneStyleEach, Sample


class Groups(Family):
    """The nine groups of emoji; train, val and test show different concepts."""

    def sources(self, entry: dict[str, Any], split: str) -> Sequence[str]:
        """The group's openmoji icons of the split: one of each concept, then the second ones, and so on."""
        return _icons(split)[entry["name"]]

    def image(self, random: draw.Random, sample: Sample) -> np.ndarray:
        """The icon nearly upright on a light background."""
        canvas = draw.backdrop_for(random, sprite(sample.source), (0.7, 1.0), 0.35)
        icon = draw.placed(
            sprite(sample.source),
            random.uniform(50, 66),
            (32 + random.uniform(-4, 4), 32 + random.uniform(-4, 4)),
            random.uniform(-12, 12),
        )
        return draw.to_bytes(draw.noisy(random, draw.over(canvas, icon), random.uniform(0, 0.03)))


class Concepts(OneStyleEach):
    """A hundred well-known things; one icon set trains, the other tests."""

    def image(self, random: draw.Random, sample: Sample) -> np.ndarray:
        """The icon turned, stretched, perhaps mirrored, on any background."""
        canvas = draw.backdrop_for(random, sprite(sample.source), (0.5, 1.0), 0.6)
        size = random.uniform(46, 66)
        room = 4 + max(0, 64 - size) / 2
        icon = draw.placed(
            sprite(sample.source),
            size,
            (32 + random.uniform(-room, room), 32 + random.uniform(-room, room)),
            random.uniform(-25, 25),
            random.uniform(0.85, 1.18),
            random.uniform(-0.15, 0.15),
            random.rand() < 0.5,
        )
        canvas = draw.over(canvas, icon) * np.float32(random.uniform(0.8, 1.1))
        canvas = draw.blurred(canvas, random.uniform(0, 0.6))
        return draw.to_bytes(draw.noisy(random, canvas, random.uniform(0, 0.045)))


@functools.cache
def _icons(split: str) -> dict[str, list[str]]:
    """The icons of each group in one split, concepts in turn."""
    variants: dict[tuple[str, str], list[str]] = {}
    for icon, key in sorted(emoji().items()):
        variants.setdefault(key, []).append(icon)
    concepts = sorted(variants)
    groups = sorted({group for group, _ in concepts})
    of_split = stratified_split(np.array([groups.index(group) for group, _ in concepts]))[SPLITS.index(split)]
    shuffled = draw.random_for("emoji-groups", split).permutation(of_split)
    icons: dict[str, list[str]] = {group: [] for group in groups}
    for turn in range(max(map(len, variants.values()))):
        for i in shuffled:
            if turn < len(variants[concepts[i]]):
                icons[concepts[i][0]].append(f"openmoji/{variants[concepts[i]][turn]}")
    return icons
