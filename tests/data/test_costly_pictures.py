"""Small files that would take gigabytes or minutes are refused by name; what is in bounds is read as ever."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from residual import pictures
from residual.data import decode
from residual.data.decode import decode_image
from residual.encoders.preprocess import OnWhite, Preprocess
from residual.errors import ResidualError, UnreadableImageError


def coded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, bits: int = 8, between: bytes = b"") -> bytes:
    """Grey, of zeros alone; nothing of its pixels where there would be many."""
    rows = bytes(height * (1 + width * bits // 8)) if width * height < 10**6 else b""
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    ends = chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + between + b"".join(ends)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def jpeg_of_scans(size: int, scans: int) -> bytes:
    """Progressive, its last scan over and over."""
    content = coded(Image.new("L", (size, size), 100), "JPEG", progressive=True)
    last, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    return content[:last] + content[last:end] * scans + content[end:]


def tiff_of_tiles(width: int, height: int) -> bytes:
    """Ten by ten pixels, deflated."""
    tags = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: width, 323: height, 324: 8, 325: 99}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + zlib.compress(bytes(10**6))


def icon(content: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 32, 32, 0, 0, 1, 32, len(content), 22) + content


def test_what_would_cost_much_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(decode, "MOST_READS", 1000)
    monkeypatch.setitem(decode.MOST_OF, "WEBP", 80)
    jpeg = coded(Image.new("RGB", (9, 9)), "JPEG")
    costly = {
        "100,000 by 1 pixels, and one side may be 100 times the other: crop it": png(100_000, 1),
        "1 by 1,000,000 pixels, and one side": png(1, 1_000_000),
        "it has over 89 million pixels: save it smaller": png(20_000, 20_000, 16),
        "over 89 million pixels: save": png(9460, 9460),
        "JPEG of 1,0[0-9]{2} scans, too many for its size": jpeg_of_scans(1000, 1000),
        "too many small pieces": jpeg[:2] + b"\xff" * 2000 + jpeg[2:],
        "in too many small pieces": png(9, 9, between=chunk(b"abCd", b"") * 2000),
        "in tiles of over 17 million pixels": tiff_of_tiles(2**15, 2**14),
        "a WEBP of over 0 million pixels: save it smaller, or as PNG": coded(Image.new("L", (9, 9)), "WEBP"),
        "pixels are over 16,777,216 bytes of text: save it as PNG": b"P2 9 9 255 " + b"0 " * 2**23,
        "5,000 by 2 pixels": icon(png(5000, 2)),
        "268,435,457 bytes, over 268,435,456: save it smaller": bytes(2**28 + 1),
    }
    for sentence, content in costly.items():
        with pytest.raises(UnreadableImageError, match=f"'a'.*{sentence}.*here"):
            decode_image(content, "a", "here")
    decode_image(jpeg_of_scans(100, 30), "a", "here")
    decode_image(b"P2 9 9 255 " + b"0 " * 81, "a", "here")
    decode_image(icon(png(32, 32)), "a", "here")
    assert decode_image(png(1000, 10), "a", "here").size == (1000, 10)


def test_what_isnt_decoded_here_is_bounded_before_it_is_resized():
    for preprocess in (Preprocess.square(32), OnWhite(lambda image: image)):
        with pytest.raises(ResidualError, match="3,300 by 32 pixels, and one side may be 100 times"):
            preprocess(Image.new("RGB", (3300, 32)))
    assert Preprocess.square(32)(Image.new("RGB", (3200, 32))).shape == (3, 32, 32)


def test_large_pictures_are_done_in_parts_and_come_out_the_same(monkeypatch):
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 4), np.uint8)
    clear = {mode: Image.fromarray(noise).convert(mode) for mode in ("RGBA", "LA", "P")}
    clear["P"].info["transparency"] = 3
    whole = {mode: pictures.on_white(image) for mode, image in clear.items()}
    monkeypatch.setattr(pictures, "_AT_ONCE", 1000)
    monkeypatch.setattr(decode, "_AT_ONCE", 1000)
    for mode, image in clear.items():
        assert pictures.on_white(image) == whole[mode]
    seen = np.array(decode_image(coded(Image.fromarray(every), "PNG"), "a", "here"))
    np.testing.assert_array_equal(seen[..., 0], (every / 257).round())
