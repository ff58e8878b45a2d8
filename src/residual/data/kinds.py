"""Which files are pictures: by their ending, and by their first bytes where the ending doesn't say."""

from __future__ import annotations

import mimetypes
import os
import re
from functools import cache

from PIL import Image

# Pillow knows their endings; it decodes them with another program or not at all, or they hold any file.
NO_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")
# Pictures that Pillow reads with a plugin, or by itself if it is new: their kinds, by ending.
PLUGINS = dict.fromkeys((".heic", ".heif", ".hif"), "HEIC") | dict.fromkeys((".avif", ".avifs"), "AVIF")
PLUGINS |= {".jxl": "JPEG XL"}
# Of cameras: a TIFF to Pillow, which would take the small preview in it for the picture.
_RAW = "arw cr2 cr3 dng erf kdc nef nrw orf pef raf raw rw2 sr2 srw 3fr"
# What often lies beside pictures, and isn't worth a look into each.
_BESIDE = """npy npz mat pt pth pkl pickle ckpt safetensors onnx hdf5 lmdb mdb md yaml yml toml ini cfg jsonl
ipynb parquet arrow feather db sqlite log lock xmp aae svg flac mkv"""
ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
_RAWS = {f".{ending}" for ending in _RAW.split()}
_NO_PICTURES = _RAWS | ARCHIVES | {f".{ending}" for ending in _BESIDE.split()}
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
    return frozenset(PLUGINS).union(
        ending
        for ending, kind in endings.items()
        if (kind in Image.OPEN or kind == "MPO") and kind not in NO_PICTURES
    )


def kind_by_content(head: bytes) -> str | None:
    """What picture begins with these bytes (`HEAD` are enough); None of none, and of a rare one."""
    return next((kind for kind, signature in _KINDS.items() if signature.match(head)), None)


def lacking_plugin(kind: str) -> str:
    """Have Pillow read a kind that it needs a plugin for; what it lacks for that, "" of nothing.

    Plugins are loaded here, when the first such picture comes.
    """
    needs = _registered(kind)
    return needs and f"{kind} needs {needs}: pip install 'residual-vit[formats]'"


@cache
def _registered(kind: str) -> str:
    """Register a plugin; what it is called, if it isn't there."""
    try:
        if kind == "AVIF":
            Image.init()
            return "" if kind in Image.OPEN else "Pillow 11.3"
        if kind == "HEIC":
            import pillow_heif

            pillow_heif.register_heif_opener()
        else:
            import pillow_jxl  # noqa: F401 (it registers itself)
    except ImportError:
        return {"HEIC": "pillow-heif"}.get(kind, "pillow-jxl-plugin")
    return ""


def tells_nothing(name: str) -> bool:
    """Whether a name's ending (".dat", none) is of no known kind of file, and only its content can tell."""
    ending = ending_of(name)
    if ending in _NO_PICTURES or is_copy(name):
        return False
    kind = _known().get(ending, "application/octet-stream")
    return kind == "application/octet-stream" or kind.startswith("image/")


def may_lie(name: str) -> bool:
    """Whether a file may be a picture whatever its ending: of no camera's raw files, and no copy."""
    return ending_of(name) not in _RAWS and not is_copy(name)


def is_copy(name: str) -> bool:
    """Whether a program keeps it beside a file, or hasn't written it to its end."""
    return name.lower().endswith(_COPIES)


@cache
def _known() -> dict[str, str]:
    return mimetypes.MimeTypes(filenames=()).types_map[True]  # Python's own, the same on every machine


def is_hidden(name: str) -> bool:
    """Whether a file or a folder is none of the user's: hidden, or left there by a system."""
    return name.startswith(".") or name.casefold() in _LEFT_BY_SYSTEMS


def ending_of(name: str) -> str:
    """ ".png" of "A.PNG"; "" where there is none."""
    return os.path.splitext(name)[1].lower()
