"""Small files that would take gigabytes or minutes are refused by name; what is in bounds is read as ever."""

from __future__ import annotations

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from timm.data.transforms import ResizeKeepRatio
from torchvision import transforms

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


def bmp_of_runs(size: int) -> bytes:
    """Every pixel a run of its own."""
    rows = (bytes([1, 9]) * size + bytes(2)) * size + bytes([0, 1])
    about = struct.pack("<IiiHHIIiiII", 40, size, size, 1, 8, 1, len(rows), 0, 0, 256, 0)
    head = struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078)
    return b"BM" + head + about + bytes(1024) + rows


def iptc(content: bytes) -> bytes:
    """Which Pillow opens, whatever it is."""
    fields = {(3, 60): b"\3\1", (3, 20): b"\t", (3, 30): b"\t", (3, 120): b"\1", (8, 10): content}
    return b"".join(struct.pack(">BBBH", 0x1C, *tag, len(text)) + text for tag, text in fields.items())


def fits(size: int) -> bytes:
    """Packed, of zeros."""
    about = {"BITPIX": 8, "NAXIS": 0}, {"ZIMAGE": "T", "ZCMPTYPE": "'GZIP_1  '", "BITPIX": 8, "NAXIS": 0}
    about[1].update(ZBITPIX=8, ZNAXIS=2, ZNAXIS1=size, ZNAXIS2=size)
    parts = []
    for first, fields in zip(({"SIMPLE": "T"}, {"XTENSION": "'BINTABLE'"}), about, strict=True):
        cards = [f"{name:<8}= {value}".ljust(80) for name, value in (first | fields).items()]
        parts.append("".join([*cards, "END"]).encode().ljust(2880))
    return b"".join(parts) + gzip.compress(bytes(size * size * 4)) + bytes(80)


def tiff_of_tiles(width: int | bytes, height: int) -> bytes:
    """Ten by ten pixels, deflated."""
    tags = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: width, 323: height, 324: 8, 325: 99}
    entries = b"".join(
        struct.pack("<HHI4s", tag, 2, 3, value)
        if isinstance(value, bytes)
        else struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in tags.items()
    )
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
        "million pixels, or as many over: save as PNG": tiff_of_tiles(1, 2**24),
        "size of its tiles is no number": tiff_of_tiles(b"AA\0", 10**9),
        "it is a BLP with a JPEG in it": b"BLP1" + struct.pack("<iIIIii", 0, 0, 9, 9, 5, 0),
        "it is IPTC, which holds a file of any kind": iptc(jpeg),
        "a FITS of over 4 million pixels, slow to read": fits(2049),
        "a BMP of over 4 million": bmp_of_runs(9).replace(bytes([9, 0, 0, 0] * 2), bytes([0, 9, 0, 0] * 2)),
        "a WEBP of over 0 million pixels: save it smaller, or as PNG": coded(Image.new("L", (9, 9)), "WEBP"),
        "pixels are over 16,777,216 bytes of text: save it as PNG": b"P2 9 9 255 " + b"0 " * 2**23,
        "5,000 by 2 pixels": icon(png(5000, 2)),
        "268,435,457 bytes, over 268,435,456: save it smaller": bytes(2**28 + 1),
    }
    for sentence, content in costly.items():
        with pytest.raises(UnreadableImageError, match=f"'a'.*{sentence}.*here"):
            decode_image(content, "a", "here")
    decode_image(jpeg_of_scans(100, 30), "a", "here")
    assert decode_image(fits(9), "a", "here").size == (9, 9)
    for slow in (bmp_of_runs(60), b"P5\n60 60\n254\n" + bytes(3600)):
        assert decode_image(slow, "a", "here").size == (60, 60)
    decode_image(b"P2 9 9 255 " + b"0 " * 81, "a", "here")
    decode_image(icon(png(32, 32)), "a", "here")
    assert decode_image(png(1000, 10), "a", "here").size == (1000, 10)


def test_what_isnt_decoded_here_is_bounded_before_it_is_resized():
    for preprocess in (Preprocess.square(32), OnWhite(lambda image: image)):
        with pytest.raises(ResidualError, match="3,300 by 32 pixels, and one side may be 100 times"):
            preprocess(Image.new("RGB", (3300, 32)))
    assert Preprocess.square(32)(Image.new("RGB", (3200, 32))).shape == (3, 32, 32)
    crop = transforms.CenterCrop(32)
    for preprocess in (
        Preprocess(resize=8192, crop=(32, 32)),
        OnWhite(transforms.Compose([transforms.Resize(8192), crop])),
        OnWhite(transforms.Compose([transforms.Resize([100_000]), crop])),
        OnWhite(transforms.Compose([transforms.Resize((100_000, 1000)), crop])),
        OnWhite(transforms.Compose([ResizeKeepRatio(8192), crop])),
    ):
        with pytest.raises(ResidualError, match="resized for its encoder it would have over 89 million"):
            preprocess(Image.new("RGB", (1000, 10)))
    for preprocess in (
        Preprocess(resize=518, crop=None),
        OnWhite(transforms.Compose([transforms.Resize((518, 518)), transforms.ToTensor()])),
    ):
        assert preprocess(Image.new("RGB", (400, 400))).shape == (3, 518, 518)


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


def test_what_is_behind_a_jpeg_or_a_preview_in_it_has_no_scans_of_its_own():
    preview = b"\xff\xe1" + struct.pack(">H", 40_002) + b"\xff\xda\xff\xd9" * 10_000
    jpeg = coded(Image.new("L", (1500, 1500), 100), "JPEG")
    video = b"\xff\xda\0\0" * 1000
    assert decode_image(jpeg[:2] + preview + jpeg[2:] + video, "a", "here").size == (1500, 1500)
    many = jpeg_of_scans(1500, 600)
    with pytest.raises(UnreadableImageError, match=r"JPEG of 6\d\d scans"):
        decode_image(many[:2] + preview + many[2:] + video, "a", "here")


def test_an_image_keeps_nothing_of_its_file():
    for kind in ("JPEG", "PNG", "MPO"):
        image = Image.new("RGB", (9, 9), "red")
        options = {"save_all": True, "append_images": [image]} if kind == "MPO" else {}
        seen = decode_image(coded(image, kind, **options), "a", "here")
        assert type(seen) is Image.Image
        assert seen.size == (9, 9)
        assert seen.getpixel((4, 4))[0] > 250
