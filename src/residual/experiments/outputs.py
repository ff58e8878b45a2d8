"""Features and logits of adapted encoders, kept for whoever describes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from residual.experiments.plan import Work
from residual.files import safe_name
from residual.tensor_files import load_tensors, save_tensors

FOLDER = "4_adapters/outputs"


@dataclass(frozen=True)
class Outputs:
    """Of one split: adapted features, logits and labels."""

    features: Float[Tensor, "n d"]
    logits: Float[Tensor, "n c"]
    labels: Int[Tensor, " n"]


def outputs_path(out: Path, encoder: str, cell: str, split: str) -> Path:
    """Where they are kept."""
    return out / FOLDER / safe_name(encoder) / f"{safe_name(cell)}-{split}.safetensors"


def save_outputs(
    path: Path,
    work: Work,
    cell: str,
    split: str,
    features: Float[Tensor, "n d"],
    logits: Float[Tensor, "n c"],
    labels: Int[np.ndarray, " n"],
) -> None:
    """Keep those of one split, with what they are of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"features": features, "logits": logits, "labels": torch.from_numpy(labels)}
    save_tensors(path, "outputs", tensors, {"of": note_of(work, cell, split)})


def read_outputs(work: Work, cell: str, split: str) -> Outputs | None:
    """Those of one split, or None where none are kept of these very pictures and this encoder.

    Raises:
        ResidualError: the file is damaged.
    """
    path = outputs_path(work.plan.out, work.name, cell, split)
    if not path.is_file():
        return None
    tensors, note = load_tensors(path, "outputs")
    if note["of"] != json.loads(json.dumps(note_of(work, cell, split))):
        return None
    return Outputs(tensors["features"], tensors["logits"], tensors["labels"])


def note_of(work: Work, cell: str, split: str) -> dict[str, Any]:
    """What they are of."""
    return {"cell": cell, "reference": work.plan.reference, **work.identity(cell.rpartition(".")[0], split)}
