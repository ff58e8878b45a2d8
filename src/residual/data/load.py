"""Datasets by name."""

from __future__ import annotations

from residual.data.dataset import SPLITS, ImageDataset
from residual.data.folder import FolderDataset
from residual.data.suite import load_suite, suite_names
from residual.errors import ResidualError, unknown_name


def dataset_names() -> tuple[str, ...]:
    """The ten datasets of the offline suite; `load_dataset` also takes `folder:PATH`."""
    return suite_names()


def load_dataset(name: str, split: str) -> ImageDataset:
    """One split ("train", "val" or "test") of a dataset of the suite, or of the image folder `folder:PATH`.

    Raises `ResidualError` for a name or split that isn't there (with the nearest that are) and for a folder
    that can't be used (with what is wrong and how to lay it out).
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if name.startswith("folder:"):
        path = name.removeprefix("folder:")
        if not path:
            raise ResidualError("'folder:' needs a path after it, as in folder:photos/birds.")
        return FolderDataset(path, split)
    if name not in suite_names():
        raise unknown_name("dataset", name, [*suite_names(), "folder:PATH"])
    return load_suite(name, split)
