"""What a store says of itself: its manifest, and a receipt for every shard that is whole.

Both are JSON with a checksum of their own, and neither holds a time: the same run writes the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from residual.data import ImageDataset, Manifest
from residual.encoders.encoder import Encoder
from residual.errors import DamagedStoreError, OtherResultError, ResidualError
from residual.hashing import sha256
from residual.libraries import version_of
from residual.store.layout import Layout
from residual.store.storage import Storage
from residual.tracing.coordinates import KIND_OF
from residual.tracing.units import KINDS

FORMAT = "residual store 1"
MANIFEST = "manifest.json"
LINEARIZATION = "linearization.safetensors"
UNITS = "units.json"
RECEIPTS = "receipts"
# Whatever else is in a folder is not a store's.
OWN_FILES = {
    *(MANIFEST, LINEARIZATION, UNITS, RECEIPTS, "zarr.json", "mean", "std", "digest"),
    *(*KIND_OF, "label", "sample_id", "sample_id_end", "group"),
}
_LIBRARIES = ("residual-vit", "torch", "torchvision", "transformers", "numpy", "pillow", "zarr")


def versions() -> dict[str, str]:
    """Of the libraries that what is stored depends on."""
    return {name: version_of(name) for name in _LIBRARIES}


def identity_of(
    encoder: Encoder, dataset: ImageDataset, pooling: str, kinds: tuple[str, ...], dtype: str
) -> dict[str, Any]:
    """What a store is of; a run with another identity is refused."""
    return {
        "encoder": {
            "name": encoder.name,
            "weights": encoder.fingerprint,
            "split": encoder.centering,
            "precision": str(encoder.dtype).removeprefix("torch."),
            "preprocessing": re.sub(r" at 0x[0-9a-f]+", "", repr(encoder.preprocess)),
        },
        "dataset": {
            "name": dataset.name,
            "split": dataset.split,
            "samples": len(dataset),
            "checksum": Manifest.of(dataset).checksum,
            "class_names": list(dataset.class_names),
            "group_names": list(dataset.group_names),
            "groups": None if dataset.groups is None else sha256(dataset.groups.astype("<i8").tobytes()),
            "licence": dataset.licence,
        },
        "settings": {"pooling": pooling, "kinds": [kind for kind in KINDS if kind in kinds], "dtype": dtype},
    }


def check_identity(stored: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
    """Refuse to go on with a store of something else.

    Raises:
        OtherResultError: says what differs, by name.
    """
    stored, wanted = _in_words(stored), _in_words(wanted)
    differing = [
        f"{name} {stored[name]}, not {wanted[name]}" for name in wanted if stored[name] != wanted[name]
    ]
    if differing:
        raise OtherResultError(f"{where!r} holds something else: {'; '.join(differing)}.")


def _in_words(identity: dict[str, Any]) -> dict[str, str]:
    encoder, dataset, settings = identity["encoder"], identity["dataset"], identity["settings"]
    return {
        "encoder weights": encoder["weights"][:16],
        "centering of the last norm": repr(encoder["split"]),
        "encoder precision": encoder["precision"],
        "preprocessing": encoder["preprocessing"],
        "dataset": f"{dataset['name']}/{dataset['split']}",
        "number of samples": f"{dataset['samples']:,}",
        "samples and labels (checksum)": dataset["checksum"][:16],
        "groups (checksum)": (dataset["groups"] or "none")[:16],
        "names of groups": ", ".join(dataset["group_names"]) or "none",
        "pooling": repr(settings["pooling"]),
        "kinds": ", ".join(settings["kinds"]),
        "dtype": settings["dtype"],
    }


@dataclass(frozen=True)
class Receipt:
    """A shard is whole: every file of it is on the disk.

    Args:
        of: what the store is of (`StoreManifest.mark`).
        shard: its number.
        sizes: bytes of its file in every array.
        checksums: their SHA-256. Chunks have their own; these tell a whole file of another shard or store.
        skipped: samples that can't be read, and why.
        versions: of libraries that are others than those of the manifest.
    """

    of: str
    shard: int
    sizes: dict[str, int]
    checksums: dict[str, str]
    skipped: dict[int, str]
    versions: dict[str, str]

    @staticmethod
    def file(shard: int) -> str:
        """The name of its file."""
        return f"{RECEIPTS}/{shard:06d}.json"

    def pack(self) -> bytes:
        """As signed JSON."""
        return signed(asdict(self))


@dataclass(frozen=True)
class StoreManifest:
    """What a store is of, how it is laid out, and the SHA-256 of every file that isn't of samples.

    Args:
        identity: see `identity_of`.
        layout: of its arrays.
        versions: of libraries, see `versions`.
        files: SHA-256 by name.
    """

    identity: dict[str, Any]
    layout: Layout
    versions: dict[str, str]
    files: dict[str, str]

    @cached_property
    def mark(self) -> str:
        """What the store is of and how it is cut, in 16 hex digits."""
        return sha256(_text({**self.identity, "layout": self.layout.as_json()}).encode())[:16]

    def receipt(self, shard: int, data: bytes, where: str) -> Receipt:
        """Read what `Receipt.pack` made, if it is of this shard.

        Raises:
            DamagedStoreError: it is damaged, or of another store or shard.
        """
        content = read_signed(data, where)
        skipped = {int(position): reason for position, reason in content.pop("skipped").items()}
        known = {field.name: content[field.name] for field in fields(Receipt) if field.name != "skipped"}
        receipt = Receipt(**known, skipped=skipped)
        if (receipt.of, receipt.shard) != (self.mark, shard):
            other = "store" if receipt.of != self.mark else "shard"
            raise DamagedStoreError(f"{where} is of another {other}.")
        return receipt

    def pack(self) -> bytes:
        """As signed JSON."""
        content = {"format": FORMAT, **self.identity, "layout": self.layout.as_json()}
        return signed({**content, "versions": self.versions, "files": self.files})

    @classmethod
    def unpack(cls, data: bytes, where: str) -> StoreManifest:
        """Read what `pack` made.

        Raises:
            ResidualError: it is damaged, or of a format that this version doesn't know.
        """
        content = read_signed(data, where)
        if content.get("format") != FORMAT:
            raise ResidualError(
                f"{where} is of the format {content.get('format')!r}; this version of the library reads "
                f"{FORMAT!r}."
            )
        identity = {name: content[name] for name in ("encoder", "dataset", "settings")}
        return cls(identity, Layout.from_json(content["layout"]), content["versions"], content["files"])


def read_manifest(storage: Storage) -> StoreManifest | None:
    """The manifest of a store; None where there is no store.

    Raises:
        ResidualError: as `StoreManifest.unpack`.
    """
    try:
        data = storage.read(MANIFEST)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    return StoreManifest.unpack(data, f"{storage.address}/{MANIFEST}")


def packed_receipts(storage: Storage, shards: Iterable[int], names: Container[str]) -> dict[int, bytes]:
    """The receipts of those shards that have one among the files `names`, as they were packed."""
    whole = [shard for shard in shards if Receipt.file(shard) in names]
    return dict(zip(whole, storage.read_all([Receipt.file(shard) for shard in whole]), strict=True))


def signed(content: dict[str, Any]) -> bytes:
    """JSON with the SHA-256 of the rest as its last field."""
    return (_text({**content, "checksum": sha256(_text(content).encode())}) + "\n").encode()


def read_signed(data: bytes, where: str) -> dict[str, Any]:
    """Read what `signed` made.

    Raises:
        DamagedStoreError: a byte was changed, or it is something else.
    """
    try:
        content = json.loads(data)
        checksum = content.pop("checksum")
        fits = checksum == sha256(_text(content).encode()) and data == signed(content)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedStoreError(f"{where} is damaged: it isn't what was written.") from error
    if not fits:
        raise DamagedStoreError(f"{where} is damaged: its checksum doesn't fit what it says.")
    return content


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1)
