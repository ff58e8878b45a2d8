"""Tables of the `datasets` library, from the hub or from disk; what goes wrong on the way in one sentence.

Only data is read, never a repository's own code: the library has no loading scripts from version 4 on.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from residual.data.hub.kept import Source, keep, kept
from residual.data.hub.saved import MOST_JSON, check_features, check_saved
from residual.data.hub.tables import Split
from residual.data.listing import LAYOUT
from residual.errors import ResidualError, UnreachableHubError, printable
from residual.files import local_path, read_regular
from residual.libraries import refused_by_hub
from residual.repositories import out_of_reach

OLDEST_DATASETS = 4  # earlier ones run loading scripts


def library(name: str) -> Any:
    """The `datasets` library.

    Args:
        name: of what needs it, for the error.

    Raises:
        ResidualError: it isn't installed, or is one that would run scripts; says how to install it.
    """
    from residual.libraries import library as optional

    datasets = optional("datasets", name, "datasets")
    if int(datasets.__version__.partition(".")[0]) < OLDEST_DATASETS:
        raise ResidualError(
            f"{name} needs datasets {OLDEST_DATASETS} or newer, and {datasets.__version__} is installed: "
            "pip install 'residual-vit[datasets]'."
        )
    return datasets


def from_hub(
    name: str,
    repository: str,
    config: str | None = None,
    revision: str | None = None,
    files: Mapping[str, str] | None = None,
    folders: Sequence[str] | None = None,
    elsewhere: tuple[str, ...] = (),
) -> dict[str, Split]:
    """Every split of a repository, or of the `files` in it, each fetched once and when it is asked for.

    Args:
        name: of the dataset, for errors.
        repository, config, revision: on the hub.
        files: a pattern of files for each split; None takes what the repository says itself.
        folders: where they are archives of images in class folders: what these are called.
        elsewhere: other places that have it, for errors.

    Raises:
        ResidualError: it can't be had; says where else it may be, and which folders are read. So does a split
            when it is asked for.
    """
    library(name)
    path, root = _addresses(repository, revision)
    if (folder := Path(path)).is_dir():  # the library takes a folder for a repository, too
        check_signs(name, folder, r"::|[*?\[\]\n]")
        path = str(folder.absolute())
        why = None
    else:
        why = out_of_reach("dataset", repository)
    told = _explained(name, repository, elsewhere)
    source = Source(repository, config, revision, files)
    if folders:
        archives = {split: f"{root}/{file}" for split, file in (files or {}).items()}
        return {split: Split(partial(_unpacked, at, folders), told=told) for split, at in archives.items()}
    if why is not None:
        return told(_kept_splits)(told, source, why)
    if not files:
        told(_check_card)(path, repository, revision)
    return told(_splits)(told, path, source)


def _splits(told: Any, path: str, source: Source) -> dict[str, Split]:
    """The splits of a repository, of which nothing is fetched yet if all its files are Parquet.

    Those of other files tell classes together, and what was made of all before is there.
    """
    import datasets
    from datasets.data_files import DataFilesDict

    files, own = source.files, Path(path).is_dir()
    cache = str(_cache_of(Path(path))) if own else None
    ask = partial(
        datasets.load_dataset_builder, path, source.config, revision=source.revision, cache_dir=cache
    )
    whole = ask(data_files=dict(files) if files else None)
    if _is_of_cache(whole):  # the library takes whatever it made last, of any commit
        return _kept_splits(told, source, UnreachableHubError("The hub doesn't give it now."))
    parts: dict[Any, Any] = whole.config.data_files or {}
    splits: dict[str, Split] = {}

    def note(split: str, folder: str) -> None:
        if not own:
            keep(source, str(whole.hash), split, {of: each.hidden for of, each in splits.items()}, folder)

    def load(split: str) -> Any:
        one = ask(data_files=DataFilesDict(**{split: parts[split]}), features=columns)
        if _is_of_cache(one):
            raise UnreachableHubError("the hub doesn't give it now")
        one.download_and_prepare(verification_mode="no_checks")  # the card tells the sizes of all splits
        note(split, one.cache_dir)
        return one.as_dataset(split)

    def made(split: str) -> Any:
        note(split, whole.cache_dir)
        return whole.as_dataset(split)

    columns, there = whole.info.features, Path(whole.cache_dir, "dataset_info.json").is_file()
    by_files = parts and all(file.endswith(".parquet") for part in parts.values() for file in part)
    if there or not by_files:
        if not there:
            whole.download_and_prepare(verification_mode="no_checks" if files else None)
        splits |= {
            str(split): Split(partial(made, str(split)), told=told) for split in whole.info.splits or ()
        }
    else:
        names = map(str, parts)
        splits |= {split: Split(partial(load, split), parts[split], columns, told) for split in names}
    return splits


def _is_of_cache(builder: Any) -> bool:
    """Whether the library found something in its cache instead of on the hub."""
    return type(builder).__module__.startswith("datasets.packaged_modules.cache")


def _kept_splits(told: Any, source: Source, why: UnreachableHubError) -> dict[str, Split]:
    """The splits of a repository that were fetched before, all of one commit; the others say that they
    weren't, once they are asked for.

    Raises:
        UnreachableHubError: there are none.
    """
    found = kept(source)
    if found is None:
        raise why

    def load(split: str) -> Any:
        if found.tables[split] is None:
            raise UnreachableHubError(
                f"its split {split!r} isn't fetched yet, and the hub is out of reach: {why.message}"
            )
        return found.table(split)

    here = [split for split, folder in found.tables.items() if folder]
    columns = told(found.table)(here[0]).features
    return {
        split: Split(partial(load, split), (), columns, told, found.hidden.get(split, ()), split not in here)
        for split in found.tables
    }


@contextmanager
def _explained(name: str, repository: str, elsewhere: Sequence[str] = ()) -> Generator[None]:
    """What the library says of a repository that it can't read becomes one sentence.

    Raises:
        ResidualError: it did; says where else the dataset may be, and which folders are read.
    """
    import datasets

    try:
        with _bars(datasets):
            yield
    except Exception as error:  # whatever the library, the network or the hub say
        reason = _reason(error)
        ways = f" Other places that have it: {'; '.join(elsewhere)}." if elsewhere else ""
        if "onfig" in reason and not elsewhere:
            ways = " A configuration is named as in hf:REPO:CONFIG."
        kind = UnreachableHubError if isinstance(error, UnreachableHubError) else ResidualError
        raise kind(
            f"{name}: {repository!r} can't be had from the hub ({reason}).{ways} "
            f"What is had elsewhere is read as folder:PATH: {LAYOUT}"
        ) from error


def check_signs(name: str, path: Path, signs: str) -> None:
    """Refuse a folder whose path the library would take for a pattern, and read others that fit it.

    Args:
        name: of the dataset, for the error.
        path: of the folder.
        signs: what the library takes for signs of a pattern, as a regular expression.

    Raises:
        ResidualError: one is in the path, made absolute.
    """
    if sign := re.search(signs, str(path.absolute())):
        raise ResidualError(
            f"{name}: the datasets library takes {sign[0]!r} in the path {str(path)!r} for something else "
            "than a part of a name. Rename that folder, or move what is in it."
        )


def from_disk(name: str, path: str | Path) -> dict[str, Split]:
    """Every split of what `save_to_disk` wrote; a single `Dataset` is one split, "all".

    Raises:
        ResidualError: there is no such dataset there.
    """
    datasets = library(name)
    path = local_path(path)
    if not path.is_dir():
        raise ResidualError(f"{name}: there is no folder '{path}'.")
    check_signs(name, path, "::")
    try:
        check_saved(path)
        loaded = datasets.load_from_disk(str(path.absolute()))
    except Exception as error:  # whatever the library says of files that it can't read
        raise ResidualError(
            f"{name}: '{path}' is no dataset written by save_to_disk ({_reason(error)}). "
            "A folder of image files is read as folder:PATH."
        ) from error
    tables = loaded if isinstance(loaded, datasets.DatasetDict) else {"all": loaded}
    return {split: Split(lambda table=table: table) for split, table in tables.items()}


def _check_card(path: str, repository: str, revision: str | None) -> None:
    """Refuse a repository whose card has data files of other places: the library reads any path or address.

    Raises:
        ResidualError: it names one.
    """
    import yaml
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError
    from huggingface_hub.repocard import metadata_load

    for file in ("README.md", ".huggingface.yaml"):
        try:
            if Path(path).is_dir():
                kept = Path(path) / file
            else:
                kept = Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision))
            text = read_regular(kept, MOST_JSON).decode()
        except GatedRepoError:  # which the library tells in words of its own alone
            raise
        except (OSError, ValueError):  # it has none, or can't be had: the library says so
            continue
        fields = yaml.safe_load(text) if file.endswith(".yaml") else metadata_load(kept)
        check_features(fields)
        configs = fields.get("configs") if isinstance(fields, dict) else None
        for name in _texts(configs or []):
            if "::" in name or "://" in name or Path(name).is_absolute() or ".." in Path(name).parts:
                raise ResidualError(
                    f"its {file} names data of another place, {name[:80]!r}, which isn't read"
                )


def _texts(value: Any) -> Iterator[str]:
    """Every text in lists and dictionaries; each of these once, for YAML can repeat them without an end."""
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, list | dict) and id(part) not in seen:
            seen.add(id(part))
            waiting += part.values() if isinstance(part, dict) else part


def own_folders(repository: str, revision: str | None) -> list[Path]:
    """Where files of a repository are on this machine, which cells of its tables may name."""
    from datasets import config
    from huggingface_hub import constants

    kept = Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}"
    unpacked = config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH
    here = Path(_addresses(repository, revision)[0]).absolute()
    return [kept, *map(Path, unpacked), *([here, _caches_of(here)] if here.is_dir() else [])]


def _caches_of(folder: Path) -> Path:
    """Where the library keeps what it makes of a folder, of each state in a folder of its own.

    None is removed here, for a dataset of this or another process may be reading it.
    """
    from datasets import config

    name = hashlib.sha256(str(folder.absolute()).encode(errors="surrogateescape")).hexdigest()
    return Path(config.HF_DATASETS_CACHE, "residual", name[:32])


def _cache_of(folder: Path) -> Path:
    """The one of the state that it is in: of another once a file in it is replaced.

    The library itself looks at when a file was written alone, which archives and copies keep.
    """
    state = hashlib.sha256()
    for at, inside, names in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(name for name in names if name == ".huggingface.yaml" or name[0] != "."):
            with suppress(OSError):
                about = os.stat(os.path.join(at, name))
                where = os.path.relpath(at, folder)
                state.update(repr((where, name, about.st_size, about.st_mtime_ns, about.st_ino)).encode())
    return _caches_of(folder) / state.hexdigest()[:32]


def _unpacked(address: str, folders: Sequence[str]) -> Any:
    """An archive of images in class folders, however their names' case is, as a table; the library's own
    reader takes no labels of it.
    """
    import datasets

    folder = Path(datasets.DownloadManager().download_and_extract(address))
    number = {folder.casefold(): index for index, folder in enumerate(folders)}
    files = []
    for at, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if not name.startswith((".", "__"))]
        if os.path.basename(at).casefold() in number:
            files += [os.path.join(at, name) for name in names if not name.startswith((".", "__"))]
    files.sort(key=lambda file: file.split(os.sep))
    if not files:
        raise ValueError(f"{address.rpartition('/')[2]} has no folders of the classes in it")
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(folders))}
    labels = [number[os.path.basename(os.path.dirname(file)).casefold()] for file in files]
    columns = {"image": files, "label": labels}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def _reason(error: BaseException) -> str:
    """The first line of what it says (two where it lists configurations), and of what was behind it; or what
    the hub wants before it gives it.
    """
    if refused := refused_by_hub(error):
        return refused
    said = []
    for each in (error, error.__cause__):
        if isinstance(each, Exception):
            lines = [line.strip() for line in str(each).strip().splitlines()] or [type(each).__name__]
            more = len(lines) > 1 and lines[1].startswith("Please pick one")
            said.append(" ".join(lines[: 2 if more else 1]).rstrip("."))
    return printable(": ".join(dict.fromkeys(said)))


def _addresses(repository: str, revision: str | None) -> tuple[str, str]:
    """What `datasets.load_dataset` calls a repository, and the root of the files in it."""
    return repository, f"hf://datasets/{repository}" + (f"@{revision}" if revision else "")


@contextmanager
def _bars(datasets: Any) -> Generator[None]:
    """Bars of the library's own, but none where nobody sees them; its setting is put back."""
    chosen = datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS is not None  # by the user's environment
    hide = not (chosen or sys.stderr.isatty() or datasets.are_progress_bars_disabled())
    if hide:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            datasets.enable_progress_bars()
