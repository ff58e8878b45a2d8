"""The arrays of a store on disk, read so that what isn't as it was written is an error and never a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from residual.errors import DamagedStoreError, ResidualError
from residual.hashing import sha256
from residual.progress import Progress
from residual.store.layout import opened, unpack_ids
from residual.store.receipts import MANIFEST, Receipt, StoreManifest, read_manifest
from residual.store.shards import ChangedByteError
from residual.store.storage import Place


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


class Arrays:
    """What is in the whole shards of a store.

    Args:
        place: where.
        manifest: of the store.
        receipts: of its whole shards, by number.
    """

    def __init__(self, place: Place, manifest: StoreManifest, receipts: dict[int, Receipt]):
        self.place, self.manifest, self.receipts = place, manifest, receipts
        self.layout = manifest.layout
        self._described: set[str] = set()

    @cached_property
    def positions(self) -> np.ndarray:
        """Where the samples that could be read are along the arrays, of whole shards only."""
        whole = [self.layout.samples_of(shard) for shard in sorted(self.receipts)]
        positions = np.array([position for rows in whole for position in rows], np.int64)
        return positions[~np.isin(positions, list(self.reasons))]

    @cached_property
    def reasons(self) -> dict[int, str]:
        """The samples that could not be read, and why."""
        skipped: dict[int, str] = {}
        for shard in sorted(self.receipts):
            skipped |= self.receipts[shard].skipped
        return skipped

    @cached_property
    def ids(self) -> list[str]:
        """Of all samples."""
        return unpack_ids({name: self.small(name) for name in ("sample_id", "sample_id_end")})

    def checked(self, name: str) -> bytes:
        """A file that isn't of samples, if it is what was written.

        Raises:
            ResidualError: it isn't, or isn't there.
        """
        where = f"{self.place.address}/{name}"
        try:
            data = self.place.read(name)
        except FileNotFoundError as error:
            raise DamagedStoreError(f"{where} is missing.") from error
        except OSError as error:
            raise DamagedStoreError(f"{where} can't be read ({error.strerror or error}).") from error
        if sha256(data) != self.manifest.files[name]:
            raise DamagedStoreError(f"{where} is damaged: it isn't what was written.")
        return data

    def small(self, name: str) -> np.ndarray:
        """An array that is one file."""
        array = self._array(name)
        if array.size:  # where every id is empty their bytes have no file
            self.checked(f"{name}/c/0")
        return array[...]

    def read(self, name: str, at: np.ndarray, layers: Sequence[int] | None = None) -> np.ndarray:
        """An array at some positions, of all layers or some (ascending).

        Raises:
            ResidualError: what is read isn't what was written; names the file and the samples.
        """
        self._check_description(name)
        array = self.layout.arrays[name]
        tail = list(array.tail)
        if layers is not None:
            tail[self.layout.layer_axis(name)] = len(layers)
        result = np.empty((len(at), *tail), array.dtype)
        for shard in np.unique(at // self.layout.rows).tolist():
            places = np.flatnonzero(at // self.layout.rows == shard)
            rows = at[places] - shard * self.layout.rows
            chunks = np.unique(rows // array.chunk_rows)
            for run in np.split(chunks, np.flatnonzero(np.diff(chunks) > 1) + 1):  # nothing in between
                here = np.isin(rows // array.chunk_rows, run)
                first, last = int(rows[here].min()), int(rows[here].max())
                try:
                    got = self._unpacked(name, shard, range(first, last + 1), layers)
                except ChangedByteError as error:
                    raise DamagedStoreError(str(self._damage(name, shard, error))) from error
                if len(got) == len(result) and np.array_equal(rows, np.arange(first, last + 1)):
                    return got
                result[places[here]] = got[rows[here] - first]
        return result

    def verify(self, progress: Progress | None) -> list[Damage]:
        """Read every chunk of every file."""
        checks: list[tuple[str, Callable[[], object]]] = [(MANIFEST, self._same_manifest)]
        checks += [(name, partial(self.checked, name)) for name in self.manifest.files]
        checks += [(Receipt.file(shard), partial(self._receipt, shard)) for shard in self.receipts]
        found = []
        for name, check in checks:
            try:
                check()
            except (ResidualError, OSError):
                found.append(Damage(name, (), "isn't what was written"))
        for done, shard in enumerate(sorted(self.receipts), start=1):
            found += [damage for name in self.layout.arrays for damage in self.damages(name, shard)]
            if progress is not None:
                progress("verify", done, len(self.receipts))
        return found

    def damages(self, name: str, shard: int) -> list[Damage]:
        """What is wrong with the file of one shard of an array, by the samples of its chunks."""
        if wrong := self._wrong_size(name, shard):
            return [wrong]
        file, found = self.layout.file(name, shard), []
        if sha256(self.place.read(file)) == self.receipts[shard].checksums[name]:
            return []
        each, count = self.layout.arrays[name].chunk_rows, len(self.layout.samples_of(shard))
        for start in range(0, count, each):
            try:
                self._unpacked(name, shard, range(start, min(start + each, count)))
            except ChangedByteError as error:
                if (damage := self._damage(name, shard, error)) not in found:
                    found.append(damage)
        ids = self._ids(self.layout.samples_of(shard))
        return found or [Damage(file, ids, "isn't the file that was written")]

    def _unpacked(
        self, name: str, shard: int, rows: range, layers: Sequence[int] | None = None
    ) -> np.ndarray:
        """Some rows of a shard, of all layers or of some."""
        if wrong := self._wrong_size(name, shard):
            raise DamagedStoreError(str(wrong))
        file, size = self.layout.file(name, shard), self.receipts[shard].sizes[name]
        with self.place.parts(file) as read:
            axis = 0 if layers is None else self.layout.layer_axis(name)
            return self.layout.grid(name).unpack(read, size, rows, layers, axis)

    def _damage(self, name: str, shard: int, error: ChangedByteError) -> Damage:
        spoilt = self.layout.samples_of(shard)[error.rows.start : error.rows.stop]
        return Damage(self.layout.file(name, shard), self._ids(spoilt), "holds a changed byte")

    def _array(self, name: str) -> Any:
        """As zarr reads it."""
        self._check_description(name)
        return opened(self.place)[name]

    def _check_description(self, name: str) -> None:
        """Refuse an array that is described otherwise than it was; looked at once."""
        if name not in self._described:
            for file in ("zarr.json", f"{name}/zarr.json"):
                self.checked(file)
            self._described.add(name)

    def _same_manifest(self) -> None:
        if read_manifest(self.place) != self.manifest:
            raise ResidualError(f"{MANIFEST} isn't that of this store.")

    def _receipt(self, shard: int) -> None:
        name = Receipt.file(shard)
        self.manifest.receipt(self.place.read(name), name, shard)

    def _wrong_size(self, name: str, shard: int) -> Damage | None:
        file, expected = self.layout.file(name, shard), self.receipts[shard].sizes[name]
        size = self.place.size(file)
        if size == expected:
            return None
        reason = "is missing" if size is None else f"has {size:,} bytes instead of {expected:,}"
        return Damage(file, self._ids(self.layout.samples_of(shard)), reason)

    def _ids(self, rows: range) -> tuple[str, ...]:
        """Of those samples; where the ids themselves are damaged, their positions."""
        good = [position for position in rows if position not in self.reasons]
        try:
            return tuple(self.ids[position] for position in good)
        except ResidualError:
            return tuple(f"number {position}" for position in good)
