"""Draw the icons of iconify sets and the glyphs of fontsource packages; tell two drawings apart by a hash.

The builder of the offline suite and Picto's corpus both draw here, so that equal drawings get equal hashes
and a test can show that the two share none.
"""

from __future__ import annotations

import functools
import hashlib
import io
import string
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image, ImageDraw, ImageFont

ALPHANUMERIC = string.ascii_uppercase + string.ascii_lowercase + string.digits
INK = 0.9  # the part of the canvas that the largest glyph of a font fills


def icon_svg(icon_set: dict, name: str) -> str:
    """The icon `name` (or alias) of an iconify JSON set as a square SVG; `currentColor` is black."""
    chain, at = [], name
    while at not in icon_set["icons"]:
        if at not in icon_set.get("aliases", {}) or len(chain) > 10:
            raise KeyError(f"icon {name!r} is not in set {icon_set.get('prefix')!r}")
        chain.append(icon_set["aliases"][at])
        at = chain[-1]["parent"]
    icon = icon_set["icons"][at]

    box = {"left": 0, "top": 0, "width": icon_set.get("width", 16), "height": icon_set.get("height", 16)}
    turns, flip_x, flip_y = 0, False, False
    for step in [icon, *reversed(chain)]:
        box.update({key: step[key] for key in box if key in step})
        turns += step.get("rotate", 0)
        flip_x ^= step.get("hFlip", False)
        flip_y ^= step.get("vFlip", False)

    # Everything turns about the centre of the icon's box, and a square about that centre stays where it is.
    side = max(box["width"], box["height"])
    x, y = box["left"] + box["width"] / 2, box["top"] + box["height"] / 2
    body = icon["body"].replace("currentColor", "#000000")
    if turns % 4 or flip_x or flip_y:
        turn = f"rotate({90 * (turns % 4)}) scale({-1 if flip_x else 1} {-1 if flip_y else 1})"
        body = f'<g transform="translate({x:g} {y:g}) {turn} translate({-x:g} {-y:g})">{body}</g>'
    view = f"{x - side / 2:g} {y - side / 2:g} {side:g} {side:g}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{view}" width="{side:g}" height="{side:g}">{body}</svg>'
    )


def render_icon(svg: str, size: int = 64) -> np.ndarray:
    """The SVG drawn on nothing: `(size, size, 4)` uint8, straight alpha, colour zero where alpha is zero."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if image.size != (size, size):
        canvas = Image.new("RGBA", (size, size))
        canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        image = canvas
    pixels = np.array(image)
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def render_glyph(font_path: str | Path, char: str, size: int = 64) -> np.ndarray:
    """The glyph's coverage `(size, size)` uint8: centred, at the font's own scale, or less to fit."""
    points = _points(str(font_path), size)
    left, top, right, bottom = _font(str(font_path), points).getbbox(char)
    if max(right - left, bottom - top) > size:
        points *= INK * size / max(right - left, bottom - top)
    font = _font(str(font_path), points)
    left, top, right, bottom = font.getbbox(char)
    image = Image.new("L", (size, size))
    at = (round((size - right - left) / 2), round((size - bottom - top) / 2))
    ImageDraw.Draw(image).text(at, char, fill=255, font=font)
    return np.array(image)


def pixel_hash(array: np.ndarray) -> str:
    """64 bits that stand for the array's bytes: the first 16 hex digits of their SHA-256."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


@functools.lru_cache(maxsize=256)
def _font(path: str, points: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, points, layout_engine=ImageFont.Layout.BASIC)


@functools.lru_cache(maxsize=4096)
def _points(path: str, size: int) -> float:
    """The font size at which the largest of A-Z, a-z, 0-9 just fits."""
    boxes = [_font(path, 100.0).getbbox(char) for char in ALPHANUMERIC]
    largest = max(max(right - left, bottom - top) for left, top, right, bottom in boxes)
    return INK * size * 100.0 / largest
