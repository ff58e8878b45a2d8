"""Tensors with a note, as safetensors: what this library saves says of what kind it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from residual.errors import ResidualError
from residual.files import written_beside


def pack_tensors(kind: str, tensors: dict[str, Tensor], note: dict[str, Any]) -> bytes:
    """`tensors` and the JSON `note` as the bytes of a file of this kind."""
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return save(contiguous, {f"residual.{kind}": json.dumps(note)})


def unpack_tensors(data: bytes, kind: str, where: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `pack_tensors` made into `data`; `where` names it in errors.

    Raises:
        ResidualError: it isn't whole, or is of another kind.
    """
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise ResidualError(f"{where} can't be read ({error}).") from error
    metadata = header.get("__metadata__", {})
    if f"residual.{kind}" not in metadata:
        other = next((key for key in metadata if key.startswith("residual.")), "something else")
        raise ResidualError(f"{where} holds no {kind} but {other.removeprefix('residual.')}.")
    return tensors, json.loads(metadata[f"residual.{kind}"])


def save_tensors(path: str | Path, kind: str, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
    """Write `tensors` and `note` as a file of this kind, whole or not at all."""
    with written_beside(path) as beside:
        beside.write_bytes(pack_tensors(kind, tensors, note))


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        ResidualError: the file isn't there, isn't whole, or is of another kind.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ResidualError(f"{path} can't be read ({error.strerror}).") from error
    return unpack_tensors(data, kind, path)
