"""What a store says of itself: its manifest, and a receipt for every shard that is whole.

Both are JSON with a checksum of their own, and neither holds a time: the same run writes the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from residual.data import ImageDataset, Manifest
from residual.encoders.encoder import Encoder
from residual.errors import DamagedStoreError, OtherResultError, ResidualError
from residual.files import shareable
from residual.hashing import sha256
from residual.libraries import version_of
from residual.store.encoding import CPU, GPU
from residual.store.form import FormError, check_form
from residual.store.layout import WHOLE, Layout
from residual.store.storage import Storage
from residual.tracing.coordinates import KIND_OF
from residual.tracing.units import KINDS
from residual.versions import check_fields, told_by_version

FORMAT = "residual store 1"
MANIFEST = "manifest.json"
LINEARIZATION = "linearization.safetensors"
UNITS = "units.json"
RECEIPTS = "receipts"
# Whatever else is in a folder is not a store's.
OWN_FILES = {
    *(MANIFEST, LINEARIZATION, UNITS, RECEIPTS, "zarr.json", "mean", "std", "digest"),
    *(*KIND_OF, *WHOLE),
}
MOST_BYTES = 2**24  # of a manifest or a receipt
_SIGNATURE = b',\n "checksum": "%s"\n}\n'
_LONGEST_REASON = 500
_NUMBER = re.compile("0|[1-9][0-9]{0,17}")
_IDENTITY = {
    "encoder": {"name": str, "weights": str, "split": str, "precision": str, "preprocessing": str},
    "dataset": {
        **{"name": str, "split": str, "samples": int, "checksum": str},
        **{"class_names": [str], "group_names": [str], "groups": str | None},
    },
    "settings": {"pooling": str, "kinds": [str], "dtype": str},
}
_MANIFEST = {**_IDENTITY, "versions": {str: str}, "files": {str: str}}
_RECEIPT = {"of": str, "shard": int, "sizes": {str: int}, "checksums": {str: str}, "skipped": {str: str}}
_RECEIPT_FIELDS = (*_RECEIPT, "versions", "chunks")
_LIBRARIES = ("residual-vit", "torch", "torchvision", "transformers", "numpy", "pillow", "zarr")


def versions() -> dict[str, str]:
    """Of the libraries that what is stored depends on."""
    return {name: version_of(name) for name in _LIBRARIES}


def identity_of(
    encoder: Encoder,
    dataset: ImageDataset,
    pooling: str,
    kinds: tuple[str, ...],
    dtype: str,
    decode: str = CPU,
) -> dict[str, Any]:
    """What a store is of; a run with another identity is refused. Pillow's way to decode isn't noted."""
    settings = {"pooling": pooling, "kinds": [kind for kind in KINDS if kind in kinds], "dtype": dtype}
    return {
        "encoder": {
            "name": shareable(encoder.name),
            "weights": encoder.fingerprint,
            "split": encoder.centering,
            "precision": str(encoder.dtype).removeprefix("torch."),
            "preprocessing": re.sub(r" at 0x[0-9a-f]+", "", repr(encoder.preprocess)),
        },
        "dataset": {
            "name": shareable(dataset.name),
            "split": dataset.split,
            "samples": len(dataset),
            "checksum": Manifest.of(dataset).checksum,
            "class_names": list(dataset.class_names),
            "group_names": list(dataset.group_names),
            "groups": None if dataset.groups is None else sha256(dataset.groups.astype("<i8").tobytes()),
            "licence": dataset.licence,
        },
        "settings": settings | ({} if decode == CPU else {"decode": decode}),
    }


def decoded_on(identity: dict[str, Any]) -> str:
    """Where the pictures of a store were decoded: "cpu" or "gpu"."""
    return identity["settings"].get("decode", CPU)


def check_identity(stored: dict[str, Any], wanted: dict[str, Any], where: str, asked: str) -> None:
    """Refuse to go on with a store of something else; `asked` is another name of the pooling.

    Raises:
        OtherResultError: says what differs, by name.
    """
    if stored["settings"]["pooling"] == asked:
        wanted = wanted | {"settings": wanted["settings"] | {"pooling": asked}}
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
        "dataset": f"{shareable(dataset['name'])}/{dataset['split']}",
        "number of samples": f"{dataset['samples']:,}",
        "samples and labels (checksum)": dataset["checksum"][:16],
        "groups (checksum)": (dataset["groups"] or "none")[:16],
        "names of groups": ", ".join(dataset["group_names"]) or "none",
        "pooling": repr(settings["pooling"]),
        "kinds": ", ".join(settings["kinds"]),
        "dtype": settings["dtype"],
        "pictures decoded on the": decoded_on(identity),
    }


@dataclass(frozen=True)
class Receipt:
    """A shard is whole: every file of it is on the disk.

    Args:
        of: what the store is of (`StoreManifest.mark`).
        shard: its number.
        sizes: bytes of its file in every array.
        checksums: their SHA-256, for `verify`.
        skipped: samples that can't be read, and why.
        versions: of libraries that are others than those of the manifest.
        chunks: the checksums of the chunks in its file in every array (`ShardedArray.checksums`), which tell
            what is read from that of another place, array or store; empty in the receipts of version 0.1.
    """

    of: str
    shard: int
    sizes: dict[str, int]
    checksums: dict[str, str]
    skipped: dict[int, str]
    versions: dict[str, str]
    chunks: dict[str, str]

    @staticmethod
    def file(shard: int) -> str:
        """The name of its file."""
        return f"{RECEIPTS}/{shard:06d}.json"

    def pack(self) -> bytes:
        """As signed JSON."""
        skipped = {position: reason[:_LONGEST_REASON] for position, reason in self.skipped.items()}
        return signed({**asdict(self), "skipped": skipped})


@dataclass(frozen=True)
class StoreManifest:
    """What a store is of, how it is laid out, and the SHA-256 of every file that isn't of samples.

    Args:
        identity: see `identity_of`.
        layout: of its arrays.
        versions: of libraries, see `versions`.
        files: SHA-256 by name.
        chunks: the chunks' checksums of each array that isn't of coordinates and has several, such as the
            labels of many samples (`listed_chunks`); none in stores of version 0.1.
    """

    identity: dict[str, Any]
    layout: Layout
    versions: dict[str, str]
    files: dict[str, str]
    chunks: dict[str, str] = field(default_factory=dict)

    @cached_property
    def mark(self) -> str:
        """What the store is of and how it is cut, in 16 hex digits."""
        content = {**self.identity, "layout": self.layout.as_json()}
        return sha256(json.dumps(content, indent=1).encode())[:16]

    def receipt(self, shard: int, data: bytes, where: str) -> Receipt:
        """Read what `Receipt.pack` made, if it is of this shard.

        Raises:
            DamagedStoreError: it is damaged, or of another store or shard.
            LaterVersionError: a later version wrote it, and it can't be read or has fields that aren't known.
        """
        with told_by_version(where, data):
            content = read_signed(data, where)
            check_fields(content, _RECEIPT_FIELDS, where)
            try:
                return self._receipt(content, shard)
            except FormError as error:
                raise DamagedStoreError(f"{where} {error}.") from error

    def _receipt(self, content: dict[str, Any], shard: int) -> Receipt:
        check_form(content, {**_RECEIPT, "versions": {str: str}}, "isn't a receipt: it")
        if (content["of"], content["shard"]) != (self.mark, shard):
            raise FormError(f"is of another {'store' if content['of'] != self.mark else 'shard'}")
        samples, chunks = self.layout.samples_of(shard), content.get("chunks", {})
        sizes, counts = self.layout.sizes_of(len(samples))
        check_form(chunks, {str: str}, "isn't a receipt: its list of chunks")
        listed: dict[str, str] = content["skipped"]
        skipped = {int(held) if _NUMBER.fullmatch(held) else -1: why for held, why in listed.items()}
        if (
            content["sizes"] != sizes
            or content["checksums"].keys() != sizes.keys()
            or (chunks and {name: len(held) for name, held in chunks.items()} != counts)
            or len(skipped) != len(listed)
            or not all(position in samples for position in skipped)
        ):
            raise FormError("isn't a receipt of a shard that is laid out so")
        versions = content["versions"]
        return Receipt(self.mark, shard, sizes, content["checksums"], skipped, versions, chunks)

    def pack(self) -> bytes:
        """As signed JSON."""
        content = {"format": FORMAT, **self.identity, "layout": self.layout.as_json()}
        chunks = {"chunks": self.chunks} if self.chunks else {}
        data = signed({**content, "versions": self.versions, "files": self.files, **chunks})
        if len(data) > MOST_BYTES:
            raise ResidualError(
                f"The names of classes and groups are too many for a store: {len(data):,} bytes."
            )
        return data

    @classmethod
    def unpack(cls, data: bytes, where: str) -> StoreManifest:
        """Read what `pack` made.

        Raises:
            LaterVersionError: a later version wrote it, and it can't be read or has fields that aren't known.
            ResidualError: it is damaged, or of a format that this version doesn't know.
        """
        with told_by_version(where, data):
            return cls._unpacked(read_signed(data, where), where)

    @classmethod
    def _unpacked(cls, content: dict[str, Any], where: str) -> StoreManifest:
        if content.get("format") != FORMAT:
            raise ResidualError(
                f"{where} is of the format {content.get('format')!r}; this version of the library reads "
                f"{FORMAT!r}."
            )
        try:
            check_form(content, _MANIFEST, "its content")
            check_form(content.get("chunks", {}), {str: str}, "its list of chunks")
            layout = Layout.from_json(content.get("layout"))
            _check_agreement(content, layout)
        except FormError as error:
            raise DamagedStoreError(f"{where} isn't the manifest of a store: {error}.") from error
        check_fields(content, (*_MANIFEST, "format", "layout", "chunks"), where)
        for name, form in _IDENTITY.items():
            check_fields(content[name], (*form, "licence", "decode"), where, name)
        check_fields(content["layout"], layout.as_json(), where, "layout")
        identity = {name: content[name] for name in _IDENTITY}
        return cls(identity, layout, content["versions"], content["files"], content.get("chunks", {}))


def _check_agreement(content: dict[str, Any], layout: Layout) -> None:
    """Refuse a manifest whose parts aren't of one store."""
    dataset, kinds = content["dataset"], content["settings"]["kinds"]
    if dataset["samples"] != layout.samples:
        raise FormError("the dataset and the layout are of different numbers of samples")
    if content["settings"].get("decode", GPU) != GPU:
        raise FormError("its pictures were decoded where none are")
    if not kinds or {KIND_OF[name] for name in layout.arrays if name in KIND_OF} != set(kinds):
        raise FormError("the kinds and the arrays differ")
    whole = [name for name in WHOLE if name != "group" or dataset["groups"] is not None]
    if not content.get("chunks", {}).keys() <= set(whole):
        raise FormError("it lists chunks of arrays that it hasn't")
    files = {
        *("zarr.json", LINEARIZATION, UNITS),
        *(f"{name}/zarr.json" for name in [*layout.arrays, *whole]),
    }
    files |= {f"{name}/c/0" for name in whole}
    # where every id is empty their bytes have no file
    if not files - {"sample_id/c/0"} <= content["files"].keys() <= files:
        raise FormError("its files aren't those of a store")


