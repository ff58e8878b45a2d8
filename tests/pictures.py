"""A small image folder of real suite pictures, for tests of the whole path on Picto; and fewer figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from residual.data import load_dataset


def write_folder(root: Path, each: int = 10, classes: tuple[str, ...] = ("0", "1", "7")) -> Path:
    """`root/CLASS/NUMBER.png`, `each` digits a class."""
    dataset = load_dataset("digits", "train")
    for name in classes:
        (root / f"digit {name}").mkdir(parents=True)
        label = dataset.class_names.index(name)
        for place, index in enumerate((dataset.labels == label).nonzero()[0][:each]):
            dataset[int(index)][0].save(root / f"digit {name}" / f"{place:02d}.png")
    return root


def first_of_each_folder(save: Callable[..., list[Path]]) -> Callable[..., list[Path]]:
    """Drawing is most of the work of tiny models: one figure of each experiment is."""
    return lambda figure, folder, name: [] if folder.exists() else save(figure, folder, name)
