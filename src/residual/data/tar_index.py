"""Where the images are in a shard: its tar headers are read once, what they say is kept in the cache folder.

Nothing is unpacked, so a member's name is only a name. webdataset's rule: files of one sample stand next to
each other and have the same name up to the first dot of its last part.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from residual.data.folder import SUFFIXES
from residual.data.shard_reader import Shard, opened, reaching
from residual.errors import ResidualError
from residual.files import cache_folder, write_text

FORMAT = "residual shard index 1"
LABEL_KEYS = ("label", "cls", "class", "class_id")
LARGEST_LABEL = 2**20
TOGETHER = "files of one sample stand next to each other and have one name up to its first dot"
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}


@dataclass(frozen=True)
class TarIndex:
    """The samples of one shard, in its order.

    Args:
        keys: names up to the first dot.
        labels: a class number or a text each.
        offsets: where the image begins in the shard, in bytes.
        sizes: of the image, in bytes.
    """

    keys: tuple[str, ...]
    labels: tuple[int | str, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def index_shard(shard: Shard) -> TarIndex:
    """The index of a shard: from the cache if the shard is the one that it was made of, else made and kept.

    Raises:
        ResidualError: it isn't a whole tar file, or a sample of it has no image, no label or another's key.
    """
    place = shard.path if shard.local else f"{shard.address} {shard.path}"
    path = cache_folder() / "shards" / f"{_sha256(place)[:32]}.json"
    shard_is = _sha256(place, shard.size, shard.version)
    if (known := _kept(path, shard_is)) is not None:
        return known
    with reaching(shard.path), opened(shard) as file:
        made = _read(file, shard)
    held = asdict(made)
    with contextlib.suppress(ResidualError):  # a cache that can't be written to costs time, nothing else
        head = {"format": FORMAT, "shard": shard_is, "checksum": _sha256(*held.values())}
        write_text(path, json.dumps(head | held))
    return made


def _kept(path: Path, shard_is: str) -> TarIndex | None:
    """What is in the cache, unless it is of another shard or damaged."""
    try:
        held = json.loads(path.read_bytes())
        index = TarIndex(*(tuple(held[name]) for name in ("keys", "labels", "offsets", "sizes")))
        checks = held["format"], held["shard"], held["checksum"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return index if checks == (FORMAT, shard_is, _sha256(*asdict(index).values())) else None


def _sha256(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(file: Any, shard: Shard) -> TarIndex:
    """One pass over the headers; images are passed over."""
    start = file.read(6)
    for magic, packer in _PACKED.items():
        if start.startswith(magic):
            raise ResidualError(
                f"Shard {shard.path!r} is packed by {packer}, so no image in it can be read alone. Unpack it "
                "to a plain .tar."
            )
    file.seek(0)
    samples = _Samples(shard)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isreg() and (name := _NAME.fullmatch(member.name)):
                    samples.add(tar, member, name[1], name[2].lower())
            end = tar.offset
        # tarfile takes a broken or missing header for the end, which is a block of zeros.
        file.seek(end)
        if file.read(512) != bytes(512):
            raise tarfile.ReadError("it has no end mark")
    except (tarfile.TarError, EOFError) as error:
        raise ResidualError(
            f"Shard {shard.path!r} is cut off, damaged or no tar file ({error}). Get it again."
        ) from error
    return samples.index()


class _Samples:
    """Gathers members into samples."""

    def __init__(self, shard: Shard):
        self._shard = shard
        self._rows: dict[str, tuple[int | str, int, int]] = {}
        self._key: str | None = None
        self._images: dict[str, tarfile.TarInfo] = {}
        self._labels: dict[str, bytes] = {}

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo, key: str, suffix: str) -> None:
        """Take in the next file of the shard."""
        if key != self._key:
            self._finish()
            self._key = key
        kind = f".{suffix}".rpartition(".")[2]
        if f".{kind}" in SUFFIXES:
            if suffix in self._images:
                raise self._wrong(f"has two files .{suffix}")
            self._images[suffix] = member
        elif kind in ("cls", "json") and member.size <= LARGEST_LABEL:
            content = tar.extractfile(member)
            self._labels[kind] = content.read() if content else b""

    def index(self) -> TarIndex:
        """All that was taken in."""
        self._finish()
        rows = self._rows.values()
        return TarIndex(
            tuple(self._rows), tuple(r[0] for r in rows), tuple(r[1] for r in rows), tuple(r[2] for r in rows)
        )

    def _finish(self) -> None:
        if self._key is None:
            return
        try:
            self._key.encode()
        except UnicodeEncodeError:
            raise self._wrong("has a name that isn't UTF-8: rename it") from None
        if self._key in self._rows:
            raise self._wrong("is there twice, or its files don't stand next to each other")
        label, image = self._label(), self._image()
        self._rows[self._key] = label, image.offset_data, image.size
        self._images, self._labels = {}, {}

    def _image(self) -> tarfile.TarInfo:
        """That of the shortest suffix: in `1.jpg, 1.mask.png` the picture is `1.jpg`."""
        by_depth = sorted(self._images, key=lambda suffix: suffix.count("."))
        if not by_depth:
            raise self._wrong(f"has no image ({', '.join(SUFFIXES)}); {TOGETHER}")
        first = by_depth[0]
        if len(by_depth) > 1 and by_depth[1].count(".") == first.count("."):
            raise self._wrong(f"has two images, .{first} and .{by_depth[1]}: which one is meant?")
        if self._images[first].issparse():
            raise self._wrong("is stored with holes (a sparse file): write the shard without them")
        return self._images[first]

    def _label(self) -> int | str:
        value: object = None
        try:
            if "cls" in self._labels:
                value = self._labels["cls"].decode("utf-8-sig").strip()
            elif "json" in self._labels:
                held = json.loads(self._labels["json"])
                known = [held[key] for key in LABEL_KEYS if key in held] if isinstance(held, dict) else []
                value = known[0] if known else None
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"has a label that can't be read ({error})") from error
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            value = int(value)
        if isinstance(value, str) and value.strip() and value.isprintable():
            return value.strip()
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if value is None:
            keys = ", ".join(map(repr, LABEL_KEYS))
            raise self._wrong(f"has no label (.cls, or .json with one of {keys}); {TOGETHER}")
        raise self._wrong(f"has the label {value!r}, which is neither a class number nor a class name")

    def _wrong(self, what: str) -> ResidualError:
        return ResidualError(f"Sample {self._key!r} of shard {self._shard.path!r} {what}.")
