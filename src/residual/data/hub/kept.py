"""What was made of a repository's splits on this machine before, for when the hub is out of reach.

Each split that is fetched gets a note of its own beside the library's tables: of which commit it is, how all
splits are called, and where its table is. So no two processes write one file, and a split that isn't there is
known to be missing. What the library made by itself, of all splits at once, is found without a note.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from residual.data.hub.saved import MOST_JSON
from residual.errors import ResidualError
from residual.files import parse_json, read_regular, safe_name, write_text

_INFO = "dataset_info.json"
_COMMIT = 40  # letters


@dataclass(frozen=True)
class Source:
    """Splits as they are asked for.

    Args:
        repository, config, revision: on the hub.
        files: a pattern of files for each split, where the repository's own aren't meant.
    """

    repository: str
    config: str | None = None
    revision: str | None = None
    files: Mapping[str, str] | None = None

    @property
    def notes(self) -> Path:
        """The folder of the notes, of all commits."""
        from datasets import config

        asked = json.dumps([self.repository, self.config, dict(self.files or {})], sort_keys=True)
        return Path(
            config.HF_DATASETS_CACHE, "residual", "notes", hashlib.sha256(asked.encode()).hexdigest()[:32]
        )


@dataclass(frozen=True)
class Kept:
    """Every split of a source at one commit.

    Args:
        tables: the folder of each one's table; None of one that isn't there.
        hidden: of each, the columns that say nothing of labels, as far as that was looked at.
    """

    tables: Mapping[str, Path | None]
    hidden: Mapping[str, Collection[str]] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, int]:
        """Of each table that is there."""
        about = {split: _read(folder / _INFO) for split, folder in self.tables.items() if folder}
        return {split: each["splits"][split]["num_examples"] for split, each in about.items()}

    def table(self, split: str) -> Any:
        """The table of one split that is there, a `datasets.Dataset`."""
        import datasets
        from datasets.naming import filenames_for_dataset_split

        folder = self.tables[split]
        about = _read(Path(folder or "", _INFO))
        files = filenames_for_dataset_split(
            str(folder),
            dataset_name=about["dataset_name"],
            split=split,
            filetype_suffix="arrow",
            shard_lengths=about["splits"][split].get("shard_lengths"),
        )
        return datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in files])


def keep(source: Source, commit: str, split: str, hidden: Mapping[str, Collection[str]], folder: str) -> None:
    """Note a table that was made.

    Args:
        source: what was asked for.
        commit: that it is of.
        split: the table's.
        hidden: as in `Kept`, by the names of all splits.
        folder: where the table is.
    """
    from datasets import config

    with suppress(
        ResidualError, OSError, ValueError
    ):  # a closed cache, or a table that is elsewhere, does no harm
        place = Path(folder).absolute().relative_to(Path(config.HF_DATASETS_CACHE).absolute())
        about = {of: sorted(names) for of, names in hidden.items()}
        path = source.notes / safe_name(source.revision or "main") / commit / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"hidden": about, "table": place.as_posix()}, indent=1))


def kept(source: Source) -> Kept | None:
    """The splits of a source that were made before, all of one commit: the one that is asked for, else the
    latest of which something is there. None where nothing is.
    """
    return _noted(source) or _whole(source)


def _noted(source: Source) -> Kept | None:
    revision = source.revision or "main"
    asked = "*" if len(revision) == _COMMIT else safe_name(revision)
    notes = source.notes.glob(f"{asked}/{revision if asked == '*' else '*'}/*.json")
    latest = sorted(notes, key=lambda note: note.stat().st_mtime, reverse=True)
    hidden: dict[str, set[str]] = {}
    tables: dict[str, Path | None] = {}
    for note in latest:
        if note.parent.name != latest[0].parent.name:
            continue
        about = _read(note)
        for split, columns in about["hidden"].items():
            hidden.setdefault(split, set()).update(columns)
            tables.setdefault(split, None)
        folder = _tables() / about["table"]
        if (folder / _INFO).is_file():
            tables[note.stem] = folder
    return Kept(tables, {of: sorted(names) for of, names in hidden.items()}) if any(tables.values()) else None


def _whole(source: Source) -> Kept | None:
    """What the library made of all splits at once; none where several configurations are there and none is
    named, or where a branch's commit isn't known.
    """
    found: dict[str, Kept] = {}
    commit = source.revision if source.revision is None else _commit(source.repository, source.revision)
    for about, folder in _made(source.repository):
        splits = about.get("splits") or {}
        plain = folder.parent.parent.name == about.get("config_name")
        ours = set(source.files) <= set(splits) if source.files else plain
        if splits and ours and (source.revision is None or folder.name == commit):
            found[about.get("config_name", "")] = Kept(dict.fromkeys(splits, folder))
    if source.config:
        return found.get(source.config)
    return next(iter(found.values())) if len(found) == 1 else found.get("default")


def _made(repository: str) -> Iterator[tuple[Any, Path]]:
    """The folders of tables that were made of a repository, the latest last, and what the library notes."""
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = repository.rpartition("/")
    folder = "___".join(filter(None, (owner, camelcase_to_snakecase(name))))
    notes = _tables().joinpath(folder).glob(f"*/*/*/{_INFO}")
    for note in sorted(notes, key=lambda note: note.stat().st_mtime):
        yield _read(note), note.parent


def _commit(repository: str, revision: str) -> str | None:
    """The commit that a branch or a tag was at when it was last asked for."""
    from huggingface_hub import constants

    if len(revision) == _COMMIT:
        return revision
    place = Path(constants.HF_HUB_CACHE, f"datasets--{repository.replace('/', '--')}", "refs", revision)
    with suppress(OSError, ValueError):
        return place.read_text(encoding="utf-8").strip()
    return None


def _tables() -> Path:
    from datasets import config

    return Path(config.HF_DATASETS_CACHE)


def _read(path: Path) -> Any:
    return parse_json(read_regular(path, MOST_JSON), path)
