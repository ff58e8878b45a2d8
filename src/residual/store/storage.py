"""What a store is kept on: a local folder or any fsspec address. A file there is whole or isn't there.

Local files are written beside their path, brought to the disk (`fsync`) and renamed, so that what has been
written survives a kill and a power cut. Object stores put whole objects by themselves; each look at one is a
request, so that sizes come from listings, and several are asked for at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from residual.addresses import AT_ONCE, check_address, file_system, is_past_the_end, remote_errors
from residual.errors import DamagedStoreError, ResidualError
from residual.files import (
    files_below,
    is_partial,
    local_path,
    make_folder,
    replacing,
    shareable,
    sweep,
    sync_folder,
)
from residual.store.shard_file import Read

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

MOST_BYTES = 2**32  # of a file that is read whole; a linearization of the largest encoders has half of that
_FULL = (errno.ENOSPC, errno.EDQUOT)
_THREADS = 8
_KEPT = " What is complete is kept."

T = TypeVar("T")
R = TypeVar("R")


class Storage:
    """A folder of files by name (`a/b`), at a path or an fsspec address. It may be pickled, and used by any
    thread and behind a fork.

    Args:
        address: a path or an address; credentials are those of the environment.

    Raises:
        ResidualError: an address of a kind that isn't known or whose library isn't installed.
    """

    def __init__(self, address: str | os.PathLike[str]):
        self._asked = os.fspath(address)
        self.address = self._asked  # as it may be shown
        self.local: Path | None = None
        self._inside: set[str] = set()  # files that were seen to be in the folder
        if (protocol := check_address(self.address)) is None:
            self.local = local_path(self.address)
            return
        _, self._root = file_system(self.address, listings=False)
        if protocol == "file":
            self.local = Path(self._root)
        else:
            self.address = shareable(self._asked)

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self._asked,)

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        """The whole file, if it has `most` bytes.

        Raises:
            FileNotFoundError: it isn't there.
            DamagedStoreError: it is larger; it is no file, such as a pipe or a device; or it is a link that
                leads out of the store's folder.
            UnreachableAddressError: a server doesn't give it.
        """
        if self.local is not None:
            return self._checked(self.local, name, most).read_bytes()
        return self.read_all([name], most)[0]

    @contextlib.contextmanager
    def reader(self, name: str) -> Generator[Read]:
        """Gives a function that reads several pieces of a file, each so many bytes from a place on; fewer
        where it ends before.
        """
        if self.local is None:
            yield lambda pieces: self._pieces([(name, *piece) for piece in pieces])
            return
        with self._checked(self.local, name).open("rb", buffering=0) as file:

            def read(start: int, count: int) -> memoryview:
                room = np.empty(count, np.uint8).data  # takes memory in larger pieces than bytes do
                file.seek(start)
                return room[: file.readinto(room) or 0]

            yield lambda pieces: [read(*piece) for piece in pieces]

    def read_all(self, names: Sequence[str], most: int) -> list[bytes]:
        """Several files as `read` gives them, at once where each is a request."""
        if self.local is not None:
            return [self.read(name, most) for name in names]
        contents = self._pieces([(name, 0, most + 1) for name in names])
        for name, content in zip(names, contents, strict=True):
            if len(content) > most:
                self._check_size(name, self.size(name), most)
        return contents

    def several(self, function: Callable[[T], R], each: Iterable[T]) -> Iterator[R]:
        """`function` of each, in order; of several at once where it waits for a server."""
        if self.local is not None:
            yield from map(function, each)
            return
        with ThreadPoolExecutor(_THREADS, "residual-requests") as pool:
            yield from pool.map(function, each)

    def write(self, name: str, data: bytes | bytearray) -> None:
        """Write the whole file, or nothing.

        Raises:
            ResidualError: the disk is full, or it can't be written to.
        """
        with self._write_errors():
            if self.local is None:
                self._fs.pipe_file(self._at(name), bytes(data))
            else:
                make_folder((self.local / name).parent)
                with replacing(self.local / name) as beside:
                    beside.write_bytes(data)

    def write_all(self, files: Iterable[tuple[str, bytes | bytearray]]) -> None:
        """Write several files as `write` does, at once where each is a request: when that fails, some of them
        may be there.

        Raises:
            ResidualError: as `write`.
        """
        if self.local is None:
            with self._write_errors():
                self._fs.pipe({self._at(name): bytes(data) for name, data in files})
            return
        for name, data in files:
            self.write(name, data)

    def remove(self, name: str) -> None:
        """Take a file away, for good.

        Raises:
            ResidualError: it can't be.
        """
        try:
            if self.local is None:
                with self._errors(f"keeps {name}, which can't be removed"):
                    self._fs.rm_file(self._at(name))
            else:
                (self.local / name).unlink()
                sync_folder((self.local / name).parent)
        except OSError as error:
            raise ResidualError(
                f"{self.address}/{name} can't be removed ({error.strerror or error})."
            ) from error

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None where there is none.

        Raises:
            UnreachableAddressError: a server doesn't tell.
        """
        try:
            if self.local is not None:
                return (self.local / name).stat().st_size
            with self._errors("can't be read"):
                return self._fs.size(self._at(name))
        except OSError:
            return None

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of every file below a folder, by name, partly written ones left out: of an object store one
        request for every 1,000.

        Raises:
            UnreachableAddressError: a server doesn't tell.
        """
        if self.local is not None:
            self._check_inside(self.local / folder, folder)
            sizes = files_below(self.local / folder, f"{folder}/" if folder else "")
        else:
            listed: dict[str, dict[str, Any]] = {}
            with contextlib.suppress(FileNotFoundError), self._errors("can't be listed"):
                self._fs.invalidate_cache()
                listed = self._fs.find(self._at(folder).rstrip("/"), detail=True)
            cut = len(self._root.rstrip("/")) + 1
            sizes = {name[cut:]: about["size"] for name, about in listed.items() if _is_file(name, about)}
        return {name: size for name, size in sorted(sizes.items()) if not is_partial(name)}

    def sweep(self) -> None:
        """Take away what killed writers left half written."""
        if self.local is not None:
            sweep(self.local, below=True)

    def __repr__(self) -> str:
        return f"Storage({self.address!r})"

    @property
    def _fs(self) -> AbstractFileSystem:
        return file_system(self._asked, listings=False)[0]

    def _errors(self, doing: str, kept: str = "") -> contextlib.AbstractContextManager[None]:
        return remote_errors(self._asked, doing, kept)

    @contextlib.contextmanager
    def _write_errors(self) -> Generator[None]:
        try:
            with (
                self._errors("can't be written to", _KEPT) if self.local is None else contextlib.nullcontext()
            ):
                yield
        except OSError as error:
            if error.errno in _FULL:
                raise ResidualError(
                    f"The disk of {self.address!r} is full. What is complete is kept: make room and run the "
                    "same again, it goes on from there."
                ) from error
            raise ResidualError(
                f"{self.address!r} can't be written to ({error.strerror or error}).{_KEPT}"
            ) from error

    def _pieces(self, asked: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Of files that aren't on this machine, each so many bytes from a place on: a request each."""
        paths = [self._at(name) for name, _, _ in asked]
        starts, ends = [start for _, start, _ in asked], [start + count for _, start, count in asked]
        how = {"batch_size": AT_ONCE} if self._fs.async_impl else {}
        with self._errors("can't be read"):
            got = self._fs.cat_ranges(paths, starts, ends, on_error="return", **how)
            for place, piece in enumerate(got):
                if isinstance(piece, Exception):
                    if not is_past_the_end(piece):
                        raise piece
                    got[place] = b""
                elif len(piece) > asked[place][2]:  # of a server of HTTP that gives nothing but whole files
                    got[place] = piece[starts[place] : ends[place]]
            return got

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _checked(self, root: Path, name: str, most: int | None = None) -> Path:
        """A local file that can be read without harm."""
        path = root / name
        try:
            about = path.stat()
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise DamagedStoreError(f"{self.address}/{name} is a link to itself.") from error
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(about.st_mode):
            raise DamagedStoreError(f"{self.address}/{name} is a pipe, a device or the like.")
        if name not in self._inside:
            self._check_inside(path, name)
            self._inside.add(name)
        if most is not None:
            self._check_size(name, about.st_size, most)
        return path

    def _check_inside(self, path: Path, name: str) -> None:
        """Refuse links out of the folder, but for those to the blobs of the hub's cache that it is in."""
        place, root = (Path(os.path.realpath(each)) for each in (path, self.local or path))
        caches = [above.parent / "blobs" for above in (root, *root.parents) if above.name == "snapshots"]
        if not any(place.is_relative_to(each) for each in (root, *caches[:1])):
            raise ResidualError(
                f"{self.address}/{name} leads out of the store's folder, and such links aren't followed.",
                "Copy the store with its links followed (cp -rL), if it is yours.",
            )

    def _check_size(self, name: str, size: int | None, most: int) -> None:
        if size is not None and size > most:
            raise DamagedStoreError(
                f"{self.address}/{name} has {size:,} bytes, and no such file of a store has more than "
                f"{most:,}."
            )


def _is_file(name: str, about: dict[str, Any]) -> bool:
    """An object store may list folders, too: what consoles put there for one, or the one that was asked for,
    where another writer made it just then."""
    return about["type"] == "file" and not name.endswith("/")
