"""From the bytes of an image file to an RGB image, upright and of 8 bits, or to one sentence on why not."""

from __future__ import annotations

import io
import re
import struct
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from residual.data.kinds import HEAD, PLUGINS, kind_by_content, lacking_plugin
from residual.errors import LeftOutWarning, UnreadableImageError, printable
from residual.pictures import MOST_BYTES, MOST_PIXELS, check_size, on_white

# What Pillow decodes by itself is read; the first it has Ghostscript run, and it opens what is in the second.
PROGRAMS = {"EPS": "a PostScript program, no picture", "IPTC": "IPTC, which holds a file of any kind"}
MOST_TEXT = 2**24  # bytes of pixels that are written as text, of which Pillow reads five million a second
# Of a file whose decoder keeps several copies of the picture; others have `MOST_PIXELS`.
MOST_OF = dict.fromkeys(("WEBP", "AVIF", "HEIF", "JPEG2000", "JXL"), 40_000_000)
# Of a file that Pillow decodes a pixel at a time in Python, a million in three seconds.
MOST_BY_ONE = 2**22
_BY_ONE = ("BLP1", "BLP2", "bmp_rle", "dds_rgb", "fits_gzip", "ppm", "qoi", "xpm")
_READS_OF_A_PIXEL = 4
MOST_OF_A_TILE = 2**24
MOST_READS = 500_000
MOST_SCANNED = 10**9  # pixels of all of a JPEG's scans together: seconds
_OF_A_SCAN = 2000  # pixels that beginning one costs as much as
_AT_ONCE = 2**20
_told: set[str] = set()  # where there are pictures of several frames
_OF_PLUGINS = {*PLUGINS.values()}
_ICONS = (b"\0\0\1\0", b"\0\0\2\0", b"icns")
_BLP_OF_JPEG = b"BLP1\0\0\0\0"
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # but for those of a byte alone, and filling
# What is found in the place of a picture.
_INSTEAD = {b"version https://git-lfs": "it is what Git LFS keeps in its place: pull it"}
_INSTEAD |= dict.fromkeys((b"<!doctype html", b"<html"), "it is a web page: download it again")
_INSTEAD |= dict.fromkeys((b"<svg", b"<?xml"), "it is a drawing of lines or a text: save it as PNG")
_PNG_INSIDE = re.compile(rb"\x89PNG\r\n\x1a\n....IHDR(.{8})", re.DOTALL)

