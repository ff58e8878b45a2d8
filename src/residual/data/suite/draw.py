"""What the generated datasets are drawn with: random fields, backgrounds, placing, bending, finishing.

Canvases are float32 arrays `(64, 64, 3)` in 0..1, sprites are Pillow images. Everything random comes from the
generator that is passed in, in a fixed order, so that a sample depends on its own seed alone.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

SIDE = 64
GENERATOR = 1  # raise it to draw every sample anew
_AXIS = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
Y, X = np.meshgrid(_AXIS, _AXIS, indexing="ij")  # (64, 64) each, 0..1
Random = np.random.RandomState  # its streams are frozen by NumPy's policy, those of Generator are not
Things = list[Image.Image]  # what is drawn, each alone on an empty canvas


def random_for(*parts: object) -> Random:
    """The generator that belongs to these parts, such as a dataset, a split and a number."""
    digest = hashlib.sha256("/".join(map(str, (GENERATOR, *parts))).encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, "<u4"))


def hsv(h: float, s: float, v: float) -> np.ndarray:
    """Hue, saturation and value, each 0..1, as RGB `(3,)`."""
    return np.array(colorsys.hsv_to_rgb(h % 1, s, v), np.float32)


def luma(colour: np.ndarray) -> float:
    """How bright an RGB colour `(3,)` looks."""
    return float(colour @ np.array([0.299, 0.587, 0.114], np.float32))


def upsampled(grid: np.ndarray) -> np.ndarray:
    """A coarse float grid `(a, b)` as a smooth field `(64, 64)`."""
    return np.asarray(Image.fromarray(grid.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def field(
    random: Random, octaves: Sequence[tuple[int, float]] = ((4, 1.0), (8, 0.5), (16, 0.25))
) -> np.ndarray:
    """Smooth noise `(64, 64)`, about 0..1: grids of (cells a side, weight), summed."""
    total = sum(weight for _, weight in octaves)
    out = np.zeros((SIDE, SIDE), np.float32)
    for cells, weight in octaves:
        out += np.float32(weight / total) * upsampled(random.rand(cells, cells))
    return out


def blend(low: np.ndarray, high: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Between two colours or canvases by an amount `(64, 64)`."""
    a = np.clip(amount, 0, 1)[..., None]
    return (low * (1 - a) + high * a).astype(np.float32)


def ramp(random: Random) -> np.ndarray:
    """A linear ramp 0..1 in a random direction `(64, 64)`."""
    angle = random.uniform(0, 2 * np.pi)
    along = (X - 0.5) * np.float32(np.cos(angle)) + (Y - 0.5) * np.float32(np.sin(angle))
    return along / np.float32(abs(np.cos(angle)) + abs(np.sin(angle))) + np.float32(0.5)


def backdrop(random: Random, value: tuple[float, float] = (0.35, 1.0), saturation: float = 0.6) -> np.ndarray:
    """A plain, graded or cloudy canvas of random colours."""
    kind = random.randint(3)
    first = hsv(random.rand(), random.uniform(0, saturation), random.uniform(*value))
    second = hsv(random.rand(), random.uniform(0, saturation), random.uniform(*value))
    if kind == 0:
        return np.broadcast_to(first, (SIDE, SIDE, 3)).copy()
    if kind == 1:
        return blend(first, second, ramp(random))
    return blend(first, second, field(random, ((3, 1.0), (6, 0.5))))


def backdrop_for(
    random: Random, sprite: Image.Image, value: tuple[float, float], saturation: float
) -> np.ndarray:
    """A backdrop that the RGBA sprite stands out from: the best of up to four."""
    pixels = np.asarray(sprite, np.float32) / 255
    alpha = pixels[..., 3:]
    own = (pixels[..., :3] * alpha).sum((0, 1)) / max(float(alpha.sum()), 1.0)
    best, best_distance = backdrop(random, value, saturation), 0.0
    for attempt in range(4):
        canvas = backdrop(random, value, saturation) if attempt else best
        distance = float(np.abs(canvas.mean((0, 1)) - own).sum())
        if distance > best_distance:
            best, best_distance = canvas, distance
        if distance > 0.6:
            break
    return best


