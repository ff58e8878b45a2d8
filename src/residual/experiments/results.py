"""What experiments keep, each with a note of what it is of, so that others are never mixed in: a Parquet file
a cell, and of experiment 4 the outputs of adapted encoders, for whoever describes them.

Notes hold a checksum over the numbers and themselves, and no path of the user's machine: see `shown`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from residual.data import SPLITS
from residual.errors import OtherResultError, ResidualError
from residual.experiments.plan import Work
from residual.files import parse_json, read_regular, safe_name, shareable, written_beside
from residual.hashing import sha256
from residual.libraries import library
from residual.report.tables import METHOD_NAMES, SHOTS
from residual.store.form import FormError, check_form
from residual.tensor_files import MOST_BYTES, file_parts, unpack_tensors
from residual.versions import own_version, told_by_version

_NOTE, _VERSIONS, _CHECKSUM = "residual.cell", "residual.versions", "sha256"
_SKIPPED = "skipped"
_ENDS = tuple(f"/{split}" for split in SPLITS)
_ABOUT = {"cell": str, "reference": str, "encoder": {"name": str}}
_FORM = {**_ABOUT, "settings": dict, "datasets": {str: {"name": str}}}
_OUTPUTS = "4_adapters/outputs"


@dataclass(frozen=True)
class Kept:
    """One cell that is there.

    Args:
        path: its file.
        table: its numbers.
        note: what it is of.
        skipped: by dataset, the samples that it was measured without.
    """

    path: Path
    table: pd.DataFrame
    note: dict[str, Any]
    skipped: dict[str, list[str]]

    def check(self, note: dict[str, Any], whole: bool = True) -> None:
        """Refuse what is of something else.

        Args:
            note: what it should be of.
            whole: that is all; otherwise what is known by now, without encoder and datasets.

        Raises:
            OtherResultError: it is of something else.
        """
        wanted = _noted(note)
        own = self.note if whole else {name: self.note.get(name) for name in wanted}
        with told_by_version(self.path):
            if differing := _differing(own, wanted):
                raise OtherResultError(
                    f"'{self.path}' is a result of something else: {'; '.join(differing)}."
                )


class Results:
    """The cells of one experiment, in one folder.

    Args:
        folder: made when the first cell is written.

    Raises:
        ResidualError: pyarrow isn't installed.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        library("pyarrow.parquet", "Keeping results of experiments", "experiments")

    def path(self, encoder: str, dataset: str) -> Path:
        """The file of one cell."""
        return self.folder / safe_name(encoder) / f"{safe_name(dataset)}.parquet"

    def kept(self, encoder: str, dataset: str) -> Kept | None:
        """One cell, or None if it isn't there.

        Raises:
            ResidualError: it can't be read.
        """
        path = self.path(encoder, dataset)
        if not path.is_file():
            return None
        table, note = _read_table(path)
        return Kept(path, table, note, note.pop(_SKIPPED, {}))

    def read(self, encoder: str, dataset: str, note: dict[str, Any]) -> pd.DataFrame | None:
        """The table of one cell, or None if it isn't there.

        Raises:
            ResidualError: it is of something else, or can't be read.
        """
        found = self.kept(encoder, dataset)
        if found is None:
            return None
        found.check(note)
        return found.table

    def write(
        self,
        encoder: str,
        dataset: str,
        note: dict[str, Any],
        table: pd.DataFrame,
        skipped: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, list[str]]:
        """Keep one cell, with what it is of, and by dataset the samples that couldn't be read; the latter are
        returned as they are noted."""
        told = _noted({**note, _SKIPPED: dict(skipped)} if skipped else note)
        write_table(self.path(encoder, dataset), told, table)
        return told.get(_SKIPPED, {})

    def cells(self) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        """Every cell of the folder, with what it is of."""
        for path in sorted(self.folder.glob("*/*.parquet")):
            table, note = _read_table(path)
            yield note, table


def write_table(path: Path, note: dict[str, Any], table: pd.DataFrame) -> None:
    """Write a table as Parquet, with its note and a checksum over both.

    Raises:
        ResidualError: the place can't be written to.
    """
    import pyarrow.parquet

    made = pyarrow.Table.from_pandas(table, preserve_index=False)
    told = json.dumps({**note, _CHECKSUM: _checksum(made.to_pandas(), note)})
    about = {_NOTE: told, _VERSIONS: json.dumps(own_version())}
    made = made.replace_schema_metadata({**(made.schema.metadata or {}), **about})
    with written_beside(path) as beside:
        pyarrow.parquet.write_table(made, beside)