def read_manifest(storage: Storage) -> StoreManifest | None:
    """The manifest of a store; None where there is no store.

    Raises:
        ResidualError: as `StoreManifest.unpack`.
    """
    try:
        data = storage.read(MANIFEST, MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    return StoreManifest.unpack(data, f"{storage.address}/{MANIFEST}")


def packed_receipts(storage: Storage, shards: range, sizes: Mapping[str, int]) -> dict[int, bytes]:
    """The receipts of those shards that have one among the files of these sizes, as they were packed."""
    numbers = [re.fullmatch(rf"{RECEIPTS}/([0-9]{{6,}})\.json", name) for name in sizes]
    known = {int(number[1]): number[0] for number in numbers if number}
    whole = sorted(shard for shard, name in known.items() if shard in shards and name == Receipt.file(shard))
    packed = storage.read_all([Receipt.file(shard) for shard in whole], MOST_BYTES)
    return dict(zip(whole, packed, strict=True))


def signed(content: dict[str, Any]) -> bytes:
    """JSON with the SHA-256 of the rest as its last field."""
    text = json.dumps(content, indent=1).encode()
    return text.removesuffix(b"\n}") + _SIGNATURE % sha256(text).encode()


def read_signed(data: bytes, where: str) -> dict[str, Any]:
    """Read what `signed` made; what isn't signed isn't looked into.

    Raises:
        DamagedStoreError: a byte was changed, or it is something else.
    """
    length = len(_SIGNATURE % bytes(64))
    text, signature = data[:-length] + b"\n}", data[-length:]
    if signature != _SIGNATURE % sha256(text).encode():
        raise DamagedStoreError(f"{where} is damaged: its checksum doesn't fit what it says.")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedStoreError(f"{where} is damaged: it isn't what was written.") from error
    if not isinstance(content, dict):
        raise DamagedStoreError(f"{where} is damaged: it isn't what was written.")
    return content
