"""webdataset shards as a dataset, read where they are: `wds:ADDRESS`."""

from __future__ import annotations

import re

import numpy as np

from residual.data.dataset import SPLITS, FileDataset, stratified_split
from residual.data.folder import TEMPLATES
from residual.data.shard_files import FORMS, find_shards, read_beside
from residual.data.shard_reader import Shard, ShardReader, for_each
from residual.data.tar_index import TarIndex, index_shard
from residual.errors import ResidualError

CLASS_FILES = ("classnames.txt", "classes.txt")
TEMPLATE_FILE = "zeroshot_classification_templates.txt"
MOST_CLASSES = 100_000


class ShardsDataset(FileDataset):
    """One split of webdataset shards; `sample_ids` are `SHARD/KEY`, and images are read out of the tar files.

    Addresses are paths or fsspec URLs. `shards/{000..012}.tar`, `{a,b}.tar` and `*.tar` are one set of
    samples, split 60/20/20; with `{split}` in it, an address stands for train, val and test; a folder has
    `train/*.tar` and `test/*.tar` in it, as those of CLIP_benchmark have. Where there is no val it is 20 % of
    train. Splits made here keep the classes' proportions and never change (seed 42, in the shards' order).
    Labels are `.cls` or `.json`. Class names and templates are those of files beside the shards, if any.

    Raises:
        ResidualError: shards are missing, cut off or packed; a sample has no image or no label; a class has
            too few samples.
    """

    def __init__(self, address: str, split: str):
        if not address:
            raise ResidualError(f"'wds:' needs an address after it. {FORMS}")
        self._address = address
        found = find_shards(address)
        first = "" if "" in found else "train"
        source = first if first == "" or (split == "val" and "val" not in found) else split
        names = _class_names(address, found[first][0])
        indexes = for_each(index_shard, found[source])
        if names is None:
            reference = indexes if source == first else for_each(index_shard, found[first])
            names = _names_of_labels(address, [label for index in reference for label in index.labels])
        if len(names) < 2:
            raise ResidualError(
                f"The shards {address!r} have only one class, {names[0]!r}; telling classes apart needs two "
                "or more."
            )
        labels = _class_numbers(found[source], indexes, names)
        chosen = np.arange(len(labels))
        if source == "" or (source == "train" and "val" not in found):
            parts, shares = (SPLITS, (0.6, 0.2, 0.2)) if source == "" else (SPLITS[:2], (0.8, 0.2))
            _check_counts(address, labels, names, parts)
            chosen = stratified_split(labels, shares)[parts.index(split)]
        self._reader = ShardReader(found[source])
        self._shards = np.repeat(np.arange(len(indexes)), [len(index.keys) for index in indexes])[chosen]
        self._offsets = np.array([n for index in indexes for n in index.offsets], np.int64)[chosen]
        self._sizes = np.array([n for index in indexes for n in index.sizes], np.int64)[chosen]
        ids = [
            f"{shard.name}/{key}"
            for shard, index in zip(found[source], indexes, strict=True)
            for key in index.keys
        ]
        super().__init__(
            f"wds:{without_query(address)}",
            split,
            names,
            _templates(address, found[first][0]),
            labels[chosen],
            [ids[place] for place in chosen],
            "the user's own images; no licence known",
        )

    def content(self, index: int) -> bytes:
        """The bytes of sample `index`'s image; `ResidualError` where its shard can't be read any more."""
        return self._reader.read(int(self._shards[index]), int(self._offsets[index]), int(self._sizes[index]))

    @property
    def where(self) -> str:
        """Named in errors."""
        return f"shards {self._address!r}"


def _class_names(address: str, shard: Shard) -> list[str] | None:
    for file in CLASS_FILES:
        if (text := read_beside(address, shard, file)) is not None:
            names = [line.strip() for line in text.strip().splitlines()]
            if not all(names):
                raise ResidualError(f"{file} of {address!r} must have a class name on every line.")
            return names
    return None


def _templates(address: str, shard: Shard) -> list[str] | tuple[str, ...]:
    text = read_beside(address, shard, TEMPLATE_FILE)
    if text is None:
        return TEMPLATES
    templates = [line.strip().replace("{c}", "{}") for line in text.splitlines() if line.strip()]
    if wrong := [line for line in templates if line.count("{}") != 1]:
        raise ResidualError(
            f"A template in {TEMPLATE_FILE} of {address!r} must have one {{c}}: {wrong[0]!r}."
        )
    return templates or TEMPLATES


def _names_of_labels(address: str, labels: list[int | str]) -> list[str]:
    numbers = [label for label in labels if isinstance(label, int)]
    if not labels:
        raise ResidualError(f"The shards {address!r} have no samples.")
    if not numbers:
        return sorted({str(label) for label in labels})
    if len(numbers) < len(labels):
        raise ResidualError(
            f"The labels of {address!r} are numbers in some samples and texts in others. Use one of both, or "
            "put all class names into classnames.txt."
        )
    if max(numbers) >= MOST_CLASSES:
        raise ResidualError(f"Label {max(numbers)} of {address!r} is too large for a class number from 0 on.")
    return [str(number) for number in range(max(numbers) + 1)]


def _class_numbers(shards: tuple[Shard, ...], indexes: list[TarIndex], names: list[str]) -> np.ndarray:
    """The class of each sample: a number is one already, a text is looked up among the names."""
    known: dict[int | str, int] = {name: number for number, name in reversed(list(enumerate(names)))}
    known |= {number: number for number in range(len(names))}
    labels = []
    for shard, index in zip(shards, indexes, strict=True):
        for key, label in zip(index.keys, index.labels, strict=True):
            if label not in known:
                raise ResidualError(
                    f"Sample {key!r} of shard {shard.path!r} has the label {label!r}, which is none of the "
                    f"{len(names)} classes (those of classnames.txt or of train)."
                )
            labels.append(known[label])
    if not labels:
        raise ResidualError(f"The {len(shards)} shards from {shards[0].path!r} on have no samples.")
    return np.array(labels, np.int64)


def _check_counts(address: str, labels: np.ndarray, names: list[str], parts: tuple[str, ...]) -> None:
    counts = np.bincount(labels, minlength=len(names))
    for name, count in zip(names, counts, strict=True):
        if 0 < count < len(parts):
            raise ResidualError(
                f"Class {name!r} of {address!r} has too few samples to split: {count}, where "
                f"{', '.join(parts)} need at least {len(parts)}. Add samples, or shards of each split."
            )


def without_query(address: str) -> str:
    """A URL without what follows `?`: a signed one holds a key there, and names are written down."""
    return re.sub(r"\?[^/]*$", "", address) if "://" in address else address
