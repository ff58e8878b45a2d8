"""Tar files by their address: which there are, and pieces of them, read where they are through fsspec.

Ranges, lists, stars, `{split}` and folders become `Shard`s; no shell is called and nothing is unpacked.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from residual.addresses import check_address, file_system
from residual.data.splits import ALL, SPLITS
from residual.errors import ResidualError
from residual.files import local_path, read_regular

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
FORMS = (
    "Name shards as in 'shards/{000..012}.tar' or 'shards/{split}-*.tar', or a folder with train/0.tar and "
    "test/0.tar in it."
)
LITERAL = "'?' and '[' are taken as they stand: write {0..2} for [0-2], and * for any signs."
MOST_TEXT = 2**24  # bytes; 100,000 class names take a few million
MOST_SHARDS = 100_000
BLOCK = 8 * 2**20
_BRACES = re.compile(r"\{([^{}]*)\}")
# What file systems call the mark of a file's version.
_VERSIONS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "Content-MD5", "md5Hash")
_VERSIONS += ("generation", "blob_id", "sha", "mtime", "created")


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Args:
        address: what fsspec gets the file system from.
        path: of the file in that file system.
        local: whether it is on this machine's disks.
        name: its path below the folder that all shards are in.
        size: in bytes.
        version: a text that changes when the file does, "" where nobody tells.
    """

    address: str
    path: str
    local: bool
    name: str = ""
    size: int = -1
    version: str = ""

    @contextmanager
    def opened(self) -> Generator[Any]:
        """As a file to be read from its beginning.

        Raises:
            ResidualError: it can't be read.
        """
        with readable_errors(self.path):
            if self.local:
                with open(self.path, "rb") as file:
                    yield file
            else:
                system, _ = file_system(self.address)
                with system.open(self.path, "rb", block_size=BLOCK, cache_type="readahead") as file:
                    yield file


