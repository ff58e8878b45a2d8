"""Labelled image datasets: the offline suite of ten, the paper's from the hub, and a user's own.

`load_dataset` gives any of them by its name; `load.py` lists the forms of names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from residual.data.dataset import DatasetDescription, ImageDataset
from residual.data.held_out import hold_out
from residual.data.load import dataset_descriptions, dataset_names, hub_dataset_names, load_dataset
from residual.data.manifest import Manifest
from residual.data.splits import SPLITS
from residual.data.suite import MixedDataset

if TYPE_CHECKING:
    from residual.data.pixels import PixelDataset

__all__ = [  # noqa: RUF022 (in the order in which they are used)
    "load_dataset",
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


def __getattr__(name: str) -> Any:
    if name == "PixelDataset":  # torch is loaded with it alone
        from residual.data.pixels import PixelDataset

        return PixelDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
