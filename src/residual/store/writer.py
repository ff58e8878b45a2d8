"""Write a store: shard after shard, each whole on the disk before its receipt says so.

A second thread makes the bytes and waits for the disk while the encoder works on the next shard.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from residual.data import ImageDataset
from residual.errors import ResidualError
from residual.hashing import sha256
from residual.store.forward import Encoded, Part
from residual.store.layout import Layout, Packer, pack_ids
from residual.store.receipts import (
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
from residual.store.storage import Place
from residual.tracing.linearization import Linearization

_WAITING = 2  # whole shards in memory that aren't on the disk yet


class Writer:
    """Writes the shards of a store, or of one part of it; goes on where an earlier writer stopped.

    Several writers of different parts may be at work at once.

    Args:
        place: where.
        identity: what the store is of; held against that of a store that is there already.
        dataset: for labels and ids.
        linearization: goes into the store.
        layout: of its arrays, if the store is a new one.
        part: which shards to write.

    Raises:
        ResidualError: there is a store of something else, or what is there is no store.
    """

    def __init__(
        self,
        place: Place,
        identity: dict[str, Any],
        dataset: ImageDataset,
        linearization: Linearization,
        layout: Layout,
        part: Part,
    ):
        self.place = place
        there = place.sizes()
        held = read_manifest(place)
        if held is not None:
            check_identity(held.identity, identity, place.address)
            layout = held.layout
        elif foreign := [name for name in there if name.partition("/")[0] not in OWN_FILES]:
            raise ResidualError(
                f"{place.address!r} isn't empty and no store, {foreign[0]!r} is in it: choose another folder."
            )
        if part.of == 1:  # nobody else is at work
            place.sweep()
        self.layout = layout
        if held is None or not held.files.keys() <= there.keys():
            held = self._begin(identity, dataset, linearization)
        now = versions()
        self.other_versions = {name: now[name] for name in now if held.versions.get(name) != now[name]}
        self.manifest = held
        mine = part.share(layout.shards)
        whole = {
            shard
            for shard, data in packed_receipts(place, mine, there).items()
            if self._whole(shard, data, there)
        }
        self.pending = [shard for shard in mine if shard not in whole]
        self._shard: _Shard | None = None
        self._thread = ThreadPoolExecutor(1, "residual-writer")
        self._waiting: deque[Future[None]] = deque()

    def add(self, encoded: Encoded) -> None:
        """Take in the next samples; those of a shard come in order, and shards in the order of `pending`."""
        if self._shard is None:
            first = min([*encoded.read.positions[:1], *encoded.read.skipped])
            self._shard = _Shard(self.layout, first // self.layout.rows)
        self._shard.add(encoded)
        if self._shard.full:
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
        there = self.place.sizes(RECEIPTS)  # of all parts, whoever wrote them
        if all(Receipt.file(shard) in there for shard in range(self.layout.shards)):
            self.place.sweep()

    def _begin(
        self, identity: dict[str, Any], dataset: ImageDataset, linearization: Linearization
    ) -> StoreManifest:
        """Write the manifest and then all that isn't of samples; a writer that died here is made up for."""
        packer = Packer(self.layout)
        packer.add("label", np.asarray(dataset.labels, np.int64))
        for name, values in pack_ids(dataset.sample_ids).items():
            packer.add(name, values)
        if dataset.groups is not None:
            packer.add("group", dataset.groups)
        files = packer.files()
        files[LINEARIZATION] = linearization.pack()
        files[UNITS] = f"{linearization.units.table.to_json(orient='records', indent=1)}\n".encode()
        manifest = StoreManifest(
            identity, self.layout, versions(), {name: sha256(files[name]) for name in sorted(files)}
        )
        self.place.write(MANIFEST, manifest.pack())
        for name in sorted(files):
            self.place.write(name, files[name])
        return manifest

    def _whole(self, shard: int, packed: bytes, there: dict[str, int]) -> bool:
        """Whether what the receipt says is there; one that is damaged or of another store says nothing."""
        try:
            receipt = self.manifest.receipt(packed, Receipt.file(shard), shard)
        except ResidualError:
            return False
        return all(there.get(self.layout.file(name, shard)) == size for name, size in receipt.sizes.items())

    def _write(self, shard: _Shard) -> None:
        sizes, checksums = {}, {}
        for name, values in shard.values.items():
            data = self.layout.pack(name, values)
            self.place.write(self.layout.file(name, shard.number), data)
            sizes[name], checksums[name] = len(data), sha256(data)
        receipt = Receipt(
            self.manifest.mark, shard.number, sizes, checksums, shard.skipped, self.other_versions
        )
        self.place.write(Receipt.file(shard.number), receipt.pack())


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
        at = np.array(read.positions) - self.rows.start
        where = slice(at[0], at[-1] + 1) if at[-1] - at[0] + 1 == len(at) else at
        for name, values in self.values.items():
            if name == "digest":
                values[where] = np.array(read.digests, np.uint64)
            else:
                values[where] = encoded.coordinates.held(name).numpy()

    @property
    def full(self) -> bool:
        return self.seen == len(self.rows)
