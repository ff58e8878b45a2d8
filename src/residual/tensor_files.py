"""Tensors with a note, as safetensors: what is saved here says of what kind it is, with a checksum."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from residual.errors import ResidualError
from residual.files import parse_json, plain_number, read_regular, written_beside
from residual.hashing import sha256
from residual.versions import check_fields, own_version, told_by_version

MOST_BYTES = 2**32  # of a file of tensors
MOST_OF_WEIGHTS = 2**36  # of one that holds all of a model's, and what optimizers keep of them
_CHECKSUM, _VERSIONS = "sha256", "versions"
_NOT_YET = "0" * 64


def pack_tensors(kind: str, tensors: dict[str, Tensor], note: dict[str, Any]) -> bytes:
    """`tensors` and the JSON `note` as the bytes of a file of this kind.

    Raises:
        ResidualError: the note holds NaN or infinity, which JSON doesn't know; or a tensor holds no numbers
            or such as safetensors doesn't know.
    """
    return b"".join(packed_parts(kind, tensors, note))


def packed_parts(kind: str, tensors: dict[str, Tensor], note: dict[str, Any]) -> list[bytes | memoryview]:
    """The same in parts, so that it is in memory once.

    The note begins with the SHA-256 of the whole file, as it is with zeros in that place.

    Raises:
        ResidualError: as there.
    """
    try:
        text = json.dumps({_CHECKSUM: _NOT_YET, **note}, allow_nan=False, default=plain_number)
    except ValueError as error:
        raise ResidualError(f"What is to be saved of the {kind} holds NaN or infinity.") from error
    try:
        data = save(_apart(kind, tensors), {f"residual.{kind}": text})
    except KeyError as error:
        raise ResidualError(
            f"A tensor of the {kind} is of {error}, which safetensors doesn't know."
        ) from error
    before, after = _around(data, _checksum_place(data, _NOT_YET))
    return [before, sha256(before, _NOT_YET.encode(), after).encode(), after]


def unpack_tensors(
    data: bytes,
    kind: str,
    where: str | Path,
    known: bool = False,
    fields: Collection[str] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `pack_tensors` made into `data`. Files of before have no checksum.

    Args:
        data: of the whole file.
        kind: it must be of.
        where: it is from, for errors.
        known: to be what was saved, by a checksum from elsewhere: the one in it isn't asked.
        fields: that its note may have; None for any.

    Raises:
        LaterVersionError: a later version wrote it, and it can't be read or has other fields.
        ResidualError: it isn't whole, was changed since, or is of another kind.
    """
    with told_by_version(where, data):
        tensors, note = _unpacked(data, kind, where, known)
        if fields is not None:
            check_fields(note, fields, where)
    return tensors, note


def _unpacked(
    data: bytes, kind: str, where: str | Path, known: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise ResidualError(f"{where} can't be read ({error}).") from error
    metadata = parse_json(data[8 : _header_end(data)], where).get("__metadata__", {})
    if f"residual.{kind}" not in metadata:
        other = next((key for key in metadata if key.startswith("residual.")), "something else")
        raise ResidualError(f"{where} holds no {kind} but {other.removeprefix('residual.')}.")
    note = parse_json(metadata[f"residual.{kind}"], where)
    if not isinstance(note, dict):
        raise ResidualError(f"{where} holds no {kind}: its note is {type(note).__name__}.")
    if (checksum := note.pop(_CHECKSUM, None)) is not None and not known:
        place = _checksum_place(data, str(checksum))
        before, after = _around(data, place)
        if place < 0 or sha256(before, _NOT_YET.encode(), after) != checksum:
            raise ResidualError(f"{where} is damaged: its checksum doesn't fit what it holds.")
    note.pop(_VERSIONS, None)
    return tensors, note


def save_tensors(path: str | Path, kind: str, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
    """Write `tensors` and `note` as a file of this kind, whole or not at all.

    Raises:
        ResidualError: the place can't be written to, or the note holds NaN or infinity.
    """
    write_parts(path, file_parts(kind, tensors, note))


def file_parts(kind: str, tensors: dict[str, Tensor], note: dict[str, Any]) -> list[bytes | memoryview]:
    """What `save_tensors` writes."""
    return packed_parts(kind, tensors, {_VERSIONS: own_version(), **note})


def write_parts(path: str | Path, parts: list[bytes | memoryview]) -> None:
    """Write what `packed_parts` gave, whole or not at all.

    Raises:
        ResidualError: the place can't be written to.
    """
    with written_beside(path) as beside, beside.open("wb") as file:
        file.writelines(parts)


def load_tensors(
    path: str | Path, kind: str, fields: Collection[str] | None = None, most: int = MOST_BYTES
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote, with these fields in its note, of so many bytes at most.

    Raises:
        LaterVersionError: as `unpack_tensors`.
        ResidualError: the file isn't there, isn't whole, is too large, was changed, or is of another kind.
    """
    try:
        data = read_regular(path, most)
    except OSError as error:
        raise ResidualError(f"{path} can't be read ({error.strerror}).") from error
    return unpack_tensors(data, kind, path, fields=fields)


def _apart(kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: plain and dense, on the CPU, no two in the same memory. What is
    so already is no copy.
    """
    made: dict[str, Tensor] = {}
    starts: list[int] = []  # of what is taken of the memory, in order
    ends: list[int] = []
    for name, value in tensors.items():
        value = value.detach()
        if value.is_meta or type(value) is not Tensor:
            what = "has no numbers" if value.is_meta else f"is a {type(value).__name__}"
            raise ResidualError(f"The tensor {name!r} of the {kind} can't be saved: it {what}.")
        dense = value if value.layout is torch.strided else value.to_dense()
        plain = dense.cpu().resolve_conj().resolve_neg().contiguous()
        start, end = plain.data_ptr(), plain.data_ptr() + plain.nbytes
        if (place := bisect_right(ends, start)) < bisect_left(starts, end):  # these reach into it
            plain = plain.clone()
        else:
            starts.insert(place, start)
            ends.insert(place, end)
        made[name] = plain
    return made


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def _checksum_place(data: bytes, checksum: str) -> int:
    """Where the checksum's digits are; below 0 where they aren't."""
    before = rf"{{\"{_CHECKSUM}\": \"".encode()
    at = data.find(before + checksum.encode(), 8, _header_end(data))
    return at if at < 0 else at + len(before)


def _around(data: bytes, place: int) -> tuple[memoryview, memoryview]:
    """What is before the checksum's digits and what is after them."""
    view = memoryview(data)
    return view[:place], view[place + len(_NOT_YET) :]
