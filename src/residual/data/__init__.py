"""Labelled image datasets: the offline suite of ten, the paper's from the hub, and a user's own.

`load_dataset` gives any of them by its name; `load.py` lists the forms of names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from residual.data.dataset import DatasetDescription, ImageDataset
from residual.data.held_out import hold_out
from residual.data.load import dataset_descriptions, dataset_names, hub_dataset_names, load_dataset
from residual.data.manifest import Manifest
from residual.data.splits import SPLITS
from residual.data.suite import MixedDataset

if TYPE_CHECKING:
    from residual.data.own import as_dataset, own_splits
    from residual.data.pixels import PixelDataset

__all__ = [  # noqa: RUF022 (in the order in which they are used)
    "load_dataset",
    "as_dataset",
    "own_splits",
    "dataset_names",
    "hub_dataset_names",
    "dataset_descriptions",
    "DatasetDescription",
    "SPLITS",
    "ImageDataset",
    "MixedDataset",
    "PixelDataset",
    "Manifest",
    "hold_out",
]


_LATER = {
    "PixelDataset": "pixels",
    "as_dataset": "own",
    "own_splits": "own",
}  # torch is loaded with them alone


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"residual.data.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
