"""Which files are pictures: by their ending, and by their first bytes where the ending doesn't say."""

from __future__ import annotations

import mimetypes
import os
import re
from functools import cache

from PIL import Image

# Pillow knows their endings; it decodes them with another program or not at all, or they hold any file.
NO_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")
# Pictures that Pillow reads with a plugin or, if it is new, by itself, and what the plugin is called.
PLUGINS = {"HEIC": "pillow-heif", "AVIF": "pillow-avif-plugin", "JPEG XL": "pillow-jxl-plugin"}
_OF_PLUGINS = {".heic", ".heif", ".hif", ".avif", ".avifs", ".jxl"}
# Of cameras: a TIFF to Pillow, which would take the small preview in it for the picture.
_RAW = "arw cr2 cr3 dng erf kdc nef nrw orf pef raf raw rw2 sr2 srw 3fr"
# What often lies beside pictures, and isn't worth a look into each.
_BESIDE = """npy npz mat pt pth pkl pickle ckpt safetensors onnx hdf5 lmdb mdb md yaml yml toml ini cfg jsonl
ipynb parquet arrow feather db sqlite log lock gz bz2 xz zst 7z rar xmp aae svg flac mkv"""
_NO_PICTURES = {f".{ending}" for ending in f"{_RAW} {_BESIDE}".split()}
# What programs keep beside a file, or haven't written to its end.
_COPIES = ("~", "#", ".bak", ".orig", "_original", ".part", ".partial", ".crdownload", ".tmp", ".swp")
# What systems and programs leave in folders, in small letters; some of it holds copies of pictures.
_LEFT_BY_SYSTEMS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information"}
_LEFT_BY_SYSTEMS |= {"lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
COMMON = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
HEAD = 32  # bytes that tell a kind
_SIGNATURES = {
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF....WEBP",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "BMP": rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "AVIF": rb"....ftypavi[fs]",
    "HEIC": rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)",
    "JPEG XL": rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a",
}
_KINDS = {kind: re.compile(signature, re.DOTALL) for kind, signature in _SIGNATURES.items()}


def picture_endings() -> frozenset[str]:
    """Endings (".png") of what Pillow decodes, with the plugins that are registered by now, and of what it
    may need a plugin for: what is a picture doesn't change with what is installed.
    """
    endings = Image.registered_extensions()  # it looks for plugins once
    return frozenset(_OF_PLUGINS).union(
        ending
        for ending, kind in endings.items()
        if (kind in Image.OPEN or kind == "MPO") and kind not in NO_PICTURES
    )


def kind_by_content(head: bytes) -> str | None:
    """What picture begins with these bytes (`HEAD` are enough); None of none, and of a rare one."""
    return next((kind for kind, signature in _KINDS.items() if signature.match(head)), None)


def tells_nothing(name: str) -> bool:
    """Whether a name's ending (".dat", none) is of no known kind of file, and only its content can tell."""
    ending = ending_of(name)
    if ending in _NO_PICTURES or name.lower().endswith(_COPIES):
        return False
    kind = _known().get(ending, "application/octet-stream")
    return kind == "application/octet-stream" or kind.startswith("image/")


@cache
def _known() -> dict[str, str]:
    return mimetypes.MimeTypes(filenames=()).types_map[True]  # Python's own, the same on every machine


def is_hidden(name: str) -> bool:
    """Whether a file or a folder is none of the user's: hidden, or left there by a system."""
    return name.startswith(".") or name.casefold() in _LEFT_BY_SYSTEMS


def ending_of(name: str) -> str:
    """ ".png" of "A.PNG"; "" where there is none."""
    return os.path.splitext(name)[1].lower()
