"""Labelled image datasets: the offline suite of ten, the paper's from the hub, and a user's own."""

from residual.data.dataset import ImageDataset
from residual.data.load import dataset_names, hub_dataset_names, load_dataset
from residual.data.manifest import Manifest

__all__ = ["ImageDataset", "Manifest", "dataset_names", "hub_dataset_names", "load_dataset"]
