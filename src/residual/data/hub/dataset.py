"""A table of the `datasets` library as one of our datasets: the paper's suite, `hf:` and `disk:`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from residual.data.dataset import FileDataset, file_content, tell_unused
from residual.data.folder import TEMPLATES
from residual.data.hub.catalogue import Classes, HubEntry, classes_of, hub_entries, matched, templates_of
from residual.data.hub.columns import (
    check_apart,
    image_column,
    label_column,
    names_classes,
    read_labels,
    with_labels,
)
from residual.data.hub.fetch import from_disk, from_hub, own_folders
from residual.data.hub.saved import blobs
from residual.data.hub.splits import given_split, made_split, named_splits
from residual.data.hub.tables import Split, Streamed
from residual.data.splits import rows_of_parts
from residual.errors import ResidualError, UnreadableImageError
from residual.files import local_path, shareable
from residual.texts import folded


class HubDataset(FileDataset):
    """One split of a table with a column of images; `sample_ids` tell the source's split and the row there.

    Args:
        name, split, class_names, templates, licence, groups, group_names: as of any dataset.
        table: the source's split.
        source: its name there.
        rows: `(n,)`, which of its rows, of `total`.
        column: of the images.
        stream: fetch pictures as they are asked for, where that can be.
        labels: `(n,)`.
        where: names the source in errors.
        folders: in which cells may name files.
    """

    def __init__(
        self,
        name: str,
        split: str,
        table: Split,
        source: str,
        rows: np.ndarray,
        total: int,
        column: str,
        class_names: Sequence[str],
        templates: Sequence[str],
        labels: np.ndarray,
        licence: str,
        where: str,
        folders: Sequence[Path],
        stream: bool,
        groups: np.ndarray | None = None,
        group_names: Sequence[str] = (),
    ):
        # As they are stored: our own decoder reads them, and says which one it can't.
        self._images = table.pictures(column, rows, stream)
        self.in_order = isinstance(self._images, Streamed)
        self._column = column
        self._where = where
        self._folders = tuple(folders)
        width = max(5, len(str(total - 1)))
        ids = [f"{source}/{row:0{width}d}" for row in rows.tolist()]
        super().__init__(name, split, class_names, templates, labels, ids, licence, groups, group_names)

    def content(self, index: int) -> bytes:
        """The bytes of sample `index`, from the table or from the file that it names."""
        cell = self._images[int(index)][self._column] or {}
        if cell.get("bytes") or not cell.get("path"):
            return cell.get("bytes") or b""
        return file_content(self._named(cell["path"], index), self.sample_ids[index], self.where)

    def _named(self, name: str, index: int) -> Path:
        """The file that a cell names, which has to be one of the dataset's own: a table may name any."""
        folders = [folder.resolve() for folder in self._folders]
        for folder in folders:
            with suppress(OSError, ValueError, RuntimeError):  # the last one is pathlib's, of links in a ring
                path = (folder / name).resolve()
                if path.exists() and any(path.is_relative_to(own) for own in folders):
                    return path
        last = Path(name).name[:80]
        reason = f"its cell names a file, {last!r}, that is none of the dataset's own; {self.where}"
        raise UnreadableImageError(self.sample_ids[index], reason)

    @property
    def where(self) -> str:
        """Named in errors."""
        return self._where


def load_hub(name: str, split: str, stream: bool = False) -> HubDataset:
    """One split of a dataset of the paper's suite, from the hub.

    With `stream`, pictures are fetched as they are read and not kept, where they are in Parquet files.

    Raises:
        ResidualError: it can't be had, or isn't as `hub.json` describes it.
    """
    entry = hub_entries()[name]
    where = f"{name} (hub repository {entry.repository!r})"
    classes = classes_of(entry.classes)
    folders = None if entry.folders is None else classes.spellings[entry.folders]
    tables = from_hub(
        name, entry.repository, entry.config, None, entry.files, folders, elsewhere=entry.elsewhere
    )
    needed = {source for source in (*entry.splits.values(), "train") if source}
    for each in needed - set(tables):
        raise ResidualError(f"{where} has no split {each!r}, only {', '.join(map(repr, tables))}.")
    source = entry.splits[split] or "train"
    features = tables[source].features
    column = image_column(features, entry.image, where)
    label_column(features, entry.label, where)
    labels, names = _labels(tables, source, needed, entry.label, where, stream)
    # The split is made of the source's own numbers, as the paper's code does; ours come after.
    if entry.splits["val"] is None and source == "train":
        share = None if entry.splits["test"] is None else entry.val_share
        rows = made_split(labels[source], split, share, where)
    else:
        rows = np.arange(len(labels[source]))
    numbers = _in_our_order(labels, names, classes, where)[source][rows]
    groups, group_names = _groups(entry, tables[source], rows, numbers, classes, where)
    return HubDataset(
        name,
        split,
        tables[source],
        source,
        rows,
        len(labels[source]),
        column,
        classes.names,
        templates_of(name),
        numbers,
        entry.licence,
        where,
        own_folders(entry.repository, None),
        stream,
        groups,
        group_names,
    )


