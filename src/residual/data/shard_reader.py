"""Tar files on disk, on a web server or in a bucket, read in parts through fsspec and never by a shell."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from residual.errors import ResidualError

BLOCK = 8 * 2**20
_LIBRARIES = {"http": "aiohttp requests", "https": "aiohttp requests", "s3": "s3fs", "gs": "gcsfs"}


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Args:
        address: what fsspec gets the file system from.
        path: of the file in that file system.
        name: its path below the folder that all shards are in.
        size: in bytes.
        version: a text that changes when the file does.
        local: whether it is on this machine's disks.
    """

    address: str
    path: str
    name: str
    size: int
    version: str
    local: bool


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
        with reaching(shard.path):
            piece = _local_piece(shard, offset, size) if shard.local else self._streamed(number, offset, size)
        if len(piece) != size:
            raise ResidualError(f"Shard {shard.path!r} has changed since it was listed. Load it again.")
        return piece

    def _streamed(self, number: int, offset: int, size: int) -> bytes:
        shard, ahead = self.shards[number], self._ahead
        same = number == ahead.number
        if not (same and ahead.start <= offset and offset + size <= ahead.start + len(ahead.held)):
            gap = offset - (ahead.end if same else 0)
            ask = max(size, BLOCK) if 0 <= gap <= BLOCK else size
            held = _fetched(shard, offset, min(offset + ask, shard.size))
            # A web server that knows no ranges sends the whole file instead.
            ahead.start = 0 if len(held) == shard.size else offset
            ahead.number, ahead.held = number, held
        ahead.end = offset + size
        return ahead.held[offset - ahead.start : ahead.end - ahead.start]


class _Ahead(threading.local):
    """What a thread holds of the shard it is at: bytes from `start` on; it gave out those up to `end`."""

    number, start, held, end = -1, 0, b"", 0


@contextmanager
def reaching(place: str) -> Generator[None]:
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
        raise ResidualError(f"{place!r} can't be read: {why}.") from error


@contextmanager
def opened(shard: Shard) -> Generator[Any]:
    """The shard as a file to be read from its beginning."""
    if shard.local:
        with open(shard.path, "rb") as file:
            yield file
    else:
        system, _ = file_system(shard.address)
        with system.open(shard.path, "rb", block_size=BLOCK, cache_type="readahead") as file:
            yield file


def file_system(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system and the path in it; asked for anew at each use, since a fork or a thread needs its own.

    Raises:
        ResidualError: the protocol is unknown or its library isn't installed.
    """
    try:
        return url_to_fs(address)
    except ImportError as error:
        protocol = address.split("://")[0].rsplit("::", 1)[-1]
        library = _LIBRARIES.get(protocol, f"'fsspec[{protocol}]'")
        raise ResidualError(
            f"{address!r} needs a library that isn't installed ({error}): pip install {library}."
        ) from error
    except Exception as error:
        raise ResidualError(f"{address!r} is no address that can be read: {error}.") from error


def is_local(address: str) -> bool:
    """Whether an address is of this machine's disks."""
    return isinstance(file_system(address)[0], LocalFileSystem)


def local_version(status: os.stat_result) -> str:
    """What `Shard.version` is for a local file."""
    return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"


def for_each(function: Callable[[Shard], Any], shards: Sequence[Shard]) -> list:
    """`function` of each shard, in order; of several at a time where a network is waited for."""
    if all(shard.local for shard in shards):
        return [function(shard) for shard in shards]
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(function, shards))


def _local_piece(shard: Shard, offset: int, size: int) -> bytes:
    with open(shard.path, "rb") as file:
        if local_version(os.fstat(file.fileno())) != shard.version:
            return b""
        file.seek(offset)
        return file.read(size)


def _fetched(shard: Shard, start: int, end: int) -> bytes:
    for wait in (0.2, 1.0):
        try:
            return file_system(shard.address)[0].cat_file(shard.path, start=start, end=end)
        except (ValueError, FileNotFoundError, PermissionError):
            raise
        except Exception:  # a connection that broke, in the words of whichever library held it
            time.sleep(wait)
    return file_system(shard.address)[0].cat_file(shard.path, start=start, end=end)
