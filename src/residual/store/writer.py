"""Write a store: shard after shard, each whole on the disk before its receipt says so.

A second thread makes the bytes and waits for the disk while the encoder works on the next shard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from residual.data import ImageDataset
from residual.errors import DamagedStoreError, ResidualError
from residual.hashing import sha256
from residual.store.encoding import Part
from residual.store.forward import Encoded
from residual.store.layout import Layout, listed_chunks, pack_ids, zarr_files
from residual.store.manifest import (
    LINEARIZATION,
    MANIFEST,
    MOST_BYTES,
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

_WAITING = 4  # whole shards in memory that aren't on the disk yet
_SENDING = 4  # of them at once, where each waits for a server


@dataclass(frozen=True)
class Begun:
    """A store that is begun: what is whole of a part of it, and what isn't.

    Args:
        storage: it is on.
        manifest: of it.
        whole: receipts by shard, of this part.
        pending: shards to be written, of this part.
        lacks: writes what isn't of samples of a new store, and gives its manifest in whole; None where that
            is there.
    """

    storage: Storage
    manifest: StoreManifest
    whole: dict[int, Receipt]
    pending: list[int]
    lacks: Callable[[], StoreManifest] | None = None

    def settled(self) -> Begun:
        """With all that isn't of samples written."""
        return self if self.lacks is None else replace(self, manifest=self.lacks(), lacks=None)

    @property
    def layout(self) -> Layout:
        """Of its arrays."""
        return self.manifest.layout

    def write_again(self, shards: Iterable[int]) -> Begun:
        """With whole shards among those to be written, whose samples are others now: their receipts, which
        would speak for other files, are gone.
        """
        again = set(shards)
        for shard in again:
            self.storage.remove(Receipt.file(shard))
        whole = {shard: receipt for shard, receipt in self.whole.items() if shard not in again}
        return replace(self, whole=whole, pending=sorted({*self.pending, *again}))

    def finish(self) -> None:
        """Where all parts are whole, whoever wrote them, take away what killed writers left behind."""
        if self.storage.local is None:  # nothing is ever left there
            return
        receipts = self.storage.sizes(RECEIPTS)
        if all(Receipt.file(shard) in receipts for shard in range(self.layout.shards)):
            self.storage.sweep()


def begin(
    storage: Storage,
    manifest: StoreManifest | None,
    identity: dict[str, Any],
    dataset: ImageDataset,
    linearization: Linearization,
    layout: Layout,
    part: Part,
    asked: str,
) -> Begun:
    """Begin a store, or go on with the one that is there.

    Args:
        storage: for the store.
        manifest: of the store that was there a while ago, if there was one.
        identity: what the store is of; compared with that of a store that is there already.
        dataset: for labels and ids.
        linearization: goes into the store.
        layout: of its arrays, if the store is a new one.
        part: which shards are to be written. Several parts may be begun at once.
        asked: the name of the pooling that it was asked for by, as version 0.1 noted it.

    Raises:
        ResidualError: there is a store of something else, or what is there is no store.
    """
    sizes = storage.sizes()
    if manifest is None and MANIFEST in sizes:  # of another writer, who began meanwhile
        manifest = read_manifest(storage)
    if manifest is not None:
        check_identity(manifest.identity, identity, storage.address, asked)
    elif foreign := [name for name in sizes if name.partition("/")[0] not in OWN_FILES]:
        raise ResidualError(
            f"{storage.address!r} isn't empty and no store, {foreign[0]!r} is in it: choose another folder."
        )
    if part.of == 1:  # nobody else is at work
        storage.sweep()
    lacks = None
    if manifest is None or not manifest.files.keys() <= sizes.keys():
        if manifest is None:  # older ones have names with paths
            manifest = StoreManifest(identity, layout, versions(), {})
        lacks = partial(_written, storage, manifest.identity, dataset, linearization, manifest.layout)
    share = part.share(manifest.layout.shards)
    receipts = {
        shard: _whole(manifest, shard, data, sizes.get)
        for shard, data in packed_receipts(storage, share, sizes).items()
    }
    whole = {shard: receipt for shard, receipt in receipts.items() if receipt is not None}
    return Begun(storage, manifest, whole, [shard for shard in share if shard not in whole], lacks)


