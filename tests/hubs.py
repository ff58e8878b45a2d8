"""Tiny repositories in the hub's layout, served from a folder: its columns, class names and splits."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from datasets.info import DatasetInfo, DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from PIL import Image as Pillow

from residual.data.hub import HubEntry, fetch
from residual.data.hub.catalogue import classes_of

# Names of the source's classes, as its card has them, where they aren't ours.
SPELLING = {"imagenet": 0, "imagenet-sketch": 1, "eurosat": 0, "cifar100": 0}
EXTRA = {
    "cifar100": {"coarse_label": ClassLabel(names=[f"coarse {i}" for i in range(20)])},
    "waterbirds": {"place": ClassLabel(names=["land", "water"]), "bird": ClassLabel(num_classes=200)},
    "pacs": {"domain": Value("string")},
    "resisc45": {"image_id": Value("string")},
}
UNWANTED = {"gtsrb": ("contrast", "spatter"), "stanford-cars": ("contrast", "spatter"), "svhn": ("extra",)}


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def picture(shade: int, size: int = 3, other: int = 0) -> bytes:
    """One of its own for each shade of red and each `other`."""
    return png(np.full((size, size, 3), (shade, other % 256, other // 256), np.uint8))


def source_names(entry: HubEntry) -> list[str]:
    """What the hub calls the classes."""
    classes = classes_of(entry.classes)
    if entry.name in SPELLING:
        return list(classes.spellings[SPELLING[entry.name]])
    if entry.name == "sun397":  # as the folders of the dataset are called, and in their order
        return sorted(f"/{name[0]}/{name.replace(' ', '_')}" for name in classes.names)
    return list(classes.names)


def per_class(entry: HubEntry, source: str) -> int:
    """As few samples a class as its splits can be made of, in the source's split."""
    if source != "train" or entry.splits["val"] is not None:
        return 2
    return 10 if entry.val_share is None else round(1 / entry.val_share)


def table(
    labels: np.ndarray, kinds: Mapping[str, Any], image: str = "image", label: str = "label", first: int = 0
) -> Dataset:
    """A split; its pictures are numbered from `first` on, and none is as another."""
    columns: dict[str, Any] = {
        image: [{"bytes": picture(i % 200, other=first + i), "path": None} for i in range(len(labels))],
        label: labels,
    }
    for name, kind in kinds.items():
        if name in columns:
            continue
        numbers = (np.arange(len(labels)) + labels) % getattr(kind, "num_classes", 4)
        columns[name] = (
            numbers if isinstance(kind, ClassLabel) else [f"{name} {number}" for number in numbers]
        )
    return Dataset.from_dict(columns, features=Features({image: Image(), **kinds}))


def tables_of(entry: HubEntry, seed: int = 0, names: list[str] | None = None) -> dict[str, Dataset]:
    """Every split that the repository has, those that nobody asks for too; classes are mixed."""
    names = source_names(entry) if names is None else names
    kinds = {entry.label: ClassLabel(names=names), **EXTRA.get(entry.name, {})}
    random = np.random.default_rng(seed)
    tables = {}
    for source in (*entry.rows, *UNWANTED.get(entry.name, ())):
        labels = random.permutation(np.arange(len(names) * per_class(entry, source)) % len(names))
        before = sum(map(len, tables.values()))
        tables[source] = table(labels, kinds, entry.image, entry.label, before)
    return tables


def write_repository(folder: Path, tables: Mapping[str, Dataset], config: str = "default") -> None:
    """Parquet files and a card that tells of them, as `push_to_hub` lays them out."""
    (folder / "data").mkdir(parents=True)
    splits = SplitDict()
    for source, rows in tables.items():
        rows.to_parquet(str(folder / "data" / f"{source}-00000-of-00001.parquet"))
        splits.add(SplitInfo(source, num_bytes=1, num_examples=len(rows)))
    card = DatasetCardData()
    features = next(iter(tables.values())).features
    info = DatasetInfo(config_name=config, features=features, splits=splits, download_size=1, dataset_size=1)
    DatasetInfosDict({config: info}).to_dataset_card_data(card)
    files = [{"split": source, "path": f"data/{source}-*"} for source in tables]
    MetadataConfigs({config: {"data_files": files}}).to_dataset_card_data(card)
    DatasetCard(f"---\n{card}\n---\n").save(folder / "README.md")


def write_sketches(folder: Path, entry: HubEntry) -> None:
    """The archive of image files in class folders, called otherwise than our list has it, that this is."""
    (folder / "data").mkdir(parents=True)
    with zipfile.ZipFile(folder / "data" / "ImageNet-Sketch.zip", "w") as archive:
        for place, wnid in enumerate(source_names(entry)):
            for number in range(per_class(entry, "train")):
                name = f"sketch/{wnid.upper()}/sketch_{number}.JPEG"
                archive.writestr(name, picture(number, other=place))
            if place < 5:
                archive.writestr(f"__MACOSX/sketch/{wnid}/._sketch_0.JPEG", b"left by a packer")


def write_entry(folder: Path, entry: HubEntry) -> None:
    """The repository of a dataset of the suite."""
    if entry.folders is not None:
        write_sketches(folder, entry)
    else:
        write_repository(folder, tables_of(entry), entry.config or "default")


def serve(monkeypatch: Any, root: Path, cache_folder: Path) -> None:
    """Let repository OWNER/NAME be the folder `root`/OWNER/NAME; nothing else of the way there is changed."""
    monkeypatch.setattr(fetch, "_addresses", lambda repository, revision: (str(root / repository),) * 2)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache_folder / "tables")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", cache_folder / "downloads")
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", cache_folder / "extracted")
