"""Write a store: shard after shard, each whole on the disk before its receipt says so.

A second thread makes the bytes and waits for the disk while the encoder works on the next shard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from residual.data import ImageDataset
from residual.errors import DamagedStoreError, ResidualError
from residual.hashing import sha256
from residual.store.encoding import Part
from residual.store.forward import Encoded
from residual.store.layout import Layout, pack_ids, zarr_files
from residual.store.manifest import (
    LINEARIZATION,
    MANIFEST,
    OWN_FILES,
    RECEIPTS,
    UNITS,
    Receipt,
    StoreManifest,
    check_identity,
    packed_receipts,
    read_manifest,
    versions,
)
from residual.store.storage import Storage
from residual.tracing.linearization import Linearization

_WAITING = 2  # whole shards in memory that aren't on the disk yet


class Writer:
    """Writes the shards of a store, or of one part of it; goes on where an earlier writer stopped.

    Several writers of different parts may be at work at once.

    Args:
        storage: for the store.
        identity: what the store is of; compared with that of a store that is there already.
        dataset: for labels and ids.
        linearization: goes into the store.
        layout: of its arrays, if the store is a new one.
        part: which shards to write.
        asked: the name of the pooling that it was asked for by, as version 0.1 noted it.

    Raises:
        ResidualError: there is a store of something else, or what is there is no store.
    """

    def __init__(
        self,
        storage: Storage,
        identity: dict[str, Any],
        dataset: ImageDataset,
        linearization: Linearization,
        layout: Layout,
        part: Part,
        asked: str,
    ):
        self.storage = storage
        sizes = storage.sizes()
        manifest = read_manifest(storage)
        if manifest is not None:
            check_identity(manifest.identity, identity, storage.address, asked)
            layout = manifest.layout
        elif foreign := [name for name in sizes if name.partition("/")[0] not in OWN_FILES]:
            raise ResidualError(
                f"{storage.address!r} isn't empty and no store, {foreign[0]!r} is in it: choose another "
                "folder."
            )
        if part.of == 1:  # nobody else is at work
            storage.sweep()
        self.layout = layout
        if manifest is None or not manifest.files.keys() <= sizes.keys():
            of = identity if manifest is None else manifest.identity  # older ones have names with paths
            manifest = self._begin(of, dataset, linearization)
        now = versions()
        self.other_versions = {name: now[name] for name in now if manifest.versions.get(name) != now[name]}
        self.manifest = manifest
        share = part.share(layout.shards)
        packed = packed_receipts(storage, share, sizes)
        self.whole = {
            shard: receipt
            for shard, data in packed.items()
            if (receipt := self._whole(shard, data, sizes)) is not None
        }
        self.pending = [shard for shard in share if shard not in self.whole]
        self._again: set[int] = set()
        self._shard: _Shard | None = None
        self._thread = ThreadPoolExecutor(1, "residual-writer")
        self._waiting: deque[Future[None]] = deque()

    def write_again(self, shards: Iterable[int]) -> None:
        """Make whole shards of this part again, whose samples are others now."""
        self._again |= set(shards)
        self.pending = sorted({*self.pending, *self._again})

    def add(self, encoded: Encoded, check: Callable[[], None]) -> None:
        """Take in the next samples; those of a shard come in order, and shards in the order of `pending`.

        `check` is called before one that is whole is written, which it may refuse.
        """
        if self._shard is None:
            first = min([*encoded.read.positions[:1], *encoded.read.skipped])
            self._shard = _Shard(self.layout, first // self.layout.rows)
        self._shard.add(encoded)
        if self._shard.full:
            check()
            while len(self._waiting) >= _WAITING:
                self._waiting.popleft().result()
            self._waiting.append(self._thread.submit(self._write, self._shard))
            self._shard = None

    def close(self) -> None:
        """Wait until everything that is whole is on the disk."""
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)
        receipts = self.storage.sizes(RECEIPTS)  # of all parts, whoever wrote them
        if all(Receipt.file(shard) in receipts for shard in range(self.layout.shards)):
            self.storage.sweep()

    def _begin(
        self, identity: dict[str, Any], dataset: ImageDataset, linearization: Linearization
    ) -> StoreManifest:
        """Write the manifest and then all that isn't of samples; a writer that died here is made up for."""
        arrays = {"label": np.asarray(dataset.labels, np.int64), **pack_ids(dataset.sample_ids)}
        if dataset.groups is not None:
            arrays["group"] = dataset.groups
        files = zarr_files(self.layout, arrays)
        files[LINEARIZATION] = linearization.pack()
        files[UNITS] = f"{linearization.units.table.to_json(orient='records', indent=1)}\n".encode()
        checksums = {name: sha256(files[name]) for name in sorted(files)}
        manifest = StoreManifest(identity, self.layout, versions(), checksums)
        self.storage.write(MANIFEST, manifest.pack())
        for name in sorted(files):
            self.storage.write(name, files[name])
        return manifest

    def _whole(self, shard: int, packed: bytes, sizes: dict[str, int]) -> Receipt | None:
        """The receipt, if what it says is there; one that is damaged or of another store says nothing."""
        try:
            receipt = self.manifest.receipt(shard, packed, Receipt.file(shard))
        except DamagedStoreError:
            return None
        there = (sizes.get(self.layout.file(name, shard)) == size for name, size in receipt.sizes.items())
        return receipt if all(there) else None

    def _write(self, shard: _Shard) -> None:
        sizes, checksums, chunks = {}, {}, {}
        if shard.number in self._again:  # the receipt must not speak for files that are others
            self.storage.remove(Receipt.file(shard.number))
        for name, values in shard.values.items():
            array = self.layout.arrays[name]
            data = array.pack(values)
            self.storage.write(self.layout.file(name, shard.number), data)
            sizes[name], checksums[name], chunks[name] = len(data), sha256(data), array.checksums(data)
        of, versions = self.manifest.mark, self.other_versions
        receipt = Receipt(of, shard.number, sizes, checksums, shard.skipped, versions, chunks)
        self.storage.write(Receipt.file(shard.number), receipt.pack())


class _Shard:
    """A shard as it fills up."""

    def __init__(self, layout: Layout, number: int):
        self.number, self.rows = number, layout.samples_of(number)
        self.values = {
            name: np.zeros((len(self.rows), *array.tail), array.dtype)
            for name, array in layout.arrays.items()
        }
        self.skipped: dict[int, str] = {}
        self.seen = 0

    def add(self, encoded: Encoded) -> None:
        read = encoded.read
        self.seen += len(read.positions) + len(read.skipped)
        self.skipped |= read.skipped
        if encoded.coordinates is None:
            return
        rows = np.array(read.positions) - self.rows.start
        target = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows
        for name, values in self.values.items():
            if name == "digest":
                values[target] = np.array(read.digests, np.uint64)
            else:
                values[target] = encoded.coordinates.field(name).numpy()

    @property
    def full(self) -> bool:
        return self.seen == len(self.rows)
