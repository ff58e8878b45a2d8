"""The files of a store that aren't of coordinates: small ones are read whole and held against their SHA-256,
labels and ids of many samples by the chunk, each held against its checksum in the manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import numpy as np

from residual.errors import DamagedStoreError
from residual.hashing import sha256
from residual.store.layout import whole_array
from residual.store.manifest import StoreManifest
from residual.store.shard_file import BadChunkError, Read, in_memory
from residual.store.storage import MOST_BYTES, Storage

_PIECE = 2**25  # bytes that are hashed at a time
_AT_ONCE = 2**20  # numbers that are read at a time where all are wanted
_MOST_OF_ID = 256  # bytes, in the mean over a store with ids of more than `MOST_BYTES`


class WholeFiles:
    """The files that a manifest lists, each as it was written or an error.

    Args:
        storage: of the store.
        manifest: of the store.
    """

    def __init__(self, storage: Storage, manifest: StoreManifest):
        self.storage, self.manifest = storage, manifest
        self._described: set[str] = set()

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        """A file, if it is what was written; of so many bytes at most.

        Raises:
            DamagedStoreError: it isn't, or isn't there.
        """
        with self.told(name):
            data = self.storage.read(name, most)
        self._compare(name, sha256(data))
        return data

    def check(self, name: str) -> None:
        """Whether a file is what was written; arrays are read a piece at a time.

        Raises:
            DamagedStoreError: as `read`.
        """
        if not name.endswith("/c/0"):
            self.read(name)
            return
        most = max(MOST_BYTES, _MOST_OF_ID * self.manifest.layout.samples)
        digest, start, more = hashlib.sha256(), 0, True
        with self.told(name), self.storage.reader(name) as read:
            while more:
                if start > most:
                    raise DamagedStoreError(f"{self.where(name)} is larger than any such file of a store.")
                (piece,) = read([(start, _PIECE)])
                digest.update(piece)
                start, more = start + len(piece), len(piece) == _PIECE
        self._compare(name, digest.hexdigest())

    def check_description(self, name: str) -> None:
        """Refuse an array that is described otherwise than it was; looked at once."""
        if name not in self._described:
            for file in {"zarr.json", f"{name}/zarr.json"} - self._described:
                self.read(file)
                self._described.add(file)
            self._described.add(name)

    def where(self, name: str) -> str:
        """A file's address, for messages."""
        return f"{self.storage.address}/{name}"

    def _compare(self, name: str, digest: str) -> None:
        if digest != self.manifest.files[name]:
            raise DamagedStoreError(f"{self.where(name)} is damaged: it isn't what was written.")

    @contextmanager
    def told(self, name: str) -> Generator[None]:
        """Tell what can't be read as damage, by the file's name."""
        try:
            yield
        except FileNotFoundError as error:
            raise DamagedStoreError(f"{self.where(name)} is missing.") from error
        except OSError as error:
            why = error.strerror or error
            raise DamagedStoreError(f"{self.where(name)} can't be read ({why}).") from error


class WholeArray:
    """An array that is one file, such as the labels, of `n` numbers.

    Args:
        files: of its store.
        name: of the array.
        n: how many numbers it holds.
    """

    def __init__(self, files: WholeFiles, name: str, n: int):
        self._files, self._name, self._n = files, name, n
        self._array, self._file = whole_array(name, n), f"{name}/c/0"
        self._listed = files.manifest.chunks.get(name)
        self._held: np.ndarray | None = None  # where it is one chunk
        self._seen = False

    def __len__(self) -> int:
        return self._n

    def read(self, rows: range) -> np.ndarray:
        """Some neighbours of them.

        Raises:
            DamagedStoreError: they aren't what was written, or aren't there.
        """
        if not self._seen:
            self._files.check_description(self._name)
        if not len(rows):
            return np.empty(0, self._array.dtype)
        if self._file not in self._files.manifest.files:
            raise self._no_such()
        if self._array.counts[0] == 1:
            if self._held is None:
                self._held = self._whole()
            self._seen = True
            return self._held[rows.start : rows.stop]
        if not self._seen:
            self._look()
        with self._files.told(self._file), self._files.storage.reader(self._file) as read:
            return self._unpacked(read, self._array.size_of(self._n), rows)

    def _look(self) -> None:
        """Whether the file can be read in part."""
        size = self._files.storage.size(self._file)
        if size is None:
            raise DamagedStoreError(f"{self._where} is missing.")
        counted = self._listed is None or len(self._listed) == 8 * self._array.counts[0]
        if size != self._array.size_of(self._n) or not counted:
            raise self._no_such()
        if self._listed is None:  # stores of version 0.1: what stands in for the list
            self._files.check(self._file)
        self._seen = True

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All of it, a part at a time, each with where it begins."""
        for start in range(0, self._n, _AT_ONCE):
            yield start, self.read(range(start, min(start + _AT_ONCE, self._n)))

    def _whole(self) -> np.ndarray:
        data = self._files.read(self._file, self._array.size_of(self._n))
        return self._unpacked(in_memory(data), len(data), range(self._n))

    def _unpacked(self, read: Read, size: int, rows: range) -> np.ndarray:
        try:
            return self._array.unpack(read, size, rows, None, self._listed, indexed=self._listed is None)
        except BadChunkError as error:
            raise self._no_such() from error

    @property
    def _where(self) -> str:
        return self._files.where(self._file)

    def _no_such(self) -> DamagedStoreError:
        return DamagedStoreError(f"{self._where} is damaged: it holds no {self._n:,} numbers as written.")
