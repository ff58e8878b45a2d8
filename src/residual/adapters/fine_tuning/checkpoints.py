"""Checkpoints of a fine-tuning as files: flat tensors by name, "state/NAME", "best/NAME" and so on; JSON."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from residual.errors import ResidualError, is_out_of_memory
from residual.libraries import first_line
from residual.tensor_files import MOST_OF_WEIGHTS, load_tensors
from residual.versions import told_by_version


class OtherTrainingError(ResidualError):
    """A checkpoint is of another training."""


KIND = "checkpoint"
FORM = {"seconds": int | float, "history": [[int | float]]}
ON_THE_WAY = {"number": int, "step": int, "groups": [dict], "precision": dict}
PORTIONS = "portions"  # that older ones don't have
FORM_OF_PORTIONS = {"micro_batch": int, "checkpointing": bool, "estimated_bytes": int}


def alike(given: Any, own: Any) -> bool:
    """Whether a value of JSON is made like ours, as far as both have it: numbers for numbers, as many."""
    if isinstance(own, dict):
        return isinstance(given, dict) and all(alike(given.get(key, own[key]), own[key]) for key in own)
    if isinstance(own, list):
        return isinstance(given, list) and len(given) == len(own) and all(map(alike, given, own))
    if isinstance(own, float | int) and not isinstance(own, bool):
        return isinstance(given, float | int) and not isinstance(given, bool)
    return type(given) is type(own)


def file_of(folder: Path, name: str) -> Path:
    """Where the "checkpoint" of a training is, or the "finished" one."""
    return folder / f"{name}.safetensors"


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of those whose names begin so, without it: what is read may lie in memory unaligned."""
    return {
        name.removeprefix(prefix): value.clone() for name, value in tensors.items() if name.startswith(prefix)
    }


def read(path: Path, identity: dict[str, str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint of this very training.

    Raises:
        ResidualError: it can't be read, or is of something else: names what differs.
    """
    known = ("identity", "holds", *FORM, *ON_THE_WAY, PORTIONS)  # the second of 0.1.0, which had no identity
    tensors, note = load_tensors(path, KIND, known, MOST_OF_WEIGHTS)
    if not isinstance(note.get("identity"), dict):
        raise ResidualError(
            f"The checkpoint {str(path)!r} is of an older kind: remove it to start anew, or go on with the "
            "version that wrote it."
        )
    theirs = note["identity"]
    other = [
        f"{name} ({theirs[name]}, not {value})" if name in theirs and len(value) < 60 else name
        for name, value in identity.items()
        if theirs.get(name) != value
    ]
    if other or theirs.keys() - identity.keys():
        with told_by_version(path):
            raise OtherTrainingError(
                f"The checkpoint {str(path)!r} is of another {', another '.join(other) or 'training'}: give "
                "another folder, or remove it to start anew."
            )
    return tensors, note


@contextmanager
def whole(path: Path) -> Generator[None]:
    """Turn what goes wrong with a checkpoint that lacks something into one sentence.

    Raises:
        ResidualError: in place of what went wrong.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if isinstance(error, ResidualError) or is_out_of_memory(error):
            raise
        with told_by_version(path):
            raise ResidualError(
                f"The checkpoint {str(path)!r} isn't whole ({first_line(error)}): remove it to start anew."
            ) from error
