"""What experiments keep, each with a note of what it is of, so that others are never mixed in: a Parquet file
a cell, and of experiment 4 the outputs of adapted encoders, for whoever describes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from residual.errors import OtherResultError, ResidualError
from residual.experiments.plan import Work
from residual.files import safe_name, written_beside
from residual.tensor_files import load_tensors, save_tensors

_NOTE = "residual.cell"
_OUTPUTS = "4_adapters/outputs"


class Results:
    """The cells of one experiment, in one folder.

    Args:
        folder: made when the first cell is written.

    Raises:
        ResidualError: pyarrow isn't installed.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise ResidualError(
                "Results of experiments are Parquet files: pip install 'residual-vit[experiments]'."
            ) from error
        self._parquet = parquet

    def path(self, encoder: str, dataset: str) -> Path:
        """The file of one cell."""
        return self.folder / safe_name(encoder) / f"{safe_name(dataset)}.parquet"

    def read(self, encoder: str, dataset: str, note: dict[str, Any]) -> pd.DataFrame | None:
        """One cell, or None if it isn't there.

        Raises:
            ResidualError: it is of something else, or can't be read.
        """
        path = self.path(encoder, dataset)
        if not path.is_file():
            return None
        table, kept = self._read(path)
        if differing := _differing(kept, json.loads(json.dumps(note))):
            raise OtherResultError(f"'{path}' is a result of something else: {'; '.join(differing)}.")
        return table

    def write(self, encoder: str, dataset: str, note: dict[str, Any], table: pd.DataFrame) -> None:
        """Keep one cell, with what it is of."""
        import pyarrow

        made = pyarrow.Table.from_pandas(table, preserve_index=False)
        made = made.replace_schema_metadata({**(made.schema.metadata or {}), _NOTE: json.dumps(note)})
        with written_beside(self.path(encoder, dataset)) as beside:
            self._parquet.write_table(made, beside)

    def cells(self) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        """Every cell of the folder, with what it is of."""
        for path in sorted(self.folder.glob("*/*.parquet")):
            table, note = self._read(path)
            yield note, table

    def _read(self, path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        try:
            table = self._parquet.read_table(path)
            note = json.loads((table.schema.metadata or {})[_NOTE.encode()])
        except (OSError, ValueError, KeyError) as error:
            raise ResidualError(f"'{path}' is no whole result of an experiment: remove it.") from error
        return table.to_pandas(), note


def read_results(folder: str | Path) -> dict[str, dict[str, pd.DataFrame]]:
    """All results of one experiment: for each encoder, for each dataset, the table of units.

    Datasets are in the order of their names, the reference first.

    Raises:
        ResidualError: there are none, or they were made with different settings or references.
    """
    results: dict[str, dict[str, pd.DataFrame]] = {}
    first: dict[str, Any] | None = None
    cells = sorted(Results(Path(folder)).cells(), key=lambda cell: cell[0]["cell"] != cell[0]["reference"])
    for note, table in cells:
        first = first or note
        theirs, ours = ({name: each[name] for name in ("reference", "settings")} for each in (note, first))
        if differing := _differing(theirs, ours):
            raise ResidualError(
                f"'{folder}' holds results of different settings: {'; '.join(differing)} for "
                f"{note['cell']} of {note['encoder']['name']}. Keep those of one."
            )
        results.setdefault(note["encoder"]["name"], {})[note["cell"]] = table
    if not results:
        raise ResidualError(f"There are no results in '{folder}': `run_experiment` makes them.")
    return results


def _differing(kept: Any, wanted: Any, name: str = "") -> list[str]:
    """What differs, by name, as "settings.limit 300, not 0"."""
    if isinstance(kept, dict) and isinstance(wanted, dict):
        names = [*wanted, *(key for key in kept if key not in wanted)]
        parts = (
            _differing(kept.get(key), wanted.get(key), f"{name}.{key}" if name else str(key)) for key in names
        )
        return [line for part in parts for line in part]
    return [] if kept == wanted else [f"{name} {kept}, not {wanted}"]


@dataclass(frozen=True)
class Outputs:
    """Of one split: adapted features, logits and labels."""

    features: Float[Tensor, "n d"]
    logits: Float[Tensor, "n c"]
    labels: Int[Tensor, " n"]


def outputs_path(out: Path, encoder: str, cell: str, split: str) -> Path:
    """Where they are kept."""
    return out / _OUTPUTS / safe_name(encoder) / f"{safe_name(cell)}-{split}.safetensors"


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
    save_tensors(path, "outputs", tensors, {"of": _output_note(work, cell, split)})


def read_outputs(work: Work, cell: str, split: str) -> Outputs | None:
    """Those of one split, or None where none are kept of these very pictures and this encoder.

    Raises:
        ResidualError: the file is damaged.
    """
    path = outputs_path(work.plan.out, work.name, cell, split)
    if not path.is_file():
        return None
    tensors, note = load_tensors(path, "outputs")
    if note["of"] != json.loads(json.dumps(_output_note(work, cell, split))):
        return None
    return Outputs(tensors["features"], tensors["logits"], tensors["labels"])


def _output_note(work: Work, cell: str, split: str) -> dict[str, Any]:
    """What they are of."""
    return {"cell": cell, "reference": work.plan.reference, **work.identity(cell.rpartition(".")[0], split)}
