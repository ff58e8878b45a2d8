"""The arrays of a store on disk, read so that what isn't as it was written is an error and never a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from residual.errors import DamagedStoreError, ResidualError
from residual.hashing import sha256
from residual.progress import Progress
from residual.store.layout import ChangedByteError, read_with_zarr, unpack_ids
from residual.store.manifest import MANIFEST, Receipt, StoreManifest, read_manifest
from residual.store.storage import Storage


@dataclass(frozen=True)
class Damage:
    """A file that isn't what was written, the samples whose numbers it spoils, and what is wrong."""

    file: str
    samples: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        ids = self.samples
        spoilt = f" Spoilt: {len(ids)} samples, {ids[0]!r} to {ids[-1]!r}." if ids else ""
        return f"{self.file} {self.reason}.{spoilt}"


class CheckedArrays:
    """What is in the whole shards of a store.

    Args:
        storage: of the store.
        manifest: of the store.
        receipts: of its whole shards, by number.
    """

    def __init__(self, storage: Storage, manifest: StoreManifest, receipts: dict[int, Receipt]):
        self.storage, self.manifest, self.receipts = storage, manifest, receipts
        self.layout = manifest.layout
        self._described: set[str] = set()

    @cached_property
    def skipped(self) -> dict[int, str]:
        """The samples that could not be read, by position, and why."""
        return {
            position: reason
            for shard in sorted(self.receipts)
            for position, reason in self.receipts[shard].skipped.items()
        }

    @cached_property
    def positions(self) -> np.ndarray:
        """Where the samples that could be read are along the arrays, of whole shards only."""
        shards = [self.layout.samples_of(shard) for shard in sorted(self.receipts)]
        positions = np.array([position for shard in shards for position in shard], np.int64)
        return positions[~np.isin(positions, list(self.skipped))]

    @cached_property
    def ids(self) -> list[str]:
        """Of all samples."""
        return unpack_ids({name: self.whole(name) for name in ("sample_id", "sample_id_end")})

    def checked_file(self, name: str) -> bytes:
        """A file that isn't of samples, if it is what was written.

        Raises:
            DamagedStoreError: it isn't, or isn't there.
        """
        where = f"{self.storage.address}/{name}"
        try:
            data = self.storage.read(name)
        except FileNotFoundError as error:
            raise DamagedStoreError(f"{where} is missing.") from error
        except OSError as error:
            raise DamagedStoreError(f"{where} can't be read ({error.strerror or error}).") from error
        if sha256(data) != self.manifest.files[name]:
            raise DamagedStoreError(f"{where} is damaged: it isn't what was written.")
        return data

    def whole(self, name: str) -> np.ndarray:
        """An array that is one file, such as the labels.

        Raises:
            DamagedStoreError: as `checked_file`.
        """
        self._check_description(name)
        if (data := f"{name}/c/0") in self.manifest.files:  # where every id is empty their bytes have no file
            self.checked_file(data)
        return read_with_zarr(self.storage, name)

    def read(self, name: str, positions: np.ndarray, layers: Sequence[int] | None = None) -> np.ndarray:
        """An array at some positions, of all layers or some (ascending).

        Raises:
            DamagedStoreError: what is read isn't what was written; names the file and the samples.
        """
        self._check_description(name)
        array, shard_rows = self.layout.arrays[name], self.layout.rows
        tail = list(array.tail)
        if layers is not None and array.layer_axis is not None:
            tail[array.layer_axis] = len(layers)
        result = np.empty((len(positions), *tail), array.dtype)
        shards = positions // shard_rows
        for shard in np.unique(shards).tolist():
            targets = np.flatnonzero(shards == shard)
            rows = positions[targets] - shard * shard_rows
            chunks = np.unique(rows // array.chunk_rows)
            for run in np.split(chunks, np.flatnonzero(np.diff(chunks) > 1) + 1):  # nothing in between
                inside = np.isin(rows // array.chunk_rows, run)
                first, last = int(rows[inside].min()), int(rows[inside].max())
                try:
                    values = self._unpacked(name, shard, range(first, last + 1), layers)
                except ChangedByteError as error:
                    raise DamagedStoreError(str(self._damage(name, shard, error))) from error
                if len(values) == len(result) and np.array_equal(rows, np.arange(first, last + 1)):
                    return values
                result[targets[inside]] = values[rows[inside] - first]
        return result

    def verify(self, progress: Progress | None) -> list[Damage]:
        """Read every chunk of every file."""
        checks: list[tuple[str, Callable[[], object]]] = [(MANIFEST, self._check_manifest)]
        checks += [(name, partial(self.checked_file, name)) for name in self.manifest.files]
        checks += [(Receipt.file(shard), partial(self._check_receipt, shard)) for shard in self.receipts]
        damages = []
        for name, check in checks:
            try:
                check()
            except (ResidualError, OSError):
                damages.append(Damage(name, (), "isn't what was written"))
        for done, shard in enumerate(sorted(self.receipts), start=1):
            damages += [damage for name in self.layout.arrays for damage in self._damages(name, shard)]
            if progress is not None:
                progress("verify", done, len(self.receipts))
        return damages

    def _damages(self, name: str, shard: int) -> list[Damage]:
        """What is wrong with the file of one shard of an array, by the samples of its chunks."""
        if wrong := self._wrong_size(name, shard):
            return [wrong]
        file, samples = self.layout.file(name, shard), self.layout.samples_of(shard)
        if sha256(self.storage.read(file)) == self.receipts[shard].checksums[name]:
            return []
        each, damages = self.layout.arrays[name].chunk_rows, []
        for start in range(0, len(samples), each):
            try:
                self._unpacked(name, shard, range(start, min(start + each, len(samples))))
            except ChangedByteError as error:
                if (damage := self._damage(name, shard, error)) not in damages:
                    damages.append(damage)
        return damages or [Damage(file, self._ids(samples), "isn't the file that was written")]

    def _unpacked(
        self, name: str, shard: int, rows: range, layers: Sequence[int] | None = None
    ) -> np.ndarray:
        """Some rows of a shard, of all layers or of some."""
        if wrong := self._wrong_size(name, shard):
            raise DamagedStoreError(str(wrong))
        with self.storage.reader(self.layout.file(name, shard)) as read:
            return self.layout.arrays[name].unpack(read, self.receipts[shard].sizes[name], rows, layers)

    def _wrong_size(self, name: str, shard: int) -> Damage | None:
        file, expected = self.layout.file(name, shard), self.receipts[shard].sizes[name]
        size = self.storage.size(file)
        if size == expected:
            return None
        reason = "is missing" if size is None else f"has {size:,} bytes instead of {expected:,}"
        return Damage(file, self._ids(self.layout.samples_of(shard)), reason)

    def _damage(self, name: str, shard: int, error: ChangedByteError) -> Damage:
        spoilt = self.layout.samples_of(shard)[error.rows.start : error.rows.stop]
        return Damage(self.layout.file(name, shard), self._ids(spoilt), "holds a changed byte")

    def _ids(self, samples: range) -> tuple[str, ...]:
        """Of those that could be read; where the ids themselves are damaged, their positions."""
        readable = [position for position in samples if position not in self.skipped]
        try:
            return tuple(self.ids[position] for position in readable)
        except ResidualError:
            return tuple(f"number {position}" for position in readable)

    def _check_description(self, name: str) -> None:
        """Refuse an array that is described otherwise than it was; looked at once."""
        if name not in self._described:
            for file in ("zarr.json", f"{name}/zarr.json"):
                self.checked_file(file)
            self._described.add(name)

    def _check_manifest(self) -> None:
        if read_manifest(self.storage) != self.manifest:
            raise ResidualError(f"{MANIFEST} isn't that of this store.")

    def _check_receipt(self, shard: int) -> None:
        name = Receipt.file(shard)
        self.manifest.receipt(shard, self.storage.read(name), name)
