"""What a store is kept on: a local folder or any fsspec address. A file there is whole or isn't there.

Local files are written beside their path, brought to the disk (`fsync`) and renamed, so that what has been
written survives a kill and a power cut. Object stores put whole objects by themselves.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from residual.addresses import check_address, file_system
from residual.errors import DamagedStoreError, ResidualError
from residual.files import is_partial, local_path, make_folder, replacing, sweep, sync_folder

MOST_BYTES = 2**32  # of a file that is read whole; a linearization of the largest encoders has half of that
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Storage:
    """A folder of files by name (`a/b`), at a path or an fsspec address.

    Raises:
        ResidualError: an address of a kind that isn't known or whose library isn't installed.
    """

    def __init__(self, address: str | os.PathLike[str]):
        self.address = os.fspath(address)
        self.local: Path | None = None
        self._inside: set[str] = set()  # files that were seen to be in the folder
        if (protocol := check_address(self.address)) is None:
            self.local = local_path(self.address)
            return
        self._fs, self._root = file_system(self.address)
        if protocol == "file":
            self.local = Path(self._root)

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        """The whole file, if it has `most` bytes.

        Raises:
            FileNotFoundError: it isn't there.
            DamagedStoreError: it is larger; it is no file, such as a pipe or a device; or it is a link that
                leads out of the store's folder.
        """
        if self.local is not None:
            return self._checked(self.local, name, most).read_bytes()
        self._check_size(name, self._fs.size(self._at(name)), most)
        return self._fs.cat_file(self._at(name))

    @contextlib.contextmanager
    def reader(self, name: str) -> Generator[Callable[[int, int], bytes | memoryview]]:
        """Gives a function that reads so many bytes of a file from a place on."""
        if self.local is None:
            yield lambda start, count: self._fs.cat_file(self._at(name), start=start, end=start + count)
            return
        with self._checked(self.local, name).open("rb", buffering=0) as file:

            def read(start: int, count: int) -> memoryview:
                room = np.empty(count, np.uint8).data  # takes memory in larger pieces than bytes do
                file.seek(start)
                return room[: file.readinto(room) or 0]

            yield read

    def read_all(self, names: list[str], most: int) -> list[bytes]:
        """Several files as `read` gives them, at once where that is faster."""
        if self.local is not None or not names:
            return [self.read(name, most) for name in names]
        for name, size in zip(names, self._fs.sizes([self._at(name) for name in names]), strict=True):
            self._check_size(name, size, most)
        contents = self._fs.cat([self._at(name) for name in names])
        return [contents[self._at(name)] for name in names]

    def write(self, name: str, data: bytes | bytearray) -> None:
        """Write the whole file, or nothing.

        Raises:
            ResidualError: the disk is full, or it can't be written to.
        """
        try:
            if self.local is None:
                self._fs.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
                self._fs.pipe_file(self._at(name), bytes(data))
            else:
                path = self.local / name
                make_folder(path.parent)
                with replacing(path) as beside:
                    beside.write_bytes(data)
        except OSError as error:
            if error.errno in _FULL:
                raise ResidualError(
                    f"The disk of {self.address!r} is full. What is complete is kept: make room and run the "
                    "same again, it goes on from there."
                ) from error
            raise ResidualError(
                f"{self.address!r} can't be written to ({error.strerror or error}). What is complete is kept."
            ) from error

    def remove(self, name: str) -> None:
        """Take a file away, for good.

        Raises:
            ResidualError: it can't be.
        """
        try:
            if self.local is None:
                self._fs.rm_file(self._at(name))
            else:
                (self.local / name).unlink()
                sync_folder((self.local / name).parent)
        except OSError as error:
            raise ResidualError(
                f"{self.address}/{name} can't be removed ({error.strerror or error})."
            ) from error

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None where there is none."""
        try:
            if self.local is not None:
                return (self.local / name).stat().st_size
            return self._fs.size(self._at(name))
        except OSError:
            return None

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of every file below a folder, by name, partly written ones left out."""
        if self.local is not None:
            sizes, start = {}, self.local / folder
            self._check_inside(start, folder)
            for path in start.rglob("*"):
                with contextlib.suppress(OSError):  # another writer's, renamed since; a link to itself
                    if stat.S_ISREG((about := path.stat()).st_mode):
                        sizes[path.relative_to(self.local).as_posix()] = about.st_size
        else:
            self._fs.invalidate_cache()
            start = self._at(folder).rstrip("/")
            listed: dict[str, dict[str, Any]] = self._fs.find(start, detail=True)
            cut = len(self._root.rstrip("/")) + 1
            sizes = {name[cut:]: about["size"] for name, about in listed.items()}
        return {name: size for name, size in sorted(sizes.items()) if not is_partial(name)}

    def sweep(self) -> None:
        """Take away what killed writers left half written."""
        if self.local is not None:
            sweep(self.local, below=True)

    def __repr__(self) -> str:
        return f"Storage({self.address!r})"

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