def whole_receipt(storage: Storage, manifest: StoreManifest, shard: int) -> Receipt | None:
    """The receipt of a shard, if that is whole; nothing of the others is looked at."""
    try:
        packed = storage.read(Receipt.file(shard), MOST_BYTES)
    except FileNotFoundError:
        return None
    return _whole(manifest, shard, packed, storage.size)


class Writer:
    """Writes shards of a store that is begun; several writers of different shards may be at work at once.

    Args:
        storage: of the store.
        manifest: of the store.
        lacks: what is to be done before any shard's receipt is written, see `Begun`.
    """

    def __init__(
        self,
        storage: Storage,
        manifest: StoreManifest,
        lacks: Callable[[], StoreManifest] | None = None,
    ):
        self.storage, self.manifest, self.layout = storage, manifest, manifest.layout
        now = versions()
        self.other_versions = {name: now[name] for name in now if manifest.versions.get(name) != now[name]}
        self._shard: _Shard | None = None
        remote = storage.local is None
        self._threads = ThreadPoolExecutor(_SENDING if remote else 1, "residual-writer")
        self._waiting: deque[Future[Any]] = deque()
        if lacks is not None:
            self._waiting.append(self._threads.submit(lacks))

    def add(self, encoded: Encoded, check: Callable[[], Callable[[], None]]) -> None:
        """Take in the next samples; those of a shard come in order, and one shard after another.

        `check` is called when one is whole; what it gives is called before that is written, which it may
        refuse.
        """
        if self._shard is None:
            first = min([*encoded.read.positions[:1], *encoded.read.skipped])
            self._shard = _Shard(self.layout, first // self.layout.rows)
        self._shard.add(encoded)
        if self._shard.full:
            checked = check()
            while len(self._waiting) >= _WAITING:
                self._waiting.popleft().result()
            before = self._waiting[-1] if self._waiting else None
            self._waiting.append(self._threads.submit(self._write, self._shard, checked, before))
            self._shard = None

    def close(self) -> None:
        """Wait until everything that is whole is on the disk."""
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self._threads.shutdown(cancel_futures=True)

    def _write(self, shard: _Shard, checked: Callable[[], None], before: Future[Any] | None) -> None:
        """The files of a shard, and when the one before is whole its receipt: there are none behind a gap."""
        checked()
        if before is not None and before.done():  # what failed there leaves no more files here
            before.result()
        sizes, checksums, chunks = {}, {}, {}
        arrays = self.layout.arrays

        def packed() -> Iterator[tuple[str, bytearray]]:
            for name in list(shard.values):
                data = arrays[name].pack(shard.values.pop(name))  # which memory holds once
                sizes[name], checksums[name] = len(data), sha256(data)
                chunks[name] = arrays[name].checksums(data)
                yield self.layout.file(name, shard.number), data

        self.storage.write_all(packed())
        if before is not None:
            before.result()
        of, versions = self.manifest.mark, self.other_versions
        receipt = Receipt(of, shard.number, sizes, checksums, shard.skipped, versions, chunks)
        self.storage.write(Receipt.file(shard.number), receipt.pack())


def _written(
    storage: Storage,
    identity: dict[str, Any],
    dataset: ImageDataset,
    linearization: Linearization,
    layout: Layout,
) -> StoreManifest:
    """Write the manifest and then all that isn't of samples; a writer that died here is made up for."""
    arrays = {"label": np.asarray(dataset.labels, np.int64), **pack_ids(dataset.sample_ids)}
    if dataset.groups is not None:
        arrays["group"] = dataset.groups
    files = zarr_files(layout, arrays)
    files[LINEARIZATION] = linearization.pack()
    files[UNITS] = f"{linearization.units.table.to_json(orient='records', indent=1)}\n".encode()
    checksums = {name: sha256(files[name]) for name in sorted(files)}
    manifest = StoreManifest(identity, layout, versions(), checksums, listed_chunks(files, arrays))
    storage.write(MANIFEST, manifest.pack())
    storage.write_all(sorted(files.items()))
    return manifest


def _whole(
    manifest: StoreManifest, shard: int, packed: bytes, size_of: Callable[[str], int | None]
) -> Receipt | None:
    """The receipt, if what it says is there; one that is damaged or of another store says nothing."""
    try:
        receipt = manifest.receipt(shard, packed, Receipt.file(shard))
    except DamagedStoreError:
        return None
    there = (size_of(manifest.layout.file(name, shard)) == size for name, size in receipt.sizes.items())
    return receipt if all(there) else None


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
