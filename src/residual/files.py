"""Files that are never half there, and never more than is wanted: written beside their place, brought to the
disk and renamed into it; read only where they are files, of a size that is to be expected.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from residual.errors import ResidualError

_PARTIAL = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCAL = ("file://", "local://")
_LONGEST_NAME = 200  # bytes; most file systems end at 255


@contextmanager
def written_beside(path: str | Path) -> Generator[Path]:
    """Give a temporary path in the folder of `path`; it replaces `path` on a clean exit only, and is then on
    the disk for good. What killed writers of `path` left beside it goes.

    Raises:
        ResidualError: it can't be written.
    """
    path = Path(path)
    with write_errors(path):
        if path.exists() and not path.is_file():  # a pipe or a device can't be replaced, only written to
            yield path
            return
        path = path.resolve()  # through a link, to the file that it names
        make_folder(path.parent)
        sweep(path.parent, _stem(path))
        with replacing(path) as beside:
            yield beside


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """`written_beside` for a file in a folder that is there, without a look at what others left.

    Raises:
        OSError: it can't be written.
    """
    beside, lock = _begun(path)
    try:
        yield beside
        _sync(beside, os.O_RDWR)
        os.replace(beside, path)
    finally:
        if lock is not None:
            os.close(lock)
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, to last.

    Raises:
        OSError: it can't be made.
    """
    if folder.is_dir():
        return
    if folder.parent != folder:  # a drive that isn't there is its own
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sweep(folder: Path, stem: str = "", below: bool = False) -> None:
    """Take away what killed writers left half written; what one is at work on is locked, and stays.

    Args:
        folder: where to look.
        stem: how the names begin, without their first dot.
        below: in folders in it, too.
    """
    if os.name != "posix":
        return
    partial = [folder / name for name in files_below(folder) if is_partial(name)] if below else None
    for path in folder.glob(f".*{_PARTIAL}") if partial is None else partial:
        if path.name.startswith(f".{stem}") and path.is_file():
            with suppress(OSError):  # it is locked, or gone by now
                handle = os.open(path, os.O_RDWR)
                try:
                    _lock(handle, wait=False)
                    path.unlink()
                finally:
                    os.close(handle)


def files_below(folder: str | Path, within: str = "") -> dict[str, int]:
    """Bytes of every regular file in a folder and those in it, by name below it; links to folders aren't
    followed, and what is gone by then or can't be looked at isn't there.
    """
    found: dict[str, int] = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = within + entry.name
            with suppress(OSError):  # another writer's, renamed since; a link to itself
                if entry.is_dir(follow_symlinks=False):
                    found |= files_below(entry.path, f"{name}/")
                elif stat.S_ISREG((about := entry.stat()).st_mode):
                    found[name] = about.st_size
    return found


def is_partial(name: str) -> bool:
    """Whether a file of this name is one that is being written, or was when its writer was killed."""
    return name.endswith(_PARTIAL)


@contextmanager
def write_errors(path: str | Path) -> Generator[None]:
    """Turn what goes wrong while a file is written into one sentence.

    Raises:
        ResidualError: in place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ResidualError(
                f"{str(path)!r} can't be written: the disk is full.",
                "Make room and run the same again; what was there is kept.",
            ) from error
        raise ResidualError(f"{str(path)!r} can't be written: {error.strerror or error}.") from error


def read_regular(path: str | Path, most: int | None = None, first: int = -1) -> bytes:
    """All bytes of a file that somebody else may have put there: no pipe is waited for, no device read.

    Args:
        path: of the file; links are followed.
        most: bytes that it may have.
        first: how many of them are wanted, if not all.

    Raises:
        ResidualError: it is no regular file, or a larger one.
        OSError: it isn't there or can't be read.
    """
    _check_regular(path, os.stat(path))  # opening is an act of its own for a device
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        _check_regular(path, about)  # and it may have been exchanged
        if most is not None and about.st_size > most:
            raise ResidualError(
                f"{str(path)!r} has {about.st_size:,} bytes, more than the {most:,} that are read."
            )
        return file.read(first)


def _check_regular(path: str | Path, about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise ResidualError(f"{str(path)!r} is no regular file, so it isn't read.")


def parse_json(data: bytes | str, where: str | Path) -> Any:
    """What is in JSON of unknown origin.

    Raises:
        ResidualError: it isn't JSON, holds NaN or infinities, or is nested too deeply.
    """
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ResidualError(f"{str(where)!r} is no JSON that can be read: {why}.") from error


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path on this machine, with `~` and `~user` as what they stand for, unless it is there as it stands,
    or the folder called `~user` that it begins with is.

    Raises:
        ResidualError: nobody knows what they stand for: the user has no entry, or there is no such user.
    """
    user = re.split(r"[/\\]", os.fspath(path))[0]
    if os.path.lexists(path) or (user != "~" and os.path.lexists(user)):
        return Path(path)
    expanded = os.path.expanduser(os.fspath(path))
    if expanded.startswith("~"):
        raise ResidualError(
            f"{os.fspath(path)!r} can't be found: whose home {user!r} is isn't known here.",
            f'Give the whole path, or "./{user}…" for what is called so.',
        )
    return Path(expanded)


