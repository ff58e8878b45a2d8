"""What a dataset is made of, and whether it can be had: looked up without fetching its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from residual.data.hub.lookup import TableFacts, look_up_entry, look_up_table
from residual.data.load import FORMS, dataset_descriptions, dataset_name, load_dataset
from residual.data.splits import SPLITS
from residual.errors import ResidualError
from residual.files import shareable
from residual.libraries import first_line
from residual.repositories import Hub


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset that isn't loaded.

    Args:
        name: as `load_dataset` takes it.
        source: where it comes from, in words.
        sizes: samples of each split that was asked for, where they are known.
        classes: how many, where they are known.
        columns: those of images and of labels, where there are any.
        absent: bytes that have to be fetched.
        kept: whether it was found on this machine alone, since the hub is out of reach.
        note: what wasn't looked at.
        error: why it can't be had; None if it can.
    """

    name: str
    source: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    classes: int | None = None
    columns: tuple[str, ...] = ()
    absent: int = 0
    kept: bool = False
    note: str = ""
    error: ResidualError | None = None


def look_up_dataset(name: str, splits: Sequence[str] = SPLITS, hub: Hub | None = None) -> DatasetFacts:
    """Find a dataset's splits, classes and columns: what ships is known, folders and tables of this machine
    are listed; of a repository of the hub its card is read, and the ends of its files where that says too
    little.

    Args:
        name: as `load_dataset` takes it.
        splits: those that are needed.
        hub: what was asked before, where several are looked up.

    Returns:
        What is known; why it can't be had is in it, nothing is raised of that.

    Raises:
        ResidualError: the name is of no form that is known.
    """
    name = dataset_name(name)
    kind, colon, address = name.partition(":")
    described = {each.name: each for each in dataset_descriptions()}.get(name)
    facts = DatasetFacts(name, described.source if described else shareable(name))
    if described:
        sizes = {split: described.sizes[split] for split in splits if split in described.sizes}
        facts = replace(facts, sizes=sizes, classes=described.classes)
    try:
        if described and described.source.startswith("hub:"):
            found = look_up_entry(name, splits, hub or Hub())
            return replace(
                facts, columns=found.columns, absent=found.absent, kept=found.kept, note=found.note
            )
        if colon and kind == "hf":
            found = look_up_table(name, splits, hub or Hub())
            told = _fields_of(found, "classes", "columns", "absent", "kept")
            return replace(facts, sizes=found.rows, **told)
        if colon and kind == "wds" and "://" in address:
            from residual.data.shard_files import find_shards  # and fsspec with it

            find_shards(address)  # they are read where they are: to count samples is to read them
            return replace(facts, note="samples aren't counted")
        elif colon and kind in FORMS:
            loaded = {split: load_dataset(name, split) for split in splits}
            classes = {len(each.class_names) for each in loaded.values()}
            sizes = {split: len(each) for split, each in loaded.items()}
            return replace(facts, sizes=sizes, classes=max(classes, default=None))
    except ResidualError as error:
        return replace(facts, error=error)
    except OSError as error:  # of the machine, or of a server
        why = error.strerror or first_line(error)
        return replace(facts, error=ResidualError(f"{shareable(name)} can't be read ({why})."))
    return facts


def _fields_of(found: TableFacts, *names: str) -> dict[str, Any]:
    return {name: getattr(found, name) for name in names}
