"""Which JPEGs any decoder reads, and reads alike: those that may be decoded by another one than Pillow.

Baseline, 8 bits, YCbCr in the usual samplings, one scan, upright, and whole up to its end. Everything else is
Pillow's: it tells what is damaged, and other decoders know less of turns, CMYK and the like.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image

from residual.data.decode import MARKER, TURNS, orientation_of
from residual.pictures import MOST_BYTES

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_FRAME, _SCAN, _HUFFMAN, _QUANTISATION = 0xC0, 0xDA, 0xC4, 0xDB
_RESTART, _COMMENT, _ADOBE = 0xDD, 0xFE, 0xEE
_SAMPLINGS = {0x11, 0x12, 0x21, 0x22}  # of luma; chroma has 0x11
_MOST_SEGMENTS = 1000
_LONGEST_CODE = 16  # bits


def plain_jpeg(content: bytes) -> tuple[int, int] | None:
    """Height and width of such a JPEG; None of any other file.

    Args:
        content: a whole file.
    """
    if not content.startswith(_START) or not content.endswith(_END) or len(content) > MOST_BYTES:
        return None
    frame, tables, codes = b"", set[int](), set[int]()
    for marker, body in _segments(content):
        if marker == _FRAME and not frame:
            frame = body
        elif marker == _QUANTISATION:
            if len(body) % 65 or any(kind > 3 for kind in body[::65]):  # of 8 bits, and so many
                return None
            tables |= set(body[::65])
        elif marker == _HUFFMAN:
            if not (found := _huffman(body)):
                return None
            codes |= found
        elif marker == _SCAN:
            fits = _fits(frame, body, tables, codes) and _upright(content)
            return (int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])) if fits else None
        elif not _adds_nothing(marker, body):
            return None
    return None


def _adds_nothing(marker: int, body: bytes) -> bool:
    """Whether a segment is text, data of programs, or the distance of restarts; of Adobe's only YCbCr."""
    if marker == _ADOBE and body.startswith(b"Adobe"):
        return body[11:] == b"\1"
    return 0xE0 <= marker <= 0xEF or marker == _COMMENT or (marker == _RESTART and len(body) == 2)


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers and what belongs to them, up to the scan; if that is followed by anything but the end, none."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        start, marker = content[at : at + 1], content[at + 1]
        length = int.from_bytes(content[at + 2 : at + 4])
        if start != b"\xff" or length < 2 or at + 2 + length > len(content) - 2:
            return
        body = content[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == _SCAN:
            end = MARKER.search(content, at)
            if end is None or end.start() != len(content) - 2:
                return
        yield marker, body


def _fits(frame: bytes, scan: bytes, tables: set[int], codes: set[int]) -> bool:
    """Whether a frame is of 8 bits and three usual components, and the scan of all of them."""
    if len(frame) != 15 or frame[0] != 8 or not any(frame[1:3]) or not any(frame[3:5]) or frame[5] != 3:
        return False
    parts = [frame[at : at + 3] for at in (6, 9, 12)]  # number, sampling, table
    sampled = parts[0][1] in _SAMPLINGS and parts[1][1] == parts[2][1] == 0x11
    if [part[0] for part in parts] != [1, 2, 3] or not sampled or not {part[2] for part in parts} <= tables:
        return False
    if len(scan) != 10 or scan[0] != 3 or scan[7:] != b"\0\x3f\0" or scan[1:7:2] != b"\1\2\3":
        return False
    used = {0x00 | each >> 4 for each in scan[2:7:2]} | {0x10 | each & 15 for each in scan[2:7:2]}
    return used <= codes


def _huffman(body: bytes) -> set[int]:
    """Which tables of codes these are (0x10 and on for those of AC); none if one of them is no such table."""
    found, at = set[int](), 0
    while at < len(body):
        kind, counts = body[at], body[at + 1 : at + 17]
        symbols = body[at + 17 : at + 17 + sum(counts)]
        at += 17 + sum(counts)
        if len(counts) != _LONGEST_CODE or kind not in (0, 1, 0x10, 0x11) or at > len(body):
            return set()
        room = 1
        for count in counts:
            room = 2 * room - count
            if room < 0:
                return set()
        if kind < 2 and max(symbols, default=0) > 11:  # bits of a difference of 8-bit values
            return set()
        found.add(kind)
    return found


def _upright(content: bytes) -> bool:
    """Whether Pillow opens it as one JPEG in colours that isn't turned."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            return image.format == "JPEG" and image.mode == "RGB" and orientation_of(image) not in TURNS
    except Exception:  # whatever a damaged file makes it trip over, it will tell as it decodes it
        return False
