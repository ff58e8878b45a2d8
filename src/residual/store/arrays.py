"""The arrays of a store on disk, read so that what isn't as it was written is an error and never a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from residual.errors import ResidualError
from residual.store.layout import opened, unpack_ids
from residual.store.place import Place
from residual.store.record import MANIFEST, MEND, Receipt, StoreManifest, read_manifest, sha256


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
        self._right_size: set[tuple[str, int]] = set()
        self._opened: dict[str, Any] = {}

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
            raise ResidualError(f"{where} is missing. {MEND}") from error
        except OSError as error:
            raise ResidualError(f"{where} can't be read ({error.strerror or error}). {MEND}") from error
        if sha256(data) != self.manifest.files[name]:
            raise ResidualError(f"{where} is damaged: it isn't what was written. {MEND}")
        return data

    def small(self, name: str) -> np.ndarray:
        """An array that is one file."""
        array = self._array(name)
        if array.size:  # where every id is empty their bytes have no file
            self.checked(f"{name}/c/0")
        return array[...]

    def read(self, name: str, at: np.ndarray, layer: int | None = None) -> np.ndarray:
        """An array at some positions, of all layers or one.

        Raises:
            ResidualError: what is read isn't what was written; names the file and the samples.
        """
        array, tail = self._array(name), self.layout.arrays[name].tail
        axes: list[Any] = [slice(None)] * len(tail)
        if layer is not None:
            axis = self.layout.layer_axis(name)
            axes[axis], tail = layer, (*tail[:axis], *tail[axis + 1 :])
        if not len(at):
            return np.empty((0, *tail), array.dtype)
        shards = np.unique(at // self.layout.rows).tolist()
        for shard in shards:
            # zarr takes a missing file for an empty one; on a local disk it costs nothing to look again
            if self.place.local is not None or (name, shard) not in self._right_size:
                if wrong := self._wrong_size(name, shard):
                    raise ResidualError(f"{wrong} {MEND}")
                self._right_size.add((name, shard))
        try:
            if (np.diff(at) == 1).all():
                return array[(slice(int(at[0]), int(at[-1]) + 1), *axes)]
            unique, back = np.unique(at, return_inverse=True)
            return array.oindex[(unique, *axes)][back]
        except Exception as error:  # whatever zarr says of bytes that it can't decode
            for damage in (damage for shard in shards for damage in self.damages(name, shard)):
                raise ResidualError(f"{damage} {MEND}") from error
            raise

    def verify(self, progress: Callable[[int, int], object] | None) -> list[Damage]:
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
                progress(done, len(self.receipts))
        return found

    def damages(self, name: str, shard: int) -> list[Damage]:
        """What is wrong with the file of one shard of an array, by the samples of its chunks."""
        if wrong := self._wrong_size(name, shard):
            return [wrong]
        rows, each = self.layout.samples_of(shard), self.layout.arrays[name].chunk_rows
        file, found = self.layout.file(name, shard), []
        if sha256(self.place.read(file)) == self.receipts[shard].checksums[name]:
            return []
        for start in range(rows.start, rows.stop, each):
            chunk = range(start, min(start + each, rows.stop))
            if not self._decodes(name, chunk):
                found.append(Damage(file, self._ids(chunk), "holds a changed byte"))
        return found or [Damage(file, self._ids(rows), "isn't the file that was written")]

    @cached_property
    def _group(self) -> Any:
        self.checked("zarr.json")
        return opened(self.place)

    def _array(self, name: str) -> Any:
        """As zarr reads it, if what describes it is what was written."""
        if name not in self._opened:
            self.checked(f"{name}/zarr.json")
            self._opened[name] = self._group[name]
        return self._opened[name]

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

    def _decodes(self, name: str, rows: range) -> bool:
        try:
            self._array(name)[rows.start : rows.stop]
        except Exception:  # whatever zarr says of bytes that it can't decode
            return False
        return True

    def _ids(self, rows: range) -> tuple[str, ...]:
        """Of those samples; where the ids themselves are damaged, their positions."""
        good = [position for position in rows if position not in self.reasons]
        try:
            return tuple(self.ids[position] for position in good)
        except ResidualError:
            return tuple(f"number {position}" for position in good)