def _read_table(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What `write_table` wrote; tables of 0.1 have no checksum.

    Raises:
        ResidualError: it is damaged, or another table.
    """
    import pyarrow.parquet

    wrong = (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, pyarrow.ArrowException)
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(read_regular(path, MOST_BYTES)))
        note = parse_json(table.schema.metadata[_NOTE.encode()], path)
        check_form(note, _FORM, "the note")
        checksum, frame = note.pop(_CHECKSUM, None), table.to_pandas()
        if checksum not in (None, _checksum(frame, note)):
            raise ValueError("other numbers than were written")
        return frame, _noted(note)
    except wrong as error:  # whatever a reader of Parquet says of bytes that were changed
        with told_by_version(path):
            raise ResidualError(f"'{path}' is no whole result of an experiment: remove it.") from error


def _checksum(table: pd.DataFrame, note: dict[str, Any]) -> str:
    """SHA-256 of all numbers to the last bit, and of what the table is of."""
    columns = [[str(name), values.tolist()] for name, values in table.items()]
    return sha256(json.dumps([note, columns], default=str).encode())


def shown(name: str) -> str:
    """The name of an encoder, a dataset or a cell without the path of the user's machine.

    In place of that there is a digest, so that two folders of one name stay apart.

    Example:
        >>> from residual.experiments.results import shown
        >>> shown("letters.linear"), shown("folder:/mnt/me/pictures.linear")
        ('letters.linear', 'folder:pictures-fbd21348.linear')
    """
    whole, dot, method = name.rpartition(".")
    known = method.partition(SHOTS)[0] in METHOD_NAMES
    whole, rest = (whole, dot + method) if known else (name, "")
    return _shortened(whole) + rest


def shown_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The same of settings: a dictionary of texts may be a file."""
    name = settings.get("dictionary")
    return {**settings, "dictionary": _shortened(name, path=True)} if name else settings


def _shortened(name: str, path: bool = False) -> str:
    short = shareable(name, path)
    return short if short == name else f"{short}-{sha256(name.encode(errors='surrogatepass'))[:8]}"


def _noted(note: dict[str, Any]) -> dict[str, Any]:
    """A note as files hold it. Those of 0.1 have whole names, and are of the same all the same."""
    told = json.loads(json.dumps(note))
    for name in ("cell", "reference"):
        told[name] = shown(told[name])
    if "encoder" in told:  # known when it is loaded
        told["encoder"]["name"] = shown(told["encoder"]["name"])
    if "settings" in told:
        told["settings"] = shown_settings(told["settings"])
    if _SKIPPED in told:
        told[_SKIPPED] = {_shown_split(key): samples for key, samples in told[_SKIPPED].items()}
    if "datasets" in told:
        datasets = told["datasets"].items()
        told["datasets"] = {_shown_split(key): _short(each) for key, each in datasets}
    elif "dataset" in told:
        told["dataset"] = _short(told["dataset"])
    return told


def _shown_split(name: str) -> str:
    """The same of a dataset's name that a split may follow."""
    whole, slash, split = name.rpartition("/")
    return f"{shown(whole)}/{split}" if slash and split in SPLITS else shown(name)


def _short(dataset: dict[str, Any]) -> dict[str, Any]:
    return {**dataset, "name": shareable(dataset["name"])}


def read_results(folder: str | Path) -> dict[str, dict[str, pd.DataFrame]]:
    """All results of one experiment: for each encoder, for each dataset, the table of units.

    Datasets are in the order of their names, the reference first.

    Raises:
        ResidualError: there are none, or they were made with different settings or references.
    """
    results: dict[str, dict[str, pd.DataFrame]] = {}
    known: dict[str, Any] = {}
    cells = sorted(Results(Path(folder)).cells(), key=lambda cell: cell[0]["cell"] != cell[0]["reference"])
    for note, table in cells:
        theirs = _comparable(note)
        ours = {name: known.setdefault(name, value) for name, value in theirs.items()}
        if differing := _differing(theirs, ours):
            raise ResidualError(
                f"'{folder}' holds results of different settings: {'; '.join(differing)} for "
                f"{note['cell']} of {note['encoder']['name']}. Keep those of one."
            )
        results.setdefault(note["encoder"]["name"], {})[note["cell"]] = table
    if not results:
        raise ResidualError(f"There are no results in '{folder}': `run_experiment` makes them.")
    return results


def _comparable(note: dict[str, Any]) -> dict[str, Any]:
    """What cells of one experiment have in common: all settings, and the limits of what they are of."""
    settings = dict(note["settings"])
    limit = settings.pop("limit", None)
    own = settings.pop("reference_limit", limit)
    of = {name.rpartition("/")[0] if name.endswith(_ENDS) else name for name in note.get("datasets", ())}
    limits = {"settings.reference_limit": own} if note["reference"] in of else {}
    if note["cell"] != note["reference"]:
        limits["settings.limit"] = limit
    return {"reference": note["reference"], "settings": settings, **limits}


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


def outputs_path(encoder: str, cell: str, split: str) -> Path:
    """Where they are kept in the folder of results."""
    return Path(_OUTPUTS) / safe_name(encoder) / f"{safe_name(cell)}-{split}.safetensors"


def leave_outputs(
    work: Work,
    cell: str,
    split: str,
    features: Float[Tensor, "n d"],
    logits: Float[Tensor, "n c"],
    labels: Int[np.ndarray, " n"],
) -> None:
    """Leave those of one split to be kept, with what they are of."""
    tensors = {"features": features, "logits": logits, "labels": torch.tensor(labels)}
    parts = file_parts("outputs", tensors, {"of": _output_note(work, cell, split)})
    work.outputs[outputs_path(work.name, cell, split)] = b"".join(parts)


def read_outputs(work: Work, cell: str, split: str) -> Outputs | None:
    """Those of one split, or None where none are kept of these very pictures and this encoder.

    Raises:
        ResidualError: the file is damaged.
    """
    path = outputs_path(work.name, cell, split)
    if (data := work.read(path)) is None:
        return None
    path = work.plan.out / path
    tensors, note = unpack_tensors(data, "outputs", path, fields=("of",))
    try:
        check_form(note, {"of": {**_ABOUT, "dataset": {"name": str}}}, "its note")
        if _noted(note["of"]) != _output_note(work, cell, split):
            return None
        return Outputs(tensors["features"], tensors["logits"], tensors["labels"])
    except (FormError, KeyError) as error:
        raise ResidualError(f"'{path}' holds no outputs of an experiment ({error}): remove it.") from error


def _output_note(work: Work, cell: str, split: str) -> dict[str, Any]:
    """What they are of."""
    of = work.identity(cell.rpartition(".")[0], split)
    encoder = {**of["encoder"], "name": work.name}
    return _noted({"cell": cell, "reference": work.plan.reference, **of, "encoder": encoder})
