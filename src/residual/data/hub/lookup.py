"""What is in a repository of a dataset, by its card and by the ends of its files: no picture is fetched."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residual.data.hub import fetch
from residual.data.hub.catalogue import classes_of, hub_entries, matched
from residual.data.hub.columns import image_column, label_column
from residual.errors import ResidualError, UnreachableHubError
from residual.repositories import Hub


@dataclass(frozen=True)
class TableFacts:
    """What is known of the tables of a repository.

    Args:
        rows: of each of the source's splits, where the card tells them.
        classes: how many, where that is known.
        columns: of images and of labels, where they are known.
        absent: bytes that have to be fetched.
    """

    rows: Mapping[str, int]
    classes: int | None
    columns: tuple[str, ...]
    absent: int


def look_up_entry(name: str, splits: Sequence[str], hub: Hub) -> TableFacts:
    """What is known of a dataset of the suite, held against what its entry says.

    Args:
        name: of the entry.
        splits: ours, that are needed.
        hub: what was asked before.

    Raises:
        ResidualError: it can't be had, or has other splits, columns or classes.
    """
    entry = hub_entries()[name]
    where = f"{name} (hub repository {entry.repository!r})"
    needed = {entry.splits[split] or "train" for split in splits} | {"train"}
    fetch.library(name)
    with _errors(name, entry.repository, entry.elsewhere):
        if entry.files and entry.folders is not None:
            files = [entry.files[source] for source in sorted(needed) if source in entry.files]
            return TableFacts({}, None, (), _absent(entry.repository, None, files, hub))
        features, rows, files = _card(entry.repository, entry.config, None, needed, entry.files, hub)
    for source in needed - set(files or needed):
        raise ResidualError(f"{where} has no split {source!r}, only {', '.join(map(repr, sorted(files)))}.")
    columns: tuple[str, ...] = ()
    if features is not None:
        columns = image_column(features, entry.image, where), label_column(features, entry.label, where)
        names = getattr(features[entry.label], "names", None)
        if names:
            matched(names, classes_of(entry.classes), where)
    wanted = [file for source in sorted(needed) for file in files.get(source, ())]
    return TableFacts(rows, None, columns, _absent(entry.repository, None, wanted, hub))


def look_up_table(name: str, hub: Hub) -> TableFacts:
    """The same of `hf:REPO`, `hf:REPO@REVISION` or `hf:REPO:CONFIG`, of all its splits.

    Raises:
        ResidualError: it can't be had, or its columns don't tell what they are.
    """
    pinned, _, config = name.partition(":")[2].partition(":")
    repository, _, revision = pinned.partition("@")
    fetch.library(name)
    with _errors(name, repository):
        features, rows, files = _card(repository, config or None, revision or None, None, None, hub)
    columns, classes = (), None
    if features is not None:
        columns = image_column(features, None, name), label_column(features, None, name)
        classes = len(getattr(features[columns[1]], "names", None) or ()) or None
    wanted = [file for part in files.values() for file in part]
    absent = _absent(repository, revision or None, wanted, hub)
    return TableFacts(rows, classes, columns, absent)


def _card(
    repository: str,
    config: str | None,
    revision: str | None,
    needed: set[str] | None,
    patterns: Mapping[str, str] | None,
    hub: Hub,
) -> tuple[Any, dict[str, int], dict[str, list[str]]]:
    """Features, rows of every split and files of every split, as the library would load them."""
    import datasets

    path, _ = fetch._addresses(repository, revision)
    if not Path(path).is_dir() and not _prepared(repository):
        hub.listing("dataset", repository, revision)  # gated, gone or out of reach: told in its own words
    if not patterns:
        fetch._check_card(path, repository, revision)
    given = dict(patterns) if patterns else None
    builder = datasets.load_dataset_builder(path, config, revision=revision, data_files=given)
    files = {
        str(split): [str(file) for file in part] for split, part in (builder.config.data_files or {}).items()
    }
    info = builder.info
    rows = {str(split): each.num_examples for split, each in (info.splits or {}).items()}
    return info.features or _features_of(files, needed), rows, files


def _features_of(files: Mapping[str, list[str]], needed: set[str] | None) -> Any:
    """Columns by the end of a Parquet file; None where there is no such file."""
    import datasets
    import fsspec
    import pyarrow.parquet

    first = next((part[0] for split, part in files.items() if part and split in (needed or files)), "")
    if not first.endswith(".parquet"):
        return None
    with fsspec.open(first, "rb") as file:
        return datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(file))


def _prepared(repository: str) -> bool:
    """Whether tables of a repository were made on this machine before."""
    from datasets import config

    folder = Path(config.HF_DATASETS_CACHE) / repository.replace("/", "___")
    return any(folder.rglob("*.arrow"))


def _absent(repository: str, revision: str | None, files: Sequence[str], hub: Hub) -> int:
    """Bytes of files that have to be fetched."""
    path, root = fetch._addresses(repository, revision)
    names = [file.removeprefix(f"{root}/") for file in files]
    if Path(path).is_dir():
        return sum(os.stat(Path(path) / name).st_size for name in names)
    try:
        listing = hub.listing("dataset", repository, revision)
    except UnreachableHubError:
        if _prepared(repository):
            return 0
        raise
    inside = [_below(name, repository) for name in names]
    if missing := [name for name in inside if name not in listing.sizes]:
        raise ResidualError(f"The dataset {repository!r} of the hub has no file {missing[0]!r}.")
    return sum(listing.sizes[name] for name in listing.absent(inside))


def _below(address: str, repository: str) -> str:
    """A file's path in its repository, from `hf://datasets/OWNER/NAME@COMMIT/PATH` or from that path."""
    _, found, rest = address.partition(f"hf://datasets/{repository}")
    return rest.partition("/")[2] if found else address


@contextmanager
def _errors(name: str, repository: str, elsewhere: Sequence[str] = ()) -> Generator[None]:
    """What the library says of a repository that it can't read becomes one sentence."""
    try:
        yield
    except ResidualError:
        raise
    except Exception as error:  # whatever the library, the network or the hub say
        ways = f"Other places that have it: {'; '.join(elsewhere)}." if elsewhere else ""
        raise ResidualError(
            f"{name}: {repository!r} can't be had from the hub ({fetch._reason(error)}).", ways
        ) from error
