"""What every picture goes through, wherever it is from: bounds on its size, white behind what is clear."""

from __future__ import annotations

import numpy as np
from PIL import Image

from residual.errors import ResidualError

MOST_PIXELS = 89_478_485  # Pillow's own bound, from which on it warns: a third of a GB as it keeps them
MOST_BYTES = 2**28  # of a file: so many pixels of three bytes
LONGEST = 100  # times the shorter side; resizing makes the shorter one as long as the encoder wants it
_AT_ONCE = 2**22


def check_size(width: int, height: int) -> None:
    """Refuse a picture whose pixels would take too much memory, before it is decoded or after.

    Raises:
        ResidualError: it has over `MOST_PIXELS` pixels, or one side is over `LONGEST` times the other.
    """
    if width * height > MOST_PIXELS:
        raise ResidualError(f"it has over {MOST_PIXELS / 1e6:.0f} million pixels: save it smaller")
    if max(width, height) > LONGEST * min(width, height):
        raise ResidualError(
            f"it has {width:,} by {height:,} pixels, and one side may be {LONGEST} times the other: crop it"
        )


def as_picture(values: np.ndarray, channels_first: bool = False) -> Image.Image:
    """Bytes `(h, w)`, `(h, w, c)` or `(c, h, w)` as a picture, with `c` of 1 (grey), 3, or 4 (transparent).

    Args:
        values: uint8.
        channels_first: where both ends may be the channels, the first one is.

    Raises:
        ResidualError: they are of another shape.
    """
    ends = [place for place in (0, -1) if values.ndim == 3 and values.shape[place] in (1, 3, 4)]
    if values.ndim == 3 and ends:
        first = ends == [0] or (len(ends) == 2 and channels_first)
        values = np.moveaxis(values, 0, -1) if first else values
        values = values[..., 0] if values.shape[-1] == 1 else values
    elif values.ndim != 2:
        raise ResidualError(
            f"A picture's bytes are (h, w), (h, w, 3) or (3, h, w), got the shape {values.shape}."
        )
    return on_white(Image.fromarray(np.ascontiguousarray(values)))


def on_white(image: Image.Image) -> Image.Image:
    """Colours only; what is transparent shows white, as in transformers. Given back itself if it is so."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rows = max(1, _AT_ONCE // max(1, image.width))
    if image.height <= rows:
        return _blended(image)
    seen = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        seen.paste(_blended(image.crop((0, top, image.width, min(top + rows, image.height)))), (0, top))
    return seen


def _blended(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
