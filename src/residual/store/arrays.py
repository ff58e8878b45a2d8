"""The arrays of a store on disk, read so that what isn't as it was written is an error and never a number."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np

from residual.errors import DamagedStoreError, ResidualError, UnreachableAddressError
from residual.hashing import sha256
from residual.progress import Progress
from residual.store.damage import Damage, Verified, chosen
from residual.store.layout import WHOLE
from residual.store.manifest import MANIFEST, MOST_BYTES, Receipt, StoreManifest, read_manifest
from residual.store.positions import Positions
from residual.store.sample_ids import IdTexts
from residual.store.shard_file import BadChunkError, ForeignChunkError, in_memory
from residual.store.storage import Storage
from residual.store.whole import WholeArray, WholeFiles

_AT_ONCE = 2**20  # samples that are read at a time where all are wanted


class CheckedArrays:
    """What is in the whole shards of a store.

    Args:
        storage: of the store.
        manifest: of the store.
        receipts: of its whole shards, by number.
        spoilt: receipts that are none, by number, and why.
    """

    def __init__(
        self,
        storage: Storage,
        manifest: StoreManifest,
        receipts: dict[int, Receipt],
        spoilt: dict[int, ResidualError],
    ):
        self.storage, self.manifest, self.receipts, self.spoilt = storage, manifest, receipts, spoilt
        self.layout = manifest.layout
        self.files = WholeFiles(storage, manifest)
        self._own: set[str] = set()  # files of version 0.1 that were seen to be those that were written

    @cached_property
    def skipped(self) -> dict[int, str]:
        """The samples that could not be read, by position, and why."""
        return {
            position: reason
            for shard in sorted(self.receipts)
            for position, reason in self.receipts[shard].skipped.items()
        }

    @cached_property
    def positions(self) -> Positions:
        """Where the samples that could be read are along the arrays, of whole shards only."""
        return Positions([self.layout.samples_of(shard) for shard in sorted(self.receipts)], self.skipped)

    @property
    def holes(self) -> list[range]:
        """Shards without a receipt that have one behind them: a run that was cut off leaves none."""
        known = itertools.pairwise([-1, *sorted(self.receipts)])
        return [range(before + 1, shard) for before, shard in known if before + 1 < shard]

    @cached_property
    def ids(self) -> IdTexts:
        """Of all samples."""
        return IdTexts(self.files, self.layout.samples)

    def numbers(self, name: str, names: Sequence[str]) -> np.ndarray:
        """The labels or groups of the samples that could be read, each the number of a name.

        Raises:
            DamagedStoreError: they aren't what was written, or aren't there; or a number has no name.
        """
        result, done = np.empty(len(self.positions), WHOLE[name]), 0
        for start, values in WholeArray(self.files, name, self.layout.samples).blocks():
            if values.min() < 0 or values.max() >= len(names):
                held = f"{values.min()} to {values.max()}, of {len(names)} names"
                raise DamagedStoreError(f"{self.files.where(name)} holds {held}.")
            kept = values[self.positions.within(range(start, start + len(values))) - start]
            result[done : done + len(kept)] = kept
            done += len(kept)
        return result

    def all_of(self, name: str) -> np.ndarray:
        """An array at all positions.

        Raises:
            DamagedStoreError: as `read`.
        """
        array, n = self.layout.arrays[name], len(self.positions)
        result = np.empty((n, *array.tail), array.dtype)
        for start in range(0, n, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            result[part] = self.read(name, self.positions[part])
        return result

    def read(self, name: str, positions: np.ndarray, layers: Sequence[int] | None = None) -> np.ndarray:
        """An array at some positions, of all layers or some (ascending).

        Raises:
            DamagedStoreError: what is read isn't what was written; names the file and the samples.
        """
        if len(positions):
            self.files.check_description(name)
        array, shard_rows = self.layout.arrays[name], self.layout.rows
        tail = list(array.tail)
        if layers is not None and array.layer_axis is not None:
            tail[array.layer_axis] = len(layers)
        pieces: list[tuple[int, range, np.ndarray]] = []  # of a shard some rows, and where they go
        shards = positions // shard_rows
        order = np.argsort(shards, kind="stable")
        for targets in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1) if len(order) else ():
            shard = int(shards[targets[0]])
            rows = positions[targets] - shard * shard_rows
            chunks = np.unique(rows // array.chunk_rows)
            for run in np.split(chunks, np.flatnonzero(np.diff(chunks) > 1) + 1):  # nothing in between
                inside = targets[np.isin(rows // array.chunk_rows, run)]
                own = positions[inside] - shard * shard_rows
                pieces.append((shard, range(int(own.min()), int(own.max()) + 1), inside))
        result = np.empty((len(positions), *tail), array.dtype)
        fetched = self.storage.several(lambda piece: self._part(name, piece[0], piece[1], layers), pieces)
        for (shard, rows_read, targets), values in zip(pieces, fetched, strict=True):
            own = positions[targets] - shard * shard_rows
            if len(values) == len(positions) and np.array_equal(own, rows_read):
                return values
            result[targets] = values[own - rows_read.start]
        return result

    def read_each(
        self, names: Sequence[str], positions: np.ndarray, layers: Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """`read` of several arrays, by name."""
        if len(positions):
            self.files.check_description(names[0])  # and of all, before several look at that at once
        values = self.storage.several(lambda name: self.read(name, positions, layers), names)
        return dict(zip(names, values, strict=True))

    def _part(self, name: str, shard: int, rows: range, layers: Sequence[int] | None) -> np.ndarray:
        self._check_own(name, shard)
        try:
            return self._unpacked(name, shard, rows, layers)
        except BadChunkError as error:
            raise DamagedStoreError(str(self._damage(name, shard, error))) from error

    def verify(self, progress: Progress | None = None, sample: int | None = None, seed: int = 0) -> Verified:
        """Read every chunk of every file; or of so many shards, and of what isn't of shards."""
        shards, bad = chosen(list(self.receipts), sample, seed), []
        checks: list[tuple[str, Callable[[], object]]] = [(MANIFEST, self._check_manifest)]
        checks += [(name, partial(self.files.check, name)) for name in self.manifest.files]
        checks += [(Receipt.file(shard), partial(self._check_receipt, shard)) for shard in shards]
        found = self.storage.several(_is_right, (check for _, check in checks))
        names = [name for (name, _), right in zip(checks, found, strict=True) if not right]
        damages = [Damage(name, (), "isn't what was written") for name in names]
        for shard in sorted({*self.spoilt, *self._without_receipt()}):
            reason = "isn't what was written" if shard in self.spoilt else "is missing, its shard is there"
            damages.append(Damage(Receipt.file(shard), self._ids(self.layout.samples_of(shard)), reason))
        for done, of_shard in enumerate(self.storage.several(self._damages_of, shards), start=1):
            damages += of_shard
            bad += [shards[done - 1]] * bool(of_shard)
            if progress is not None:
                progress("verify", done, len(shards))
        return Verified(damages, shards, len(self.receipts), bad)

    def _without_receipt(self) -> list[int]:
        """Whole shards in front of others whose receipt was lost: a writer leaves none behind."""
        lost, arrays = [], self.layout.arrays.items()
        for hole in self.holes:
            for shard in reversed(hole):
                n, file = len(self.layout.samples_of(shard)), partial(self.layout.file, shard=shard)
                if any(self.storage.size(file(name)) != array.size_of(n) for name, array in arrays):
                    break  # it and those in front of it may be another writer's part
                lost.append(shard)
        return lost

    def _check_own(self, name: str, shard: int) -> None:
        """Refuse the file of another shard where the receipt lists no chunks, from its SHA-256, once.

        Where a byte was changed its chunk says so.
        """
        file = self.layout.file(name, shard)
        if self.receipts[shard].chunks or file in self._own:
            return
        for damage in self._damages(name, shard):
            if damage.reason != BadChunkError.reason:
                raise DamagedStoreError(str(damage))
        self._own.add(file)

    def _damages_of(self, shard: int) -> list[Damage]:
        """What is wrong with the files of one shard."""
        return [damage for name in self.layout.arrays for damage in self._damages(name, shard)]

    def _damages(self, name: str, shard: int) -> list[Damage]:
        """What is wrong with the file of one shard of an array, by the samples of its chunks."""
        if self.storage.local is not None and (wrong := self._wrong_size(name, shard)):
            return [wrong]
        file, samples = self.layout.file(name, shard), self.layout.samples_of(shard)
        receipt = self.receipts[shard]
        try:
            data = self.storage.read(file, receipt.sizes[name])
        except UnreachableAddressError:
            raise
        except (ResidualError, OSError):
            return [self._wrong_size(name, shard) or Damage(file, self._ids(samples), "can't be read")]
        if sha256(data) == receipt.checksums[name]:
            return []
        if len(data) != receipt.sizes[name]:
            return [self._of_size(name, shard, len(data))]
        array, checksums, damages = self.layout.arrays[name], receipt.chunks.get(name), []
        for start in range(0, len(samples), array.chunk_rows):
            rows = range(start, min(start + array.chunk_rows, len(samples)))
            try:
                array.unpack(in_memory(data), len(data), rows, checksums=checksums)
            except BadChunkError as error:
                if (damage := self._damage(name, shard, error)) not in damages:
                    damages.append(damage)
        return damages or [Damage(file, self._ids(samples), ForeignChunkError.reason)]

    def _unpacked(
        self, name: str, shard: int, rows: range, layers: Sequence[int] | None = None
    ) -> np.ndarray:
        """Some rows of a shard, of all layers or of some.

        Of a server nothing is asked for but chunks, where their checksums are known, and the size if they are
        wrong.
        """
        receipt, file = self.receipts[shard], self.layout.file(name, shard)
        here = self.storage.local is not None
        if here and (wrong := self._wrong_size(name, shard)):
            raise DamagedStoreError(str(wrong))
        array, size, checksums = self.layout.arrays[name], receipt.sizes[name], receipt.chunks.get(name)
        try:
            with self.storage.reader(file) as read:
                return array.unpack(read, size, rows, layers, checksums, here or checksums is None)
        except (BadChunkError, OSError) as error:
            if wrong := None if here else self._wrong_size(name, shard):
                raise DamagedStoreError(str(wrong)) from error
            if isinstance(error, BadChunkError):
                raise
            where = f"{self.storage.address}/{file}"
            raise DamagedStoreError(f"{where} can't be read ({error.strerror or error}).") from error

    def _wrong_size(self, name: str, shard: int) -> Damage | None:
        size = self.storage.size(self.layout.file(name, shard))
        return None if size == self.receipts[shard].sizes[name] else self._of_size(name, shard, size)

    def _of_size(self, name: str, shard: int, size: int | None) -> Damage:
        expected = self.receipts[shard].sizes[name]
        reason = "is missing" if size is None else f"has {size:,} bytes instead of {expected:,}"
        return Damage(self.layout.file(name, shard), self._ids(self.layout.samples_of(shard)), reason)

    def _damage(self, name: str, shard: int, error: BadChunkError) -> Damage:
        spoilt = self.layout.samples_of(shard)[error.rows.start : error.rows.stop]
        return Damage(self.layout.file(name, shard), self._ids(spoilt), error.reason)

    def _ids(self, samples: range) -> tuple[str, ...]:
        """Of those that could be read; where the ids themselves are damaged, their positions."""
        readable = [position for position in samples if position not in self.skipped]
        try:
            return tuple(self.ids.of(np.array(readable, np.int64)))
        except ResidualError:
            return tuple(f"number {position}" for position in readable)

    def _check_manifest(self) -> None:
        if read_manifest(self.storage) != self.manifest:
            raise ResidualError(f"{MANIFEST} isn't that of this store.")

    def _check_receipt(self, shard: int) -> None:
        name = Receipt.file(shard)
        self.manifest.receipt(shard, self.storage.read(name, MOST_BYTES), name)


def _is_right(check: Callable[[], object]) -> bool:
    """Whether a file is what was written.

    Raises:
        UnreachableAddressError: nobody knows.
    """
    try:
        check()
    except UnreachableAddressError:
        raise
    except (ResidualError, OSError):
        return False
    return True