TURNS = {
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

    That there are more frames or pages is told once for each place.

    Args:
        content: a whole file.
        sample_id: names it in the error.
        where: the folder, file or repository that it is from, for the error.

    Raises:
        UnreadableImageError: it is empty, cut off, no image that Pillow decodes by itself, or takes too long
            or too much memory to decode (`check_size`, and the numbers above).
    """
    try:
        if not content:
            raise ValueError("it is empty")
        if len(content) > MOST_BYTES:
            raise ValueError(f"its file has {len(content):,} bytes, over {MOST_BYTES:,}: save it smaller")
        if content.startswith(_ICONS):  # Pillow decodes what is in there as it opens them
            for size in _PNG_INSIDE.findall(content):
                check_size(*struct.unpack(">II", size))
        file = _Pieces(content)
        with _opened(file if len(content) > MOST_READS else io.BytesIO(content), content) as image:
            if _check_costs(image, content):
                file.most += _READS_OF_A_PIXEL * image.width * image.height
            more = _has_more(image) and where not in _told
            image.load()
            made = as_seen(image)
            # Pillow's own object keeps the file; copying the pixels would take a third as long as decoding.
            made = made._new(made.im) if made is image else made
    except Exception as problem:  # a decoder raises whatever a damaged file makes it trip over
        raise UnreadableImageError(sample_id, f"{_reason(problem, content)}; {where}") from problem
    if more:
        _told.add(where)
        told = f"{where}: {sample_id!r} has several frames or pages. Of all such pictures the first is read."
        with suppress(LeftOutWarning):  # where warnings are errors, a picture isn't unreadable for this one
            warnings.warn(printable(told), LeftOutWarning, stacklevel=2)
    return made


def _opened(file: io.BytesIO, content: bytes) -> Image.Image:
    """A picture that Pillow can open, once the plugin for its kind is registered."""
    kind = kind_by_content(content[:HEAD])
    if kind in _OF_PLUGINS:
        lacking_plugin(kind)
        if kind == "JPEG XL":  # it is decoded as it is opened
            _check_pixels("JXL", *jxl_size(content))
    return Image.open(file)


def _has_more(image: Any) -> bool:
    """Whether there are more frames or pages; the second picture in a phone's JPEG is no such."""
    if image.format == "TIFF":
        try:
            image.seek(1)
            image.seek(0)
        except EOFError:
            return False
        return True
    return image.format != "MPO" and getattr(image, "is_animated", False)


def jxl_size(content: bytes) -> tuple[int, int]:
    """Width and height of a JPEG XL, by ISO/IEC 18181-1, SizeHeader, in a box or without.

    Raises:
        ValueError: it doesn't tell them.
    """
    at, bits, place = 0, 0, 0
    while content[at : at + 2] != b"\xff\n":  # of boxes up to the one that the codestream begins in
        size, kind = struct.unpack_from(">I4s", content, at)
        head = 16 if size == 1 else 8
        if kind in (b"jxlc", b"jxlp"):
            at += head + 4 * (kind == b"jxlp")
            break
        size = struct.unpack_from(">Q", content, at + 8)[0] if size == 1 else size
        if size < head:
            raise ValueError("its boxes hold no picture")
        at += size
    bits = int.from_bytes(content[at + 2 : at + 18], "little")

    def read(count: int) -> int:
        nonlocal place
        place += count
        return bits >> place - count & (1 << count) - 1

    def side() -> int:
        return 8 * (read(5) + 1) if small else read((9, 13, 18, 30)[read(2)]) + 1

    small = read(1)
    height = side()
    ratio = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[read(3)]
    return height * ratio[0] // ratio[1] if ratio[0] else side(), height


def as_seen(image: Image.Image) -> Image.Image:
    """A decoded picture as RGB: upright as its EXIF says, with 8 bits, transparent parts on white.

    Raises:
        ValueError: its pixels are numbers that no picture of 8 bits can have.
    """
    if image.mode == "F":
        raise ValueError("its pixels are fractions: save it with 8 bits")
    turn = TURNS.get(orientation_of(image))
    seen = _eight_bits(image)
    return on_white(seen if turn is None else seen.transpose(turn))


class _Pieces(io.BytesIO):
    """A file that Pillow can't be made to walk through for minutes, a byte or an empty chunk at a time."""

    def __init__(self, content: bytes):
        super().__init__(content)
        self.reads, self.most = 0, MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > self.most:
            raise ValueError("its file is in too many small pieces: save it anew")
        return super().read(size)


def _check_costs(image: Any, content: bytes) -> bool:
    """Refuse what would cost much, before it is decoded; True of what is decoded a pixel at a time."""
    kind, pixels = image.format or "", image.width * image.height
    if kind in PROGRAMS:
        raise ValueError(f"it is {PROGRAMS[kind]}: save it as PNG")
    if content.startswith(_BLP_OF_JPEG):
        raise ValueError("it is a BLP with a JPEG in it: save it as PNG")
    _check_pixels(kind, *image.size)
    by_one = any(part[0] in _BY_ONE for part in getattr(image, "tile", ()))
    if by_one and pixels > MOST_BY_ONE:
        raise ValueError(
            f"it is a {kind} of over {MOST_BY_ONE / 1e6:.0f} million pixels, slow to read: save it as PNG"
        )
    if kind == "TIFF" and _tile(image) > MOST_OF_A_TILE:
        raise ValueError(
            f"it is in tiles of over {MOST_OF_A_TILE / 1e6:.0f} million pixels, or as many over: save as PNG"
        )
    if content[:2] in (b"P1", b"P2", b"P3") and len(content) > MOST_TEXT:
        raise ValueError(f"its pixels are over {MOST_TEXT:,} bytes of text: save it as PNG")
    each = pixels + _OF_A_SCAN
    # In the data of a JPEG no other byte than 0 follows FF; a scan has eleven bytes or more.
    scanned = kind in ("JPEG", "MPO") and len(content) // 11 * each > MOST_SCANNED
    if scanned and content.count(b"\xff\xda") * each > MOST_SCANNED:
        scans = _scans(content)
        if scans * each > MOST_SCANNED:
            raise ValueError(f"it is a JPEG of {scans:,} scans, too many for its size: save it anew")
    return by_one


def _check_pixels(kind: str, width: int, height: int) -> None:
    check_size(width, height)
    if width * height > MOST_OF.get(kind, width * height):
        raise ValueError(
            f"it is a {kind} of over {MOST_OF[kind] / 1e6:.0f} million pixels: save it smaller, or as PNG"
        )


def _scans(content: bytes) -> int:
    """Of a JPEG up to its end: a video or another picture may follow, and a preview be in it."""
    at, scans, left = 2, 0, MOST_READS
    while left and (found := MARKER.search(content, at)) and (marker := content[found.end() - 1]) != 0xD9:
        scans, left = scans + (marker == 0xDA), left - 1
        at = found.end()
        at += max(2, int.from_bytes(content[at : at + 2]))
    return scans if left else content.count(b"\xff\xda")


def _tile(image: Any) -> int:
    """Pixels of a TIFF's tile, which its decoder makes room for however small the picture is, or those that
    it decodes beyond the picture (but for three times as many as that has) where they are more.
    """
    width, height = (image.tag_v2.get(tag, 0) for tag in (322, 323))  # TileWidth, TileLength
    if not isinstance(width, int) or not isinstance(height, int):  # a text times a number is a long text
        raise ValueError("the size of its tiles is no number: save it as PNG")
    if width < 1 or height < 1:
        return 0
    tiles = -(-image.width // width) * -(-image.height // height)
    return max(width * height, tiles * width * height - 4 * image.width * image.height)


def orientation_of(image: Image.Image) -> object:
    """What EXIF says; nothing where it is damaged, for the picture itself may still be whole, and of a JPEG
    XL, which is turned as it is decoded unless it is made of a JPEG.
    """
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return None
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 12 or 16-bit grey as one of 8 bits; Pillow alone would cut its values off at 255, and
    takes 0 for black in a TIFF where it is white.
    """
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    tags = getattr(image, "tag_v2", {})
    white = 4095 if tags.get(258) == (12,) else 65535  # BitsPerSample
    turned = tags.get(262) == 0  # PhotometricInterpretation
    clear = image.info.get("transparency")  # one value that is see-through, so white like the paper below
    values = np.asarray(image)
    grey = np.empty(values.shape, np.uint8)
    whole, made = values.reshape(-1), grey.reshape(-1)
    for at in range(0, len(whole), _AT_ONCE):
        part = whole[at : at + _AT_ONCE]
        if part.min() < 0 or part.max() > white:
            raise ValueError(f"its pixels are numbers beyond 0 to {white:,}: save it with 8 bits")
        bright = (part.astype(np.uint32) * 255 + white // 2) // white  # to the nearest
        made[at : at + _AT_ONCE] = 255 - bright if turned else bright
        if clear is not None:
            made[at : at + _AT_ONCE][part == clear] = 255
    return Image.fromarray(grey)


def _reason(problem: Exception, content: bytes) -> str:
    if isinstance(problem, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has over {MOST_PIXELS / 1e6:.0f} million pixels: save it smaller"
    text = str(problem).split("\n")[0]
    if isinstance(problem, UnidentifiedImageError):
        if (kind := kind_by_content(content[:HEAD])) in _OF_PLUGINS and (lacking := lacking_plugin(kind)):
            return f"{lacking}, or save it as PNG"
        instead = (
            what for start, what in _INSTEAD.items() if content[:99].lstrip()[: len(start)].lower() == start
        )
        return next(instead, "it is no image of a known format")
    return text or type(problem).__name__
