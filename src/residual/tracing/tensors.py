"""Tensors with a note, in one safetensors file: what this library saves says of what kind it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from residual.errors import ResidualError
from residual.files import written_beside


def save_tensors(path: str | Path, kind: str, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
    """Write `tensors` and the JSON `note` as a file of this kind, whole or not at all."""
    contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
    with written_beside(path) as beside:
        save_file(contiguous, beside, {f"residual.{kind}": json.dumps(note)})


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        ResidualError: the file isn't there, isn't whole, or is of another kind.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise ResidualError(f"{path} can't be read ({error}).") from error
    if f"residual.{kind}" not in metadata:
        held = next((key for key in metadata if key.startswith("residual.")), "something else")
        raise ResidualError(f"{path} holds no {kind} but {held.removeprefix('residual.')}.")
    return tensors, json.loads(metadata[f"residual.{kind}"])
