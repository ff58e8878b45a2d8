"""Labelled image datasets: the offline suite of ten, and a user's own folders."""

from residual.data.dataset import ImageDataset
from residual.data.load import dataset_names, load_dataset

__all__ = ["ImageDataset", "dataset_names", "load_dataset"]
