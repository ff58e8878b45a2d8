"""From the bytes of an image file to an RGB image, upright and of 8 bits, or to one sentence on why not."""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image

from residual.errors import UnreadableImageError

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
            if image.format == "EPS":  # Pillow would have Ghostscript run it
                raise ValueError("it is a PostScript program, no picture")
            image.load()
            turn = _TURNS.get(_orientation(image))
            seen = _eight_bits(image)
            upright = seen if turn is None else seen.transpose(turn)
            if upright.has_transparency_data:
                rgba = upright.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
            return upright.convert("RGB")
    except Exception as problem:  # a decoder raises whatever a damaged file makes it trip over
        raise UnreadableImageError(sample_id, f"{_reason(problem)}; {where}") from problem


def _orientation(image: Image.Image) -> object:
    """What EXIF says; nothing where it is damaged, for the picture itself may still be whole."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 16-bit grey as one of 8 bits; Pillow alone would cut its values off at 255."""
    if image.mode == "F":
        raise ValueError("its pixels are fractions: save it with 8 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = (values.clip(0, 65535) / 257).round().astype(np.uint8)
        clear = image.info.get("transparency")  # one value that is see-through, so white like the paper below
        return Image.fromarray(np.where(values == clear, np.uint8(255), grey) if clear is not None else grey)
    return image


def _reason(problem: Exception) -> str:
    text = str(problem).split("\n")[0]
    return (
        "it is no image of a known format"
        if text.startswith("cannot identify")
        else text or type(problem).__name__
    )