def load_table(
    name: str, split: str, image: str | None = None, label: str | None = None, stream: bool = False
) -> HubDataset:
    """One split of `hf:REPO`, `hf:REPO@REVISION`, `hf:REPO:CONFIG` or `disk:PATH`.

    Args:
        name: the address.
        split: "train", "val" or "test".
        image, label: the columns, where they can't be told.
        stream: see `load_hub`.

    Raises:
        ResidualError: it can't be had, or its columns or splits don't tell what they are.
    """
    form, _, address = name.partition(":")
    if form == "disk":
        folder = local_path(address)
        tables, folders = from_disk(name, address), [folder, *blobs(folder)]
    else:
        pinned, _, config = address.partition(":")
        repository, _, revision = pinned.partition("@")
        if local_path(address).is_dir():  # a clone, whatever its path has for a configuration
            repository, config, revision = address, "", ""
        if (folder := local_path(repository)).is_dir():
            repository = str(folder)
        tables = from_hub(name, repository, config or None, revision or None)
        folders = own_folders(repository, revision or None)
    features = next(iter(tables.values())).features
    column, labelled = image_column(features, image, name), label_column(features, label, name)
    for source, table in tables.items():
        for wanted in (column, labelled):
            if wanted not in table.features:
                raise ResidualError(f"{name}: its split {source!r} has no column {wanted!r}.")
    tables = with_labels(tables, labelled)
    check_apart({source: tables[source] for source in named_splits(tables).values()}, column, name)
    source, parts = given_split(list(tables), split, name)
    labels, names = _labels(tables, source, set(tables), labelled, name, stream)
    if names is None:
        count = 1 + max((int(numbers.max()) for numbers in labels.values() if numbers.size), default=-1)
        names = tuple(f"class {index}" for index in range(count))
    if len(names) < 2:
        raise ResidualError(
            f"{name} has {len(names)} classes in column {labelled!r}; telling apart needs two."
        )
    if len(labels) == len(tables):
        tell_unused(names, np.concatenate(list(labels.values())), shareable(name))
    rows = rows_of_parts(labels[source], parts, f"{source!r} of {name}")[split]
    tidy = [" ".join(text.replace("_", " ").split()) or text for text in names]
    return HubDataset(
        name,
        split,
        tables[source],
        source,
        rows,
        len(labels[source]),
        column,
        tidy if len(set(map(folded, tidy))) == len(tidy) else names,
        TEMPLATES,
        labels[source][rows],
        "the user's own data; no licence known" if form == "disk" else "as the repository's card says",
        shareable(name),
        folders,
        stream,
    )


def _labels(
    tables: Mapping[str, Split], source: str, needed: Collection[str], column: str, where: str, stream: bool
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """What `read_labels` gives of one split, and of all that are needed where it takes all to tell classes,
    or where nothing has to be fetched for the others.
    """
    own = tables[source]
    alone = names_classes(own.features if stream else own.table.features, column)
    read = {each: tables[each] for each in tables if each == source or each in needed}
    if alone:
        read = {each: split for each, split in read.items() if each == source or split.is_here}
    return read_labels(read, column, where)


def _in_our_order(
    labels: dict[str, np.ndarray], names: Sequence[str] | None, classes: Classes, where: str
) -> dict[str, np.ndarray]:
    if names is not None:
        order = matched(names, classes, where)
        return {source: order[numbers] for source, numbers in labels.items()}
    for source, numbers in labels.items():
        if numbers.size and numbers.max() >= len(classes.names):
            raise ResidualError(
                f"{where} has label {numbers.max()} in its {source!r}, where {len(classes.names)} classes "
                f"have the numbers 0 to {len(classes.names) - 1}."
            )
    return labels


def _groups(
    entry: HubEntry, table: Split, rows: np.ndarray, labels: np.ndarray, classes: Classes, where: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if entry.group is None:
        return None, ()
    column, groups = entry.group.column, entry.group.names
    label_column(table.features, column, where)
    numbers, names = read_labels({"its groups": table}, column, where)
    inside = _in_our_order(numbers, names, Classes(groups, (), "", ""), where)["its groups"][rows]
    return labels * len(groups) + inside, tuple(f"{kind} on {on}" for kind in classes.names for on in groups)
