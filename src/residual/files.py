"""Files that are never half there: written beside their place and renamed into it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from residual.errors import ResidualError


@contextmanager
def written_beside(path: str | Path) -> Generator[Path]:
    """Give a temporary path in the folder of `path`; it replaces `path` on a clean exit only.

    Raises:
        OSError: the folder can't be written to.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe or a device can't be replaced, only written to
        yield path
        return
    path = path.resolve()  # through a link, to the file that it names
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def cache_folder() -> Path:
    """`$RESIDUAL_CACHE`, or `residual` in the user's cache folder."""
    if chosen := os.environ.get("RESIDUAL_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "residual"


def safe_name(name: str) -> str:
    """`name` as one part of a path: as it is, or without what paths can't hold and with a digest of it."""
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80]
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def check_writable(path: str | Path) -> None:
    """Find out before the long work whether a file can be written there; makes its folder.

    Raises:
        ResidualError: it can't.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResidualError(f"The folder {str(path.parent)!r} can't be made: {error.strerror}.") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ResidualError(
            f"{str(path)!r} can't be written: it is a folder, or its folder is closed to you."
        )


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as JSON, whole or not at all.

    Raises:
        ResidualError: the place can't be written to.
    """
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all.

    Raises:
        ResidualError: the place can't be written to.
    """
    try:
        with written_beside(path) as beside:
            beside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResidualError(f"{str(path)!r} can't be written: {error.strerror or error}.") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
