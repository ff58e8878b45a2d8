"""Splits of tables: the paper's own, drawn as the `datasets` library draws them, and those of any table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from residual.data.hub.fetch import library
from residual.data.splits import ALL, divided_part, split_of_name
from residual.errors import ResidualError

SEED = 42


def halves(labels: np.ndarray, share: float, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the larger part and of the `share`, as the `datasets` library splits.

    It is its own `Dataset.train_test_split(test_size=share, stratify_by_column=…, seed=42)`, which the
    paper's code calls: the same images in the same order.

    Args:
        labels: `(n,)`, as the source numbers them: another numbering gives another split.
        share: of all rows, that the second part is.
        where: names the source in errors.

    Raises:
        ResidualError: a class has too few samples.
    """
    library(where)
    try:
        # The function inside `train_test_split`: that one reads the labels row by row, a minute for ImageNet.
        from datasets.utils.stratify import stratified_shuffle_split_generate_indices as drawn

        few = math.ceil(share * len(labels))
        large, small = next(drawn(labels, len(labels) - few, few, rng=np.random.default_rng(SEED)))
    except ImportError:
        large, small = _by_library(labels, share, where)
    except ValueError as error:
        raise ResidualError(
            f"{where} has too few images to make a split of {share:.0%}: {len(labels):,} of "
            f"{len(np.unique(labels))} classes, the smallest with {min(Counter(labels.tolist()).values())}."
        ) from error
    return np.asarray(large, np.int64), np.asarray(small, np.int64)


def _by_library(labels: np.ndarray, share: float, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The same through the library's public function."""
    datasets = library(where)
    kinds = {"label": datasets.ClassLabel(num_classes=int(labels.max()) + 1), "row": datasets.Value("int64")}
    rows = datasets.Dataset.from_dict(
        {"label": labels, "row": np.arange(len(labels))}, features=datasets.Features(kinds)
    )
    parts = rows.train_test_split(test_size=share, stratify_by_column="label", seed=SEED, keep_in_memory=True)
    large, small = (parts[part].with_format("arrow")[:]["row"].to_numpy() for part in ("train", "test"))
    return large, small


def made_split(labels: np.ndarray, split: str, val_share: float | None, where: str) -> np.ndarray:
    """Rows of one of our splits that is made from the source's train.

    With a `val_share`, train or val; without, one of three: a fifth is taken off and halved.
    """
    train, rest = halves(labels, 0.2 if val_share is None else val_share, where)
    if split == "train":
        return train
    if val_share is not None:
        return rest
    val, test = halves(labels[rest], 0.5, where)
    return rest[val if split == "val" else test]


def named_splits(sources: Iterable[str]) -> dict[str, str]:
    """Which of a source's splits each of ours is, by their names."""
    return {ours: source for source in sources if (ours := split_of_name(source))}


def given_split(names: Sequence[str], split: str, where: str) -> tuple[str, tuple[str, ...]]:
    """The source's split that one of ours is taken from, and ours that it is divided into, for a source of
    any kind.

    Its own splits are taken where their names say which they are; where it has train and val alone, its val
    is test, as with ImageNet. What is missing is made as for folders.

    Raises:
        ResidualError: its splits aren't named so.
    """
    if len(names) == 1:
        given = {ALL: names[0]}
    else:
        given = named_splits(names)
        if "test" not in given and "val" in given:
            given["test"] = given.pop("val")
        if "train" not in given or "test" not in given:
            raise ResidualError(
                f"{where} has the splits {', '.join(map(repr, names))}, but no 'train' and 'test'. Save it "
                "with splits of these names, or with a single one, and load that as disk:PATH."
            )
    part, parts = divided_part(split, given)
    return given[part], parts
