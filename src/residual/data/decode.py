"""From the bytes of an image file to an RGB image, upright and of 8 bits, or to one sentence on why not."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

from residual.errors import UnreadableImageError


def decode_image(content: bytes, sample_id: str, where: str) -> Image.Image:
    """The image in `content`: its first frame, turned as its EXIF says, transparent parts on white.

    Args:
        content: a whole file.
        sample_id: names it in the error.
        where: the folder, file or repository that it is from, for the error.

    Raises:
        UnreadableImageError: it is empty, cut off, or no image of a known format.
    """
    try:
        if not content:
            raise ValueError("it is empty")
        with Image.open(io.BytesIO(content)) as image:
            upright = ImageOps.exif_transpose(_eight_bits(image))
            if upright.has_transparency_data:
                rgba = upright.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
            return upright.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as problem:
        raise UnreadableImageError(sample_id, f"{_reason(problem)}; {where}") from problem


def _eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 16-bit grey as one of 8 bits; Pillow alone would cut its values off at 255."""
    if image.mode == "F":
        raise ValueError("its pixels are fractions: save it with 8 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    return image


def _reason(problem: Exception) -> str:
    text = str(problem).split("\n")[0]
    return (
        "it is no image of a known format"
        if text.startswith("cannot identify")
        else text or type(problem).__name__
    )
