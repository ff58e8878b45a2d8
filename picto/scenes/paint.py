"""What all scenes are drawn with: sizes, colours, noise, grounds, and the words they share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64
BIG = 192  # drawn large, then shrunk
WORDS = json.loads((Path(__file__).parent / "words.json").read_text(encoding="utf-8"))
COLOURS: dict[str, tuple[int, int, int]] = {name: tuple(rgb) for name, rgb in WORDS["colours"].items()}
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


def ground(rng: np.random.Generator, colour: tuple, rough: float) -> np.ndarray:
    """(64, 64, 3) floats: one colour, shaded and rough."""
    shade = (fractal(rng, SIZE, int(rng.integers(1, 6))) - 0.5) * rough * 160
    slope = np.outer(np.linspace(-1, 1, SIZE), np.ones(SIZE)) * rng.normal(0, 18)
    grain = rng.normal(0, rough * 14, (SIZE, SIZE))
    return np.array(colour)[None, None] + (shade + slope + grain)[..., None]


def tinted(alpha: np.ndarray, colour: tuple) -> Image.Image:
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = colour, alpha
    return Image.fromarray(pixels)


def shrink(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX))
