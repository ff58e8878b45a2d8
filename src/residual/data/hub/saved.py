"""What `save_to_disk` of the `datasets` library wrote, looked through before that library follows it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from residual.data.dataset import MOST_CLASSES
from residual.errors import ResidualError
from residual.files import parse_json, read_regular

MOST_JSON = 2**26  # bytes of a file that tells of a table; a thousand classes take 30 kB
_HEADER, _BATCH, _COMPRESSION = 2, 1, 3  # numbers of fields in Arrow's Message, DictionaryBatch, RecordBatch


def check_saved(path: Path) -> None:
    """Refuse what `save_to_disk` doesn't write: pipes and devices, names that lead out of the folder, and
    packed files, of which ten kilobytes can be gigabytes.

    Raises:
        ResidualError: there is such a thing.
    """
    parts = [path]
    if (path / "dataset_dict.json").exists():
        parts = [_inside(path, split) for split in _json(path, "dataset_dict.json")["splits"]]
        if not parts:
            raise ResidualError("It has no splits.")
    for part in parts:
        check_features(_json(part, "dataset_info.json"))
        for entry in _json(part, "state.json")["_data_files"]:
            file = _inside(part, entry["filename"])
            if not file.is_file():
                raise ResidualError(f"{file.name!r} in {part.name!r} is no regular file.")
            check_features(_own_features(file))
            if _packed(file):
                raise ResidualError(f"{file.name!r} in {part.name!r} is packed: load it and save it anew.")


def _json(folder: Path, name: str) -> Any:
    return parse_json(read_regular(_inside(folder, name), MOST_JSON), folder / name)


def _inside(folder: Path, name: str) -> Path:
    """The file or folder of that name in a folder, where it is in it."""
    path = folder / name
    own = [folder.resolve(), *blobs(folder)]
    if path.name != name or not any(path.resolve().is_relative_to(each) for each in own):
        raise ResidualError(f"{name!r} leads out of the folder {folder.name!r}.")
    return path


def blobs(folder: Path) -> list[Path]:
    """Where the files are that a snapshot in the hub's cache has links to; none of any other folder."""
    for at in (folder.absolute(), folder.resolve()):
        for parent in (at, *at.parents):
            if parent.parent.name == "snapshots" and "--" in parent.parent.parent.name:
                return [parent.parent.parent.resolve() / "blobs"]
    return []


def check_features(value: Any) -> None:
    """Refuse settings of columns that have the library read a file for class names, or make up billions.

    Raises:
        ResidualError: they do.
    """
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        if not isinstance(part, list | dict) or id(part) in seen:  # YAML can repeat them without an end
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            count = part.get("num_classes")
            if part.get("names_file") or (isinstance(count, int) and count > MOST_CLASSES):
                raise ResidualError("a column has its class names in another file, or has too many")
        waiting += part.values() if isinstance(part, dict) else part


def _own_features(file: Path) -> Any:
    """What an Arrow stream says of its columns to the library."""
    import pyarrow

    with pyarrow.memory_map(str(file)) as source:
        about = pyarrow.ipc.open_stream(source).schema.metadata or {}
    return parse_json(about.get(b"huggingface", b"{}"), file.name)


def _packed(file: Path) -> bool:
    """Whether a part of an Arrow stream is compressed, which its library unpacks whatever its size."""
    import pyarrow

    with pyarrow.memory_map(str(file)) as source:
        for message in pyarrow.ipc.MessageReader.open_stream(source):
            if message.type in ("record batch", "dictionary"):
                buffer = message.metadata.to_pybytes()
                batch = _field(buffer, _target(buffer, 0), _HEADER)
                if message.type == "dictionary" and batch:
                    batch = _field(buffer, batch, _BATCH)
                if batch and _field(buffer, batch, _COMPRESSION):
                    return True
    return False


def _field(buffer: bytes, table: int, number: int) -> int:
    """Where the table in a field of another is, as flatbuffers lay them out; 0 where there is none."""
    (back,) = struct.unpack_from("<i", buffer, table)
    (size,) = struct.unpack_from("<H", buffer, table - back)
    if size < 6 + 2 * number:
        return 0
    (offset,) = struct.unpack_from("<H", buffer, table - back + 4 + 2 * number)
    return _target(buffer, table + offset) if offset else 0


def _target(buffer: bytes, at: int) -> int:
    return at + struct.unpack_from("<I", buffer, at)[0]