def tinted(coverage: Image.Image, colour: np.ndarray) -> Image.Image:
    """Coverage (L) as an RGBA sprite of one colour."""
    red, green, blue = (round(255 * float(c)) for c in np.clip(colour, 0, 1))
    image = Image.new("RGBA", coverage.size, (red, green, blue, 255))
    image.putalpha(coverage)
    return image


def placed(
    sprite: Image.Image,
    size: float,
    centre: tuple[float, float] = (32, 32),
    angle: float = 0,
    stretch: float = 1,
    shear: float = 0,
    mirror: bool = False,
) -> Image.Image:
    """The sprite on an empty 64 px canvas: `size` pixels a side, turned by `angle` degrees."""
    if sprite.mode == "RGBA":
        sprite = sprite.convert("RGBa")  # premultiplied, or edges take colour from what is transparent
    side = max(1, round(size))
    if side < 0.75 * sprite.width:  # the affine step samples, it doesn't average: shrink first
        sprite = sprite.resize((side, side), Image.Resampling.BOX if side < 24 else Image.Resampling.BICUBIC)
    k = size / sprite.width
    turn = np.deg2rad(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    sx, sy = k * np.sqrt(stretch) * (-1 if mirror else 1), k / np.sqrt(stretch)
    forward = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]]) @ np.diag([sx, sy])
    back = np.linalg.inv(forward)
    middle = np.array([sprite.width / 2, sprite.height / 2])
    shift = middle - back @ np.array(centre)
    data = (back[0, 0], back[0, 1], shift[0], back[1, 0], back[1, 1], shift[1])
    out = sprite.transform((SIDE, SIDE), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return out.convert("RGBA") if out.mode == "RGBa" else out


def in_perspective(sprite: Image.Image, corners: np.ndarray) -> Image.Image:
    """The sprite with its corners, clockwise from the top left, at `corners` `(4, 2)` in pixels."""
    w, h = sprite.size
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, ((0, 0), (w, 0), (w, h), (0, h)), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    data = tuple(np.linalg.solve(np.array(rows, float), np.array(values, float)))
    out = sprite.convert("RGBa").transform(
        (SIDE, SIDE), Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR
    )
    return out.convert("RGBA")


def resampled(image: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """The float image `(h, w, c)` read at pixel coordinates `xs, ys` `(a, b)`, bilinear, edges repeated."""
    h, w = image.shape[:2]
    xs, ys = np.clip(xs, 0, w - 1.001), np.clip(ys, 0, h - 1.001)
    x0, y0 = xs.astype(np.intp), ys.astype(np.intp)
    fx, fy = (xs - x0)[..., None].astype(np.float32), (ys - y0)[..., None].astype(np.float32)
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    bottom = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy


def over(canvas: np.ndarray, sprite: Image.Image, opacity: float = 1) -> np.ndarray:
    """The RGBA sprite laid on the canvas."""
    pixels = np.asarray(sprite, np.float32) / 255
    alpha = pixels[..., 3:] * np.float32(opacity)
    return canvas * (1 - alpha) + pixels[..., :3] * alpha


def covered(thing: Image.Image) -> np.ndarray:
    """Where a sprite hides at least half of what is behind it, bool `(64, 64)`."""
    return np.asarray(thing if thing.mode == "L" else thing.getchannel("A")) >= 128


def blurred(canvas: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur; nothing below a fifth of a pixel."""
    if radius < 0.2:
        return canvas
    image = Image.fromarray(to_bytes(canvas)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, np.float32) / 255


def noisy(random: Random, canvas: np.ndarray, strength: float) -> np.ndarray:
    """Grey and colour noise of a standard deviation `strength`."""
    grain = random.standard_normal((SIDE, SIDE, 1)) * 0.8 + random.standard_normal((SIDE, SIDE, 3)) * 0.6
    return canvas + np.float32(strength) * grain.astype(np.float32)


def to_bytes(canvas: np.ndarray) -> np.ndarray:
    """The canvas as uint8."""
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
