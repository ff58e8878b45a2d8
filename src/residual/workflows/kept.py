"""What is on the disk of work that was stopped: looked up in the files themselves, in a phrase each.

A phrase is such as "1,216 of 5,000 samples in letters-train"; it is empty where there is nothing yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from residual.adapters.fine_tuning.checkpoints import KIND, file_of
from residual.addresses import file_system
from residual.errors import NoStoreError
from residual.files import parse_json
from residual.spectral.unit_moments import UnitMoments
from residual.store.disk import ResidualStore
from residual.workflows.encode import unfinished


def of_store(address: str) -> str:
    """Of a store: how many samples of how many."""
    try:
        store = ResidualStore.open(address, cut_off=True, damaged=True)
    except NoStoreError:
        return ""
    return f"{len(store):,} of {store.layout.samples:,} samples in {address}" if len(store) else ""


def of_stores(folder: str | Path) -> str:
    """Of the stores in a folder or at an address, each."""
    return ", ".join(filter(None, map(of_store, _stores_in(folder))))


def _stores_in(folder: str | Path) -> list[str]:
    """Where those are that `store_path` gives."""
    if isinstance(folder, Path):
        return [str(each) for each in sorted(folder.glob("*/*"))]
    files, root = file_system(folder)
    files.invalidate_cache()
    found = [store for encoder in files.ls(root, detail=False) for store in files.ls(encoder, detail=False)]
    return ["/".join((folder.rstrip("/"), *each.rstrip("/").rsplit("/", 2)[-2:])) for each in sorted(found)]


def of_moments(out: str) -> str:
    """Of bases that are fitted without a store: how many images are counted."""
    path = unfinished(out)
    return f"what {UnitMoments.load(path).progress['done']:,} images add, in {path}" if path.is_file() else ""


def of_trainings(folder: Path) -> str:
    """Of fine-tuning: the trainings that are done, and the checkpoint of the one that isn't."""
    told = []
    for place in sorted(folder.glob("seed-*")):
        if file_of(place, "finished").is_file():
            told.append(f"{place.name}, finished")
        elif (path := file_of(place, "checkpoint")).is_file():
            with safe_open(path, "np") as file:
                note = parse_json(file.metadata()[f"residual.{KIND}"], path)
            told.append(f"{place.name}, a checkpoint in epoch {note['number']}")
    return f"{'; '.join(told)} (in {folder})" if told else ""


def of_cells(folder: Path) -> str:
    """Of an experiment: the cells that are measured."""
    cells = len(list(folder.glob("*/*.parquet")))
    return f"{cells} {'cell' if cells == 1 else 'cells'} in {folder}" if cells else ""


def joined(*phrases: str) -> str:
    """Those that say something."""
    return "; ".join(filter(None, phrases))


def of_datasets(summaries: Sequence[Mapping[str, Any]], places: Sequence[Path | None]) -> str:
    """Of a run over several datasets: those whose results are written."""
    names = [summary["dataset"] for summary in summaries]
    where = " and ".join(str(place) for place in places if place)
    return f"the results of {', '.join(names)} in {where}" if names and where else ""