class ShardReader:
    """Pieces of shards, for any thread and process: no file stays open, bytes read ahead are a thread's own.

    Of a local shard a piece is read alone. Of another one a whole block is asked for while pieces are read in
    order, so that this is a stream, and a piece alone where they aren't.
    """

    def __init__(self, shards: Sequence[Shard]):
        self.shards = tuple(shards)
        self._ahead = _Ahead()

    def __reduce__(self) -> tuple:
        return ShardReader, (self.shards,)

    def read(self, number: int, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of shard `number`.

        Raises:
            ResidualError: they can't be read, or the shard isn't what it was.
        """
        shard = self.shards[number]
        with readable_errors(shard.path):
            piece = _local_piece(shard, offset, size) if shard.local else self._streamed(number, offset, size)
        if len(piece) != size:
            raise ResidualError(f"Shard {shard.path!r} has changed since it was listed. Load it again.")
        return piece

    def _streamed(self, number: int, offset: int, size: int) -> bytes:
        shard, ahead = self.shards[number], self._ahead
        same = number == ahead.number
        if not (same and ahead.start <= offset and offset + size <= ahead.start + len(ahead.content)):
            gap = offset - (ahead.end if same else 0)
            ask = max(size, BLOCK) if 0 <= gap <= BLOCK else size
            content = _fetched(shard, offset, min(offset + ask, shard.size))
            # A web server that knows no ranges sends the whole file instead.
            ahead.start = 0 if len(content) == shard.size else offset
            ahead.number, ahead.content = number, content
        ahead.end = offset + size
        return ahead.content[offset - ahead.start : ahead.end - ahead.start]


class _Ahead(threading.local):
    """What a thread has of the shard it is at: bytes from `start` on; it gave out those up to `end`."""

    number, start, content, end = -1, 0, b"", 0


def _local_piece(shard: Shard, offset: int, size: int) -> bytes:
    with open(shard.path, "rb") as file:
        if _local_version(os.fstat(file.fileno())) != shard.version:
            return b""
        file.seek(offset)
        return file.read(size)


def _local_version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"


def _fetched(shard: Shard, start: int, end: int) -> bytes:
    for wait in (0.2, 1.0):
        try:
            return file_system(shard.address)[0].cat_file(shard.path, start=start, end=end)
        except (ValueError, FileNotFoundError, PermissionError):
            raise
        except Exception:  # a connection that broke, in the words of whichever library had it
            time.sleep(wait)
    return file_system(shard.address)[0].cat_file(shard.path, start=start, end=end)


@contextmanager
def readable_errors(path: str) -> Generator[None]:
    """Turn whatever a file system raises into one sentence; each has exceptions of its own.

    Raises:
        ResidualError: in place of any other exception.
    """
    try:
        yield
    except (ResidualError, TypeError, AttributeError, NameError):  # the last three would be faults of ours
        raise
    except Exception as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ResidualError(f"{path!r} can't be read: {why}.") from error


def for_each(function: Callable[[Shard], Any], shards: Sequence[Shard]) -> list:
    """`function` of each shard, in order; of several at a time where a network is waited for."""
    if all(shard.local for shard in shards):
        return [function(shard) for shard in shards]
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(function, shards))


def find_shards(address: str) -> dict[str, tuple[Shard, ...]]:
    """The shards of every split that is there, or those of `ALL` where the address tells no splits apart.

    Raises:
        ResidualError: there are none, some are missing, or train or test is.
    """
    file_system(address)[0].invalidate_cache()  # what was listed earlier in this process may have changed
    root, pattern = _parted(address)
    if is_folder(address):
        given = {split: _in_folder(root, split) for split in SPLITS}
    elif "{split}" in pattern:
        given = {split: _named(root, pattern.replace("{split}", split)) for split in SPLITS}
    else:
        given = {ALL: _named(root, pattern)}
    needed = [split for split in (ALL, "train", "test") if split in given]
    given = {split: shards for split, shards in given.items() if shards}
    if absent := [split for split in needed if split not in given]:
        of = "" if absent == [ALL] else f" of {' and '.join(map(repr, absent))}"
        signs = f" {LITERAL}" if re.search(r"[?[]", address) else ""
        raise ResidualError(f"There are no shards{of} at {address!r}.{signs} {FORMS}")
    folders = [shard.path.split("/")[:-1] for shards in given.values() for shard in shards]
    levels = zip(*folders, strict=False)
    depth = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    return {
        split: tuple(replace(shard, name=_below(shard.path, depth)) for shard in shards)
        for split, shards in given.items()
    }


def is_folder(address: str) -> bool:
    """Whether an address is a folder's, with a folder of shards for every split in it."""
    root, pattern = _parted(address)
    if pattern:
        return False
    name = root.rsplit("/", 1)[-1]
    return not (".tar" in name or name.endswith(COMPRESSED)) or os.path.isdir(root)


def _parted(address: str) -> tuple[str, str]:
    """What of an address is a place as it stands, and the pattern below it ("" where there is none).

    Of a path on this machine every leading folder that is there is meant as it stands, whatever signs are in
    its name; and so is what has no sign of a pattern in it.
    """
    if check_address(address) is None:
        address = local_path(address).absolute().as_posix()  # `..` stays: behind a link it is another folder
    head, stars, _ = address.partition("*")
    start = head.partition("{")[0].rfind("/")
    if not stars and "{" not in head:
        return address.rstrip("/"), ""
    if check_address(address) is None:
        while (end := address.find("/", start + 1)) > 0 and os.path.isdir(address[:end]):
            start = end
        if os.path.exists(address):
            return address, ""
    root, pattern = address[:start], address[start + 1 :]
    return (root, pattern) if "*" in pattern or "{" in pattern else (address, "")


def read_beside(address: str, shard: Shard, name: str) -> str | None:
    """The text file `name` in the root that the address names or beside a shard; None where there is none.

    Raises:
        ResidualError: it can't be read.
    """
    folders = [(shard.address, shard.path.rsplit("/", 1)[0])]
    root, pattern = _parted(address)
    before = pattern.partition("{split}")[0]
    if (is_folder(address) or before != pattern) and "*" not in before and "{" not in before:
        root = f"{root}/{before}".rpartition("/")[0]
        folders.insert(0, (root, file_system(root)[1].rstrip("/")))
    texts = (_text(base, f"{folder}/{name}") for base, folder in folders)
    return next((text for text in texts if text is not None), None)


def _in_folder(root: str, split: str) -> list[Shard]:
    """Those in `ROOT/SPLIT`: numbered, as many as `nshards.txt` says, or else listed."""
    folder = f"{root}/{split}"
    text = _text(folder, f"{file_system(folder)[1]}/nshards.txt")
    if text is None:
        return _named(folder, "*.tar")
    if not re.fullmatch(r"[0-9]{1,6}", text.strip()):
        raise ResidualError(f"'{folder}/nshards.txt' must say how many shards there are, got {text[:40]!r}.")
    if int(text) == 0:
        return []
    shards = _named(folder, f"{{0..{int(text) - 1}}}.tar")
    if not shards:
        raise ResidualError(f"'{folder}/nshards.txt' says {int(text)}, but there is no '{folder}/0.tar'.")
    return shards


def _named(root: str, pattern: str) -> list[Shard]:
    """All shards that a pattern below a root names, or the root itself; none where none of them is there."""
    paths: dict[str, str] = {}
    for one in _expanded(pattern):
        address = f"{root}/{one}" if one else root
        paths |= dict.fromkeys(_listed(root, one) if "*" in one else [file_system(address)[1]], address)
    asked = [Shard(one, path, _is_local(one)) for path, one in paths.items()]
    shards = for_each(_with_size, asked)
    absent = [shard.path for shard, known in zip(asked, shards, strict=True) if known is None]
    if 0 < len(absent) < len(asked):
        others = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise ResidualError(
            f"Of the {len(asked)} shards '{root}/{pattern}' this isn't there: {absent[0]!r}{others}."
        )
    return [shard for shard in shards if shard is not None]


def _is_local(address: str) -> bool:
    return check_address(address) in (None, "file")


def _listed(root: str, pattern: str) -> list[str]:
    """The tar files that a pattern with stars names, 2.tar before 10.tar, as `nshards.txt` numbers them."""
    before, _, stars = pattern[: pattern.index("*")].rpartition("/")
    stars += pattern[pattern.index("*") :]
    system, base = file_system(f"{root}/{before}".rstrip("/"))
    parts = [re.escape(part).replace(r"\*", "[^/]*") if part != "**" else ".*" for part in stars.split("/")]
    named = re.compile(f"{re.escape(base.rstrip('/'))}/+{'/'.join(parts)}", re.DOTALL)
    with readable_errors(f"{root}/{pattern}"):
        try:
            found = system.find(f"{base}/", None if "**" in stars else len(parts), withdirs=True)
            names = [str(name) for name in found if named.fullmatch(str(name))]
        except FileNotFoundError:
            names = []
    tars = (name for name in names if name.endswith((".tar", *COMPRESSED)))
    digits = re.compile(r"([0-9]+)")
    return sorted(tars, key=lambda name: [int(p) if i % 2 else p for i, p in enumerate(digits.split(name))])


def _with_size(shard: Shard) -> Shard | None:
    """The same with its size and version; None where there is no such file."""
    with readable_errors(shard.path):
        try:
            if shard.local:
                status = os.stat(shard.path)
                size, folder = status.st_size, stat.S_ISDIR(status.st_mode)
                if not folder and not stat.S_ISREG(status.st_mode):
                    raise ResidualError(f"{shard.path!r} is a pipe or a device, not a tar file.")
                version = _local_version(status)
            else:
                info = file_system(shard.address)[0].info(shard.path)
                size, folder = info["size"], info.get("type") == "directory"
                version = ", ".join(f"{mark} {info[mark]}" for mark in _VERSIONS if info.get(mark))
        except (FileNotFoundError, NotADirectoryError):
            return None
    if folder:
        raise ResidualError(f"{shard.path!r} is a folder, not a tar file. {FORMS}")
    if size is None:
        raise ResidualError(f"Whoever serves {shard.path!r} doesn't say its size. Copy it to a disk first.")
    return replace(shard, size=size, version=version)


def _expanded(address: str) -> list[str]:
    """Ranges `{000..012}` and lists `{a,b}` written out."""
    done: list[str] = []
    waiting = [address]
    while waiting:
        one = waiting.pop()
        if braces := _BRACES.search(one):
            choices = _choices(braces[1], address)
            waiting += [one[: braces.start()] + choice + one[braces.end() :] for choice in reversed(choices)]
        else:
            done.append(one)
        if len(done) + len(waiting) > MOST_SHARDS:
            raise ResidualError(f"{address!r} names more than {MOST_SHARDS:,} shards.")
    return list(dict.fromkeys(done))


def _choices(text: str, address: str) -> Sequence[str]:
    if "," in text:
        return text.split(",")
    ends = re.fullmatch(r"([0-9]{1,12})\.\.([0-9]{1,12})", text)
    if not ends:
        raise ResidualError(
            f"'{{{text}}}' in {address!r} is no range {{000..012}}, no list {{a,b}} and not {{split}}."
        )
    first, last = int(ends[1]), int(ends[2])
    if abs(last - first) >= MOST_SHARDS:
        raise ResidualError(f"{address!r} names more than {MOST_SHARDS:,} shards.")
    padded = any(len(end) > 1 and end.startswith("0") for end in ends.groups())
    width = max(map(len, ends.groups())) if padded else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _below(path: str, depth: int) -> str:
    name = "/".join(path.split("/")[depth:])
    return name.partition("?")[0] if "://" in path else name


def _text(address: str, path: str) -> str | None:
    with readable_errors(path):
        try:
            if _is_local(address):
                content = read_regular(path, MOST_TEXT)
            else:
                with file_system(address)[0].open(path, "rb") as file:
                    content = file.read(MOST_TEXT + 1)
            if len(content) > MOST_TEXT:
                raise ResidualError(
                    f"{path!r} has more than the {MOST_TEXT:,} bytes that are read of a text."
                )
            return content.decode("utf-8-sig")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except PermissionError:
            if _is_local(address):
                raise
            return None  # what a bucket says of a file that isn't there if it can't be listed
        except UnicodeDecodeError as error:
            raise ResidualError(f"{path!r} isn't text in UTF-8.") from error
