"""What is in a split, in a small file: two people can tell whether they tested on the same images."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from residual.data.dataset import ImageDataset
from residual.errors import ResidualError
from residual.files import parse_json, read_regular, shareable, write_text
from residual.progress import Progress
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
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    sample_ids: tuple[str, ...]
    labels: np.ndarray
    digests: tuple[int, ...] | None = None

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
        return cls(
            dataset.name, dataset.split, dataset.class_names, dataset.sample_ids, dataset.labels, digests
        )

    @property
    def checksum(self) -> str:
        """SHA-256 of classes, ids and labels, in hex: whether two splits are of the same samples."""
        return _sha256([self.class_names, self.sample_ids, self.labels.tolist()])

    @property
    def contents_checksum(self) -> str | None:
        """SHA-256 of the images' digests, in hex: whether the samples are the same images."""
        return None if self.digests is None else _sha256(self.digests)

    def save(self, path: str | Path) -> None:
        """Write as JSON, a sample a line.

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
        lines = [
            json.dumps([sample, label, None if digest is None else f"{digest:016x}"], ensure_ascii=False)
            for sample, label, digest in zip(self.sample_ids, self.labels.tolist(), digests, strict=True)
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
            texts = all(isinstance(text, str) for text in (*names, *(sample for sample, _, _ in samples)))
            whole = all(type(label) is int and 0 <= label < len(names) for _, label, _ in samples)
            if fields["format"] != FORMAT or not texts or not whole:
                raise KeyError("format")
            digests = [digest for _, _, digest in samples]
            manifest = cls(
                name=fields["name"],
                split=fields["split"],
                class_names=tuple(names),
                sample_ids=tuple(sample for sample, _, _ in samples),
                labels=np.array([label for _, label, _ in samples], np.int64),
                digests=tuple(int(digest, 16) for digest in digests) if digests and digests[0] else None,
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
        if self.digests is not None and other.digests is not None:
            pairs = zip(self.digests, other.digests, strict=True)
            for sample, (ours, theirs) in zip(self.sample_ids, pairs, strict=True):
                if ours != theirs:
                    return f"{sample!r} is another image"
        return None


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
