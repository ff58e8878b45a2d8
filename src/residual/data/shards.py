"""webdataset shards as a dataset, read where they are: `wds:ADDRESS`.

A shard's tar headers are read once, by Python's `tarfile`; what they say is kept in the cache folder. Nothing
is unpacked, so a member's name is only a name. webdataset's rule: files of one sample stand next to each
other and have the same name up to the first dot of its last part.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from residual.data.dataset import MOST_CLASSES, OWN_LICENCE, FileDataset, tell_unused
from residual.data.folder import TEMPLATES
from residual.data.kinds import COMMON, HEAD, is_hidden, kind_by_content, picture_endings
from residual.data.shard_files import FORMS, Shard, ShardReader, find_shards, for_each, read_beside
from residual.data.splits import divided_part, rows_of_parts
from residual.errors import ResidualError, UnreadableImageError
from residual.files import cache_folder, shareable, write_text
from residual.pictures import MOST_BYTES
from residual.texts import distinct, folded, text_lines, why_no_name

CLASS_FILES = ("classnames.txt", "classes.txt")
TEMPLATE_FILE = "zeroshot_classification_templates.txt"
FORMAT = "residual shard index 2"  # what is read of a shard: an index made by other rules is made anew
LABEL_KEYS = ("label", "cls", "class", "class_id")
LARGEST_HEADER = 2**16  # bytes of long names and attributes
LARGEST_LABEL = 2**20
TOGETHER = "files of one sample stand next to each other and have one name up to its first dot"
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENDED += (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}


class ShardsDataset(FileDataset):
    """One split of webdataset shards; `sample_ids` are `SHARD/KEY`, and images are read out of the tar files.

    Addresses are paths or fsspec URLs. `shards/{000..012}.tar`, `{a,b}.tar` and `*.tar` are one set of
    samples, split 60/20/20; with `{split}` in it, an address stands for train, val and test; a folder has
    `train/*.tar` and `test/*.tar` in it, as those of CLIP_benchmark have. Where there is no val it is 20 % of
    train. Splits made here keep the classes' proportions and never change (seed 42, in the shards' order).
    Labels are `.cls` or `.json`. Class names and templates are those of files beside the shards, if any.

    Raises:
        ResidualError: shards are missing, cut off or packed; a sample has no image or no label; a class has
            too few samples.
    """

    def __init__(self, address: str, split: str):
        if not address:
            raise ResidualError(f"'wds:' needs an address after it. {FORMS}")
        self._address = address
        given = find_shards(address)
        source, parts = divided_part(split, given)
        shards, named_by = given[source], given.get("train", given[source])
        names = _class_names(address, named_by[0])
        indexes = for_each(index_shard, shards)
        if names is None:
            others = indexes if named_by is shards else for_each(index_shard, named_by)
            names = _names_of_labels(address, [label for index in others for label in index.labels])
        if len(names) < 2:
            raise ResidualError(
                f"The shards {address!r} have only one class, {names[0]!r}; telling classes apart needs two "
                "or more."
            )
        labels = _class_numbers(shards, indexes, names)
        rows = rows_of_parts(labels, parts, repr(address), names)[split]
        if named_by is shards:  # or the other splits would have to be gone through for this alone
            tell_unused(names, labels, f"wds:{shareable(without_query(address))}")
        self._reader = ShardReader(shards)
        self._shards = np.repeat(np.arange(len(indexes)), [len(index.keys) for index in indexes])[rows]
        self._offsets = np.array([n for index in indexes for n in index.offsets], np.int64)[rows]
        self._sizes = np.array([n for index in indexes for n in index.sizes], np.int64)[rows]
        ids = [f"{s.name}/{key}" for s, index in zip(shards, indexes, strict=True) for key in index.keys]
        super().__init__(
            f"wds:{without_query(address)}",
            split,
            names,
            _templates(address, named_by[0]),
            labels[rows],
            [ids[row] for row in rows],
            OWN_LICENCE,
        )

    def content(self, index: int) -> bytes:
        """The bytes of sample `index`'s image.

        Raises:
            UnreadableImageError: it is too large.
            ResidualError: its shard can't be read any more.
        """
        if self._sizes[index] > MOST_BYTES:
            reason = f"it has {self._sizes[index]:,} bytes, at most {MOST_BYTES:,} are read; {self.where}"
            raise UnreadableImageError(self.sample_ids[index], reason)
        return self._reader.read(int(self._shards[index]), int(self._offsets[index]), int(self._sizes[index]))

    @property
    def where(self) -> str:
        """Named in errors."""
        return shareable(self.name)


def without_query(address: str) -> str:
    """A URL without what follows `?`: a signed one has a key there, and names are written down."""
    return re.sub(r"\?[^/]*$", "", address) if "://" in address else address


def _class_names(address: str, shard: Shard) -> list[str] | None:
    for file in CLASS_FILES:
        if (text := read_beside(address, shard, file)) is not None:
            names = text_lines(text)
            for number, name in enumerate(names or [""], 1):
                if why := why_no_name(name):
                    raise ResidualError(
                        f"Line {number} of {file} of {address!r} {why}; it must have a class name on every "
                        "line."
                    )
            return names
    return None


def _templates(address: str, shard: Shard) -> list[str] | tuple[str, ...]:
    text = read_beside(address, shard, TEMPLATE_FILE)
    if text is None:
        return TEMPLATES
    templates = [line.replace("{c}", "{}") for line in text_lines(text) if line]
    if wrong := [line for line in templates if line.count("{}") != 1]:
        raise ResidualError(
            f"A template in {TEMPLATE_FILE} of {address!r} must have one {{c}}: {wrong[0]!r}."
        )
    return templates or TEMPLATES


def _names_of_labels(address: str, labels: list[int | str]) -> list[str]:
    numbers = [label for label in labels if isinstance(label, int)]
    if not labels:
        raise ResidualError(f"The shards {address!r} have no samples.")
    if not numbers:
        return distinct(map(str, labels))
    if len(numbers) < len(labels):
        raise ResidualError(
            f"The labels of {address!r} are numbers in some samples and texts in others. Use one of both, or "
            "put all class names into classnames.txt."
        )
    if max(numbers) >= MOST_CLASSES:
        raise ResidualError(f"Label {max(numbers)} of {address!r} is too large for a class number from 0 on.")
    return [str(number) for number in range(max(numbers) + 1)]


def _class_numbers(shards: tuple[Shard, ...], indexes: list[TarIndex], names: list[str]) -> np.ndarray:
    """The class of each sample: a number is one already, a text is looked up among the names."""
    known: dict[int | str, int] = {number: number for number in range(len(names))}
    numbers_of: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers_of.setdefault(folded(name), []).append(number)
    labels = []
    for shard, index in zip(shards, indexes, strict=True):
        for key, label in zip(index.keys, index.labels, strict=True):
            if label not in known:
                found = numbers_of.get(folded(label), []) if isinstance(label, str) else []
                if len(found) != 1:
                    which = "several" if found else "none"
                    raise _refused(
                        shard,
                        key,
                        f"has the label {label!r}, which is {which} of the {len(names)} classes (those of "
                        "classnames.txt or of train)",
                    )
                known[label] = found[0]
            labels.append(known[label])
    if not labels:
        raise ResidualError(f"The {len(shards)} shards from {shards[0].path!r} on have no samples.")
    return np.array(labels, np.int64)


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
    path = shard.path if shard.local else f"{shard.address} {shard.path}"
    kept = cache_folder() / "shards" / f"{_sha256(path)[:32]}.json"
    made_of = _sha256(path, shard.size, shard.version)
    if shard.version and (known := _kept_index(kept, made_of)) is not None:
        return known
    with shard.opened() as file:
        index = _read_index(file, shard)
    if shard.version:  # or nobody could tell that the shard is another one now
        fields = asdict(index)
        head = {"format": FORMAT, "shard": made_of, "checksum": _sha256(*fields.values())}
        with contextlib.suppress(ResidualError):  # a cache that can't be written to costs time, nothing else
            write_text(kept, json.dumps(head | fields))
    return index


def _kept_index(path: Path, made_of: str) -> TarIndex | None:
    """What is in the cache, unless it is of another shard or damaged."""
    try:
        fields = json.loads(path.read_bytes())
        index = TarIndex(*(tuple(fields[name]) for name in ("keys", "labels", "offsets", "sizes")))
        checks = fields["format"], fields["shard"], fields["checksum"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return index if checks == (FORMAT, made_of, _sha256(*asdict(index).values())) else None


def _sha256(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read_index(file: Any, shard: Shard) -> TarIndex:
    """One pass over the headers; images are passed over."""
    start = file.read(6)
    for magic, packer in _PACKED.items():
        if start.startswith(magic):
            raise ResidualError(
                f"Shard {shard.path!r} is packed by {packer}, so no image in it can be read alone. Unpack it "
                "to a plain .tar."
            )
    file.seek(0)
    rows: dict[str, tuple[int | str, int, int]] = {}
    endings = picture_endings()
    problem: ResidualError | None = None
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as tar:
            files = _named_files(tar, shard)
            for key, group in itertools.groupby(files, key=lambda file: file[0]):
                of_key = [
                    (suffix, member, _label_content(tar, suffix, member)) for _, suffix, member in group
                ]
                try:
                    if key in rows:
                        raise _refused(shard, key, f"is there twice, or not all in one place; {TOGETHER}")
                    rows[key] = _sample(shard, key, of_key, endings)
                except ResidualError as error:  # of a shard that is cut off that is told instead
                    problem = problem or error
            end = tar.offset
        # tarfile takes a broken or missing header for the end, which is a block of zeros.
        file.seek(end)
        if file.read(512) != bytes(512):
            raise tarfile.ReadError("it has no end mark")
    except ResidualError:
        raise
    except (tarfile.TarError, EOFError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise ResidualError(
            f"Shard {shard.path!r} is cut off, damaged or no tar file ({error}). Get it again."
        ) from error
    if problem:
        raise problem
    labels, offsets, sizes = zip(*rows.values(), strict=True) if rows else ((), (), ())
    return TarIndex(tuple(rows), labels, offsets, sizes)


class _Member(tarfile.TarInfo):
    """A header of less than nothing, or of longer names and attributes than anyone has, ends the reading:
    tarfile itself would go back for ever, or take them all into memory.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        """A header, from its 512 bytes."""
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _EXTENDED and member.size > LARGEST_HEADER):
            raise ValueError(f"a header says {member.size:,} bytes")
        return member