def cache_folder() -> Path:
    """`$RESIDUAL_CACHE`, or `residual` in the user's cache folder.

    A user without a home has none: it is then in a place where nothing is and nothing can be written, which
    a cache takes as it takes a closed folder.
    """
    if chosen := os.environ.get("RESIDUAL_CACHE"):
        return local_path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # a relative one would be another in each folder, and is none (XDG Base Directory Specification)
    place = cache if os.path.isabs(cache) else os.path.expanduser("~/.cache")
    return Path(place if os.path.isabs(place) else os.devnull) / "residual"


def safe_name(name: str) -> str:
    """`name` as one part of a path: as it is, or without what paths can't hold and with a digest of it."""
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80]
    return safe if safe == name else f"{safe}-{_digest(name)[:8]}"


def _digest(name: str) -> str:
    """Of a name, whose bytes need be no text."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()


def shareable(name: str, path: bool = False) -> str:
    """The name of a dataset, an encoder or a file as others may see it: of a path on this machine the last
    part is left, of an address all but user, password and query.

    It is told from the name alone, which may be anyone's: `hf:a/b` is a repository. `path` says that what has
    no form in front of it is a path.

    Example:
        >>> from residual.files import shareable
        >>> shareable("folder:/mnt/me/pictures"), shareable("open_clip:ViT-B-32/weights/mine.safetensors")
        ('folder:pictures', 'open_clip:ViT-B-32/mine.safetensors')
        >>> shareable("hf:openai/clip-vit-base-patch32"), shareable("wds:https://me:pw@host/a.tar?token=1")
        ('hf:openai/clip-vit-base-patch32', 'wds:https://host/a.tar')
        >>> shareable("stores/letters", path=True)
        'letters'
    """
    if not name:
        return name
    form, colon, place = name.partition(":")
    if not colon or len(form) == 1 or place.startswith("//"):  # no form, or the drive or protocol of a path
        form, place = "", name
    start = f"{form}:" if form else ""
    if "://" in place and not place.startswith(_LOCAL):
        return start + re.sub(r"(?<=://)[^/]*@", "", place).partition("?")[0]
    for protocol in _LOCAL:
        place = place.removeprefix(protocol)
    rooted = re.match(r"[/~.\\]|\w:[/\\]", place)
    if form in ("open_clip", "timm") and place.endswith(".safetensors") and not rooted:
        return f"{start}{place.partition('/')[0]}/{_last_part(place)}"
    deep = re.split("[@:]", place)[0].count("/") > 1  # deeper than any repository
    if rooted or deep or form in ("folder", "disk", "wds") or (path and not form):
        return start + _last_part(place)
    return name


def _last_part(place: str) -> str:
    last = re.split(r"[/\\]", place.rstrip("/\\"))[-1]
    return Path.cwd().name if last in ("", ".") else last


def shareable_split(name: str) -> str:
    """The same of a dataset's name with its split after it: "folder:/mnt/me/pictures/train"."""
    whole, slash, split = name.rpartition("/")
    return f"{shareable(whole)}/{split}" if slash else shareable(name)


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as JSON, whole or not at all; NaN and infinity, which JSON doesn't have, as null.

    Raises:
        ResidualError: the place can't be written to.
    """
    write_text(path, json.dumps(without_nan(value), indent=1, default=plain_number, allow_nan=False) + "\n")


def plain_number(value: Any) -> Any:
    """A number of numpy or torch as JSON knows it, for `json.dumps(…, default=plain_number)`."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON")


def without_nan(value: Any) -> Any:
    """The same with None for each number that JSON doesn't know."""
    if isinstance(value, dict):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    return None if isinstance(number, float) and not math.isfinite(number) else value


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all; bytes of names that are none as JSON escapes them.

    Raises:
        ResidualError: the place can't be written to.
    """
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} isn't a number of JSON")


def _stem(path: Path) -> str:
    return path.name.encode(errors="surrogatepass")[:_LONGEST_NAME].decode(errors="ignore") + "."


def _begun(path: Path) -> tuple[Path, int | None]:
    """A new file beside `path`, with the permissions that the process gives, and the lock on it.

    Windows lets nobody remove or rename a file that is open, so there nothing is locked, or swept.
    """
    while True:
        beside = path.with_name(f".{_stem(path)}{secrets.token_hex(4)}{_PARTIAL}")
        handle = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        if os.name != "posix":
            os.close(handle)
            return beside, None
        with suppress(OSError):  # a file system that knows no locks, on which nothing is swept
            _lock(handle)
        if os.fstat(handle).st_nlink:  # else it was swept before the lock was there
            return beside, handle
        os.close(handle)


def _lock(handle: int, wait: bool = True) -> None:
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """A renamed file is there for good when its folder is on the disk, too (Windows knows no such thing)."""
    if os.name == "posix":
        with suppress(OSError):  # some file systems of networks know no such thing, either
            _sync(folder, os.O_RDONLY)
