"""Pictures of icons: `emoji-groups`, `emoji-concepts`, `flags`, `counting` and `road-signs`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from residual.data.splits import SPLITS, stratified_split
from residual.data.suite import draw
from residual.data.suite.assets import emoji, sprite
from residual.data.suite.generated import Sample


def sources_of_emoji_groups(entry: dict[str, Any], split: str) -> list[str]:
    """The group's openmoji icons of the split: one of each concept, then the second ones, and so on.

    Train, val and test show different concepts.
    """
    return _icons(split)[entry["name"]]


def emoji_of_a_group(random: draw.Random, sample: Sample) -> np.ndarray:
    """The icon nearly upright on a light background."""
    canvas = draw.backdrop_for(random, sprite(sample.source), (0.7, 1.0), 0.35)
    icon = draw.placed(
        sprite(sample.source),
        random.uniform(50, 66),
        (32 + random.uniform(-4, 4), 32 + random.uniform(-4, 4)),
        random.uniform(-12, 12),
    )
    return draw.to_bytes(draw.noisy(random, draw.over(canvas, icon), random.uniform(0, 0.03)))


def emoji_of_a_concept(random: draw.Random, sample: Sample) -> np.ndarray:
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


def flag(random: draw.Random, sample: Sample) -> np.ndarray:
    """Sky or a plain wall, a country's flag in the wind with its folds shaded, perhaps a pole."""
    if random.rand() < 0.5:
        canvas = draw.blend(
            draw.hsv(random.uniform(0.54, 0.62), random.uniform(0.25, 0.65), random.uniform(0.7, 1)),
            draw.hsv(0.58, 0.05, random.uniform(0.85, 1)),
            1.5 * draw.field(random, ((3, 1.0), (6, 0.7), (12, 0.4))) - 0.45,
        )
    else:
        canvas = draw.backdrop(random, (0.3, 0.95), 0.3)
    cloth = _flag(sample.source)  # (h, w, 4), premultiplied
    width = random.uniform(46, 58)
    height = width * cloth.shape[0] / cloth.shape[1] * random.uniform(0.92, 1.12)

    turn = np.deg2rad(random.uniform(-10, 10))
    x, y = draw.X * 64 - 32 - random.uniform(-3, 3), draw.Y * 64 - 32 - random.uniform(-4, 4)
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    u = x / width + 0.5
    waves, phase, height_of_wave = random.uniform(0.6, 1.7), random.rand(), random.uniform(1.0, 4.0)
    along = 2 * np.pi * (waves * u + phase + random.uniform(-0.15, 0.15) * y / height)
    v = (y + height_of_wave * np.sin(along) * np.clip(0.3 + u, 0, 1.2)) / height + 0.5
    inside = np.minimum(np.minimum(u, 1 - u) * width, np.minimum(v, 1 - v) * height)

    pixels = draw.resampled(cloth, u * cloth.shape[1] - 0.5, v * cloth.shape[0] - 0.5)
    pixels = pixels * np.clip(inside + 0.5, 0, 1)[..., None].astype(np.float32)
    shade = 1 + random.uniform(0.08, 0.3) * np.cos(along + random.uniform(-0.4, 0.4))
    if random.rand() < 0.4:
        pole = (abs(u + 1.2 / width) < 1.3 / width) & (v > -0.12)
        canvas = draw.blend(canvas, draw.hsv(0.1, 0.1, random.uniform(0.3, 0.75)), pole.astype(np.float32))
    canvas = canvas * (1 - pixels[..., 3:]) + pixels[..., :3] * shade[..., None].astype(np.float32)
    canvas = draw.blurred(canvas * np.float32(random.uniform(0.8, 1.05)), random.uniform(0, 0.6))
    return draw.to_bytes(draw.noisy(random, canvas, random.uniform(0, 0.04)))


def counted_things(random: draw.Random, sample: Sample, things: draw.Things) -> np.ndarray:
    """One to six of a thing in cells of a 2 × 2 or 3 × 3 grid, each somewhere inside its cell."""
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
        things.append(thing)
    return draw.to_bytes(draw.noisy(random, canvas, random.uniform(0, 0.03)))


def road_sign(random: draw.Random, sample: Sample, things: draw.Things) -> np.ndarray:
    """A plate on a post in perspective, before sky, leaves or a road; light and noise."""
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
    things.append(draw.in_perspective(sprite(sample.source), corners))
    canvas = draw.over(canvas, things[-1])

    light = random.uniform(0.55, 1.15) + random.uniform(0, 0.5) * (draw.ramp(random) - 0.5)
    warmth = np.array([1, 1, 1], np.float32) + random.uniform(-0.08, 0.08, 3).astype(np.float32)
    haze = random.uniform(0, 0.25)
    canvas = canvas * light[..., None].astype(np.float32) * warmth * (1 - haze) + 0.7 * haze
    canvas = draw.blurred(canvas, random.uniform(0, 0.8))
    return draw.to_bytes(draw.noisy(random, canvas, random.uniform(0.005, 0.045)))


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


@functools.lru_cache(maxsize=256)
def _flag(source: str) -> np.ndarray:
    """The flag without the empty rim of its icon, float32 0..1, colours premultiplied."""
    icon = sprite(source)
    icon = icon.crop(icon.getchannel("A").point([0] * 128 + [255] * 128).getbbox())
    pixels = np.asarray(icon, np.float32) / 255
    return np.concatenate([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], axis=-1)


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
