"""What is in a split, in a small file: two people can tell whether they tested on the same images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from residual.data.dataset import ImageDataset
from residual.errors import ResidualError
from residual.files import parse_json, read_regular, shareable, write_text
from residual.outputs import check_file
from residual.products import MANIFEST
from residual.progress import Progress
from residual.texts import why_no_name
from residual.versions import check_fields, own_version, told_by_version

FORMAT = "residual split manifest 1"
_FIELDS = ("format", "versions", "name", "split", "checksum", "contents_checksum", "class_names", "samples")
MOST_BYTES = 2**30  # of a file: ten million samples


@dataclass(frozen=True)
class Manifest:
    """Classes, and every sample's id and label; with `digests` what its image is, too.

    Args:
        name: of the dataset.
        split: "train", "val" or "test".
        class_names: one a class.
        sample_ids: one a sample.
        labels: `(n,)`.
        digests: 64 bits of each sample's image (`ImageDataset.load_with_digest`), or None where the images
            weren't read.
        groups: the name of each sample's group (`ImageDataset.groups`), or None where there are none. In the
            file it is the fourth cell of a sample, which may be written in later: no checksum is of it.
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    sample_ids: tuple[str, ...]
    labels: np.ndarray
    digests: tuple[int, ...] | None = None
    groups: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        dataset: ImageDataset,
        contents: bool = False,
        progress: Progress | None = None,
    ) -> Manifest:
        """The manifest of a split; `contents` reads every image.

        Raises:
            UnreadableImageError: `contents`, and one can't be read.
            ResidualError: see `ImageDataset.check`.
        """
        dataset.check()
        digests = None
        if contents:
            read = []
            for index in range(len(dataset)):
                read.append(dataset.load_with_digest(index)[1])
                if progress is not None:
                    progress("read images", index + 1, len(dataset))
            digests = tuple(read)
        groups = None
        if dataset.groups is not None:
            groups = tuple(dataset.group_names[group] for group in dataset.groups.tolist())
        return cls(
            name=dataset.name,
            split=dataset.split,
            class_names=dataset.class_names,
            sample_ids=dataset.sample_ids,
            labels=dataset.labels,
            digests=digests,
            groups=groups,
        )

    @property
    def checksum(self) -> str:
        """SHA-256 of classes, ids and labels, in hex: whether two splits are of the same samples."""
        return _sha256([self.class_names, self.sample_ids, self.labels.tolist()])

    @property
    def contents_checksum(self) -> str | None:
        """SHA-256 of the images' digests, in hex: whether the samples are the same images."""
        return None if self.digests is None else _sha256(self.digests)

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write as JSON, a sample a line; an earlier one is replaced on request only.

        Raises:
            ExistingError, ForeignError: one is there already, see `overwrite`; or something else is.
            ResidualError: the place can't be written to.
        """
        check_file(path, MANIFEST, overwrite)
        self.keep(path)

    def keep(self, path: str | Path) -> None:
        """`save` in a place of the library's own, whatever was there.

        Raises:
            ResidualError: the place can't be written to.
        """
        head = {
            "format": FORMAT,
            "versions": own_version(),
            "name": shareable(self.name),
            "split": self.split,
            "checksum": self.checksum,
            "contents_checksum": self.contents_checksum,
            "class_names": self.class_names,
        }
        digests = self.digests or [None] * len(self.sample_ids)
        rows = zip(self.sample_ids, self.labels.tolist(), digests, self._cells(), strict=True)
        lines = [
            json.dumps(
                [sample, label, None if digest is None else f"{digest:016x}", *group], ensure_ascii=False
            )
            for sample, label, digest, group in rows
        ]
        text = json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}")
        samples = ",\n".join(lines)
        write_text(path, f'{text},\n "samples": [\n{samples}\n]\n}}\n')

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read what `save` wrote.

        Raises:
            LaterVersionError: a later version wrote it, and it can't be read or has fields that aren't known.
            ResidualError: the file isn't there, isn't a manifest, or was changed since.
        """
        with told_by_version(path):
            return cls._read(path)

    @classmethod
    def _read(cls, path: str | Path) -> Manifest:
        try:
            fields = parse_json(read_regular(path, MOST_BYTES), path)
            samples, names = fields["samples"], fields["class_names"]
            texts = all(isinstance(text, str) for text in (*names, *(sample for sample, *_ in samples)))
            whole = all(type(label) is int and 0 <= label < len(names) for _, label, *_ in samples)
            if fields["format"] != FORMAT or not texts or not whole:
                raise KeyError("format")
            digests = [digest for _, _, digest, *_ in samples]
            manifest = cls(
                name=fields["name"],
                split=fields["split"],
                class_names=tuple(names),
                sample_ids=tuple(sample for sample, *_ in samples),
                labels=np.array([label for _, label, *_ in samples], np.int64),
                digests=tuple(int(digest, 16) for digest in digests) if digests and digests[0] else None,
                groups=_groups(samples),
            )
            checksums = fields["checksum"], fields["contents_checksum"]
        except OSError as error:
            raise ResidualError(f"The manifest {str(path)!r} can't be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            why = f" ({error.message})" if isinstance(error, ResidualError) else ""
            raise ResidualError(f"{str(path)!r} is no manifest of a split{why}.") from error
        if checksums != (manifest.checksum, manifest.contents_checksum):
            raise ResidualError(
                f"The manifest {str(path)!r} was changed: its checksum doesn't fit what it says."
            )
        check_fields(fields, _FIELDS, path)
        return manifest

    def check(self, other: Manifest, whose: str) -> None:
        """Refuse another manifest that isn't of the same samples (and images, where both know those).

        Args:
            other: the one at hand.
            whose: names it, as in "the manifest 'test.json'".

        Raises:
            ResidualError: it says what differs first.
        """
        if difference := self._difference(other):
            raise ResidualError(
                f"{self.name} {self.split} isn't what {whose} says: {difference}. These are other "
                "images than those that it was written for."
            )

    def _difference(self, other: Manifest) -> str | None:
        if self.class_names != other.class_names:
            ours, theirs = set(self.class_names), set(other.class_names)
            odd = sorted(ours ^ theirs)
            what = f"classes {', '.join(map(repr, odd[:3]))} are in one only" if odd else "in another order"
            return (
                f"the classes differ ({len(self.class_names)} here, {len(other.class_names)} there; {what})"
            )
        if len(self.sample_ids) != len(other.sample_ids):
            odd = sorted(set(self.sample_ids) ^ set(other.sample_ids))
            example = f", such as {odd[0]!r}" if odd else ""
            return (
                f"{len(self.sample_ids):,} samples here, {len(other.sample_ids):,} there; {len(odd):,} of "
                f"them in one only{example}"
            )
        for number, (ours, theirs) in enumerate(zip(self.sample_ids, other.sample_ids, strict=True)):
            if ours != theirs:
                return f"sample {number} is {ours!r} here, {theirs!r} there"
        if (at := np.flatnonzero(self.labels != other.labels)).size:
            ours, theirs = (self.class_names[each.labels[at[0]]] for each in (self, other))
            return f"{self.sample_ids[at[0]]!r} is {ours!r} here, {theirs!r} there"
        if self.groups is not None and other.groups is not None and self.groups != other.groups:
            rows = zip(self.sample_ids, self.groups, other.groups, strict=True)
            sample, ours, theirs = next(row for row in rows if row[1] != row[2])
            return f"{sample!r} is of the group {ours!r} here, {theirs!r} there"
        if self.digests is not None and other.digests is not None:
            pairs = zip(self.digests, other.digests, strict=True)
            for sample, (ours, theirs) in zip(self.sample_ids, pairs, strict=True):
                if ours != theirs:
                    return f"{sample!r} is another image"
        return None

    def _cells(self) -> Iterable[tuple[str, ...]]:
        return [()] * len(self.sample_ids) if self.groups is None else zip(self.groups)


def give_groups(dataset: ImageDataset, manifests: Sequence[Manifest]) -> None:
    """Give a split without groups those of its manifest.

    Args:
        dataset: it fits the first manifest.
        manifests: its own, and those of other splits, so that all have the same names of groups.

    Raises:
        ResidualError: a name is too long.
    """
    own = manifests[0].groups
    if own is None or dataset.groups is not None:
        return
    names = sorted({name for each in manifests for name in each.groups or ()})
    number = {name: index for index, name in enumerate(names)}
    dataset.groups = np.array([number[name] for name in own], np.int64)
    dataset.group_names = tuple(names)
    dataset.check()


def _groups(samples: Sequence[Sequence[Any]]) -> tuple[str, ...] | None:
    """The fourth cell of every sample, where one has it."""
    if all(len(cells) == 3 for cells in samples):
        return None
    for sample, _, _, *cells in samples:
        why = why_no_name(cells[0]) if len(cells) == 1 and isinstance(cells[0], str) else "is no text"
        if why:
            raise ResidualError(f"the group of {sample!r} {why if cells else 'is missing'}")
    return tuple(group for _, _, _, group in samples)


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
