"""What is in a repository of a dataset, by its card and by the ends of its files: no picture is fetched."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from residual.data.hub import fetch
from residual.data.hub.catalogue import classes_of, hub_entries, matched
from residual.data.hub.columns import image_column, label_column
from residual.data.hub.kept import Source, kept
from residual.data.hub.splits import given_split
from residual.data.hub.tables import File, schema
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
        kept: whether it was found on this machine alone, since the hub is out of reach.
        note: what wasn't looked at.
    """

    rows: Mapping[str, int]
    classes: int | None
    columns: tuple[str, ...]
    absent: int
    kept: bool = False
    note: str = ""


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
    source = Source(entry.repository, entry.config, None, entry.files)
    with _errors(name, entry.repository, entry.elsewhere):
        if entry.files and entry.folders is not None:
            archives = [entry.files[each] for each in sorted(needed) if each in entry.files]
            return _look_up_archives(entry.repository, archives, hub)
        card = _card(source, hub)
    for each in needed - set(card.files or needed):
        raise ResidualError(
            f"{where} has no split {each!r}, only {', '.join(map(repr, sorted(card.files)))}."
        )
    columns: tuple[str, ...] = ()
    if (features := card.features) is not None:
        columns = image_column(features, entry.image, where), label_column(features, entry.label, where)
        names = getattr(features[entry.label], "names", None)
        if names:
            matched(names, classes_of(entry.classes), where)
    needed = {entry.splits[split] or "train" for split in splits} if card.why else needed
    return TableFacts(card.rows, None, columns, card.absent(source, needed, hub), card.why is not None)


def _look_up_archives(repository: str, files: Sequence[str], hub: Hub) -> TableFacts:
    """Whether archives are there: what is in them is seen when they are unpacked."""
    from huggingface_hub import try_to_load_from_cache

    note = "its archive isn't looked into"
    try:
        return TableFacts({}, None, (), _absent(repository, None, files, hub), note=note)
    except UnreachableHubError:
        found = (try_to_load_from_cache(repository, file, repo_type="dataset") for file in files)
        if not all(isinstance(each, str) for each in found):
            raise
        return TableFacts({}, None, (), 0, True, note)


def look_up_table(name: str, splits: Sequence[str], hub: Hub) -> TableFacts:
    """The same of `hf:REPO`, `hf:REPO@REVISION` or `hf:REPO:CONFIG`.

    Raises:
        ResidualError: it can't be had, or its columns don't tell what they are.
    """
    pinned, _, config = name.partition(":")[2].partition(":")
    repository, _, revision = pinned.partition("@")
    source = Source(repository, config or None, revision or None)
    fetch.library(name)
    with _errors(name, repository):
        card = _card(source, hub)
    columns, classes, needed = (), None, set(card.files)
    if (features := card.features) is not None:
        columns = image_column(features, None, name), label_column(features, None, name)
        classes = len(getattr(features[columns[1]], "names", None) or ()) or None
    if card.why is not None:
        labelled = [each for each in card.files if not {*columns} & {*card.hidden.get(each, ())}]
        needed = {given_split(labelled or list(card.files), split, name)[0] for split in splits}
    return TableFacts(card.rows, classes, columns, card.absent(source, needed, hub), card.why is not None)


@dataclass(frozen=True)
class _Card:
    """What a repository says of itself: columns, rows and files of every split.

    Args:
        features, rows, files: columns where they are known, and by split the others.
        hidden: columns of a split that say nothing, as far as that is known.
        why: why the hub can't be asked, if so.
        here: the splits that are on this machine, in that case.
    """

    features: Any
    rows: Mapping[str, int]
    files: Mapping[str, Sequence[str]]
    hidden: Mapping[str, Collection[str]] = field(default_factory=dict)
    why: UnreachableHubError | None = None
    here: frozenset[str] = frozenset()

    def absent(self, source: Source, needed: Collection[str], hub: Hub) -> int:
        """Bytes of the needed splits that have to be fetched.

        Raises:
            UnreachableHubError: one of them isn't here, and can't be.
        """
        if self.why is not None and not self.here >= set(needed):
            raise self.why
        wanted = [file for split in sorted(needed) for file in self.files.get(split, ())]
        return 0 if self.why else _absent(source.repository, source.revision, wanted, hub)


def _card(source: Source, hub: Hub) -> _Card:
    """As the library would load it; what was fetched before, where the hub is out of reach."""
    import datasets

    path, _ = fetch._addresses(source.repository, source.revision)
    if not Path(path).is_dir():
        try:
            hub.listing("dataset", source.repository, source.revision)  # gated or gone: in its own words
        except UnreachableHubError as why:
            if (found := kept(source)) is None:
                raise
            here = frozenset(split for split, folder in found.tables.items() if folder)
            features = found.table(min(here)).features
            return _Card(features, found.rows, dict.fromkeys(found.tables, ()), found.hidden, why, here)
    if not source.files:
        fetch._check_card(path, source.repository, source.revision)
    given = dict(source.files) if source.files else None
    builder = datasets.load_dataset_builder(path, source.config, revision=source.revision, data_files=given)
    files = {
        str(split): [str(file) for file in part] for split, part in (builder.config.data_files or {}).items()
    }
    info = builder.info
    rows = {str(split): each.num_examples for split, each in (info.splits or {}).items()}
    return _Card(info.features or _features_of(files), rows, files)


def _features_of(files: Mapping[str, list[str]]) -> Any:
    """Columns by the end of a Parquet file; None where there is no such file."""
    first = next((part[0] for part in files.values() if part), "")
    return schema(File(first)) if first.endswith(".parquet") else None


def _absent(repository: str, revision: str | None, files: Sequence[str], hub: Hub) -> int:
    """Bytes of files that have to be fetched."""
    path, root = fetch._addresses(repository, revision)
    names = [file.removeprefix(f"{root}/") for file in files]
    if Path(path).is_dir():
        return sum(os.stat(Path(path) / name).st_size for name in names)
    listing = hub.listing("dataset", repository, revision)
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
