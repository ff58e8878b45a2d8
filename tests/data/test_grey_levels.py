"""Pictures of more than 256 greys, and those whose 0 is white: what Pillow alone reads wrongly."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from residual.data.decode import decode_image
from residual.errors import UnreadableImageError


def tiff(pixels: bytes, width: int, bits: int, white_is: int) -> bytes:
    """One row of one channel; `white_is` as in PhotometricInterpretation."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: white_is, 273: 8, 277: 1, 278: 1, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    padded = pixels + bytes(len(pixels) % 2)
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(padded))
        + padded
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def greys(content: bytes) -> list[int]:
    return np.asarray(decode_image(content, "x", "here"))[0, :, 0].tolist()


@pytest.mark.parametrize(("white_is", "right"), [(1, [0, 128, 255]), (0, [255, 127, 0])])
def test_where_white_is(white_is, right):
    assert greys(tiff(bytes([0, 128, 255]), 3, 8, white_is)) == right
    assert greys(tiff(np.array([0, 32896, 65535], "<u2").tobytes(), 3, 16, white_is)) == right


def test_twelve_bits():
    values = [0, 2056, 4095, 16]
    packed = "".join(f"{value:012b}" for value in values)
    pixels = bytes(int(packed[at : at + 8], 2) for at in range(0, len(packed), 8))
    assert greys(tiff(pixels, 4, 12, 1)) == [0, 128, 255, 1]


@pytest.mark.parametrize("values", [[0, 70_000], [-1, 9]])
def test_numbers_that_are_no_greys_are_refused(values):
    file = io.BytesIO()
    Image.fromarray(np.array([values], np.int32)).save(file, "TIFF")
    with pytest.raises(UnreadableImageError, match="numbers beyond 0 to 65,535: save it with 8 bits"):
        greys(file.getvalue())