def _members(tar: Any) -> Iterator[tarfile.TarInfo]:
    """Each in turn, none kept; sizes in extended headers are read after the headers, so tested here."""
    while (member := tar.next()) is not None:
        if member.size < 0 or tar.offset <= member.offset or len(tar.pax_headers) > 1000:
            raise ValueError(f"the headers of {member.name!r} make no sense")
        tar.members.clear()
        yield member


def _named_files(tar: Any, shard: Shard) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, suffix and member of each file; a picture without a suffix would be missing unsaid."""
    for member in _members(tar):
        if not member.isreg():
            continue
        if name := _NAME.fullmatch(member.name):
            yield name[1], name[2].lower(), member
        elif not is_hidden(member.name.rpartition("/")[2]):
            content = tar.extractfile(member)
            if content and kind_by_content(content.read(HEAD)):
                raise _refused(shard, member.name, f"is an image whose name has no ending; {TOGETHER}")


def _label_content(tar: tarfile.TarFile, suffix: str, member: tarfile.TarInfo) -> bytes | None:
    """What a file of a label says; None of any other."""
    if suffix.rpartition(".")[2] not in ("cls", "json") or member.size > LARGEST_LABEL:
        return None
    content = tar.extractfile(member)
    return content.read() if content else b""


def _sample(
    shard: Shard, key: str, files: list[tuple[str, tarfile.TarInfo, bytes | None]], endings: frozenset[str]
) -> tuple:
    """Label, offset and size of the sample that these (suffix, member, content) are."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, bytes] = {}
    for suffix, member, content in files:
        kind = suffix.rpartition(".")[2]
        if content is not None:
            labels[kind] = content
        elif f".{kind}" in endings:
            if suffix in images:
                raise _refused(shard, key, f"has two files .{suffix}")
            images[suffix] = member
    try:
        key.encode()
    except UnicodeEncodeError:
        raise _refused(shard, key, "has a name that isn't UTF-8: rename it") from None
    label = _label(shard, key, labels)
    # The image is that of the shortest suffix: in `1.jpg, 1.mask.png` the picture is `1.jpg`; and a rarer
    # format beside a common one isn't the picture.
    common = [suffix for suffix in images if f".{suffix.rpartition('.')[2]}" in COMMON]
    by_depth = sorted(common or images, key=lambda suffix: suffix.count("."))
    if not by_depth:
        there = ", ".join(f".{suffix}" for suffix, _, _ in files[:5])
        raise _refused(shard, key, f"has no image, only {there}; {TOGETHER}")
    if len(by_depth) > 1 and by_depth[1].count(".") == by_depth[0].count("."):
        raise _refused(
            shard, key, f"has two images, .{by_depth[0]} and .{by_depth[1]}: leave the one that is meant"
        )
    image = images[by_depth[0]]
    if image.issparse():
        raise _refused(shard, key, "is stored with holes (a sparse file): write the shard without them")
    return label, image.offset_data, image.size


def _label(shard: Shard, key: str, files: dict[str, bytes]) -> int | str:
    value: object = None
    try:
        if "cls" in files:
            value = files["cls"].decode("utf-8-sig").strip()
        elif "json" in files:
            fields = json.loads(files["json"])
            known = (
                [fields[name] for name in LABEL_KEYS if name in fields] if isinstance(fields, dict) else []
            )
            value = known[0] if known else None
    except (ValueError, RecursionError) as error:
        raise _refused(shard, key, f"has a label that can't be read ({error})") from error
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        value = int(value)
    if isinstance(value, str) and not why_no_name(value):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if value is None:
        keys = ", ".join(map(repr, LABEL_KEYS))
        raise _refused(shard, key, f"has no label (.cls, or .json with one of {keys}); {TOGETHER}")
    raise _refused(shard, key, f"has the label {value!r}, which is neither a class number nor a class name")


def _refused(shard: Shard, key: str, why: str) -> ResidualError:
    return ResidualError(f"Sample {key!r} of shard {shard.path!r} {why}.")
