"""A store of coordinates on disk, opened for reading."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from residual.devices import cores
from residual.errors import DamagedStoreError, NoStoreError, ResidualError
from residual.files import shareable
from residual.progress import Progress
from residual.read_ahead import ahead
from residual.store.arrays import CheckedArrays
from residual.store.base import MemoryStore, Samples, Store, parts_of
from residual.store.damage import Verified
from residual.store.manifest import (
    LINEARIZATION,
    MANIFEST,
    RECEIPTS,
    Receipt,
    packed_receipts,
    read_manifest,
)
from residual.store.sample_ids import MOST_IN_MEMORY, SampleIds
from residual.store.storage import Storage
from residual.tracing.coordinates import KIND_OF, Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.units import UnitsLike, checked_kinds

_FIELDS = (*KIND_OF, "mean", "std")


class ResidualStore(Store):
    """A `Store` on disk: whatever is read is checked, and nothing else is touched. Made by `open`.

    Only samples of whole shards are in it; `complete` says whether those are all.

    Example:
        >>> import residual, tempfile
        >>> folder = tempfile.mkdtemp() + "/letters-test"
        >>> letters = residual.load_dataset("letters", "test").subset(range(4))
        >>> store = residual.encode_dataset(residual.load_encoder("picto", "cpu"), letters, folder)
        >>> store = residual.ResidualStore.open(folder)  # by anyone, any day later
        >>> store.contributions(samples=[2], units=[30, 31]).shape
        torch.Size([1, 2, 192])
        >>> store.verify()
        []
    """

    def __init__(self, arrays: CheckedArrays):
        self.storage, self.manifest, self.layout = arrays.storage, arrays.manifest, arrays.layout
        encoder, dataset, settings = (
            self.manifest.identity[part] for part in ("encoder", "dataset", "settings")
        )
        self.encoder_name, self.fingerprint = shareable(encoder["name"]), encoder["weights"]
        self.dataset = f"{shareable(dataset['name'])}/{dataset['split']}"
        self.class_names = tuple(dataset["class_names"])
        self.group_names = tuple(dataset["group_names"])
        self.pooling, self.kinds = settings["pooling"], tuple(settings["kinds"])
        self._arrays = arrays

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], cut_off: bool = False, damaged: bool = False
    ) -> ResidualStore:
        """Open a store; one that was cut off is opened as far as it is complete, with a warning.

        Args:
            path: a folder or an fsspec address.
            cut_off: don't warn of a store that isn't complete.
            damaged: open one with damaged receipts, too, without their shards: `verify` lists them.

        Raises:
            NoStoreError: there is none.
            ResidualError: its manifest is damaged, or a receipt without `damaged`.
        """
        storage = Storage(path)
        manifest = read_manifest(storage)
        if manifest is None:
            raise NoStoreError(f"There is no store at {storage.address!r}, as it holds no {MANIFEST}.")
        shards = range(manifest.layout.shards)
        receipts, spoilt = {}, {}
        for shard, data in packed_receipts(storage, shards, storage.sizes(RECEIPTS)).items():
            try:
                receipts[shard] = manifest.receipt(shard, data, f"{storage.address}/{Receipt.file(shard)}")
            except DamagedStoreError as error:
                if not damaged:
                    raise
                spoilt[shard] = error
        store = cls(CheckedArrays(storage, manifest, receipts, spoilt))
        if store.shortfall and not cut_off:
            warnings.warn(store.shortfall, stacklevel=2)
        return store

    @property
    def complete(self) -> bool:
        """Whether every shard is there."""
        return len(self._arrays.receipts) == self.layout.shards

    @property
    def shortfall(self) -> str:
        """What is missing of a store that isn't complete, in a sentence."""
        if self.complete:
            return ""
        layout, holes, where = self.layout, self._arrays.holes, ""
        done = sum(len(layout.samples_of(shard)) for shard in self._arrays.receipts)
        if holes:
            first, last = layout.samples_of(holes[0][0])[0], layout.samples_of(holes[-1][-1])[-1]
            where = f" Some are missing in front of others, from number {first:,} to {last:,}."
        return (
            f"{self.storage.address!r} isn't complete: {done:,} of {layout.samples:,} samples are "
            f"there.{where} Encoding the same again goes on from there."
        )

    @property
    def centering(self) -> str:
        """How the last LayerNorm's mean is shared out among units."""
        return self.manifest.identity["encoder"]["split"]

    @cached_property
    def linearization(self) -> Linearization:
        """From coordinates to contributions."""
        data, where = self._arrays.files.read(LINEARIZATION), f"{self.storage.address}/{LINEARIZATION}"
        linearization = Linearization.unpack(data, where)
        if not self.layout.is_for(linearization):
            raise DamagedStoreError(f"{where} isn't of an encoder with such coordinates.")
        return linearization

    @cached_property
    def labels(self) -> np.ndarray:
        """`(n,)`, int64."""
        return self._arrays.numbers("label", self.class_names)

    @cached_property
    def groups(self) -> np.ndarray | None:
        """`(n,)`, int64, where the dataset has groups."""
        return self._arrays.numbers("group", self.group_names) if self.group_names else None

    @cached_property
    def sample_ids(self) -> Sequence[str]:
        """One a sample: a tuple; of over a million, what is equal to it and read as it is asked for."""
        ids = SampleIds(self._arrays.ids, self._arrays.positions)
        return ids if len(ids) > MOST_IN_MEMORY else tuple(ids)

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Why each of the samples that could not be read could not, by id."""
        skipped = self._arrays.skipped
        ids = self._arrays.ids.of(np.fromiter(skipped, np.int64, len(skipped)))
        return dict(zip(ids, skipped.values(), strict=True))

    @cached_property
    def digests(self) -> np.ndarray:
        """`(n,)`, uint64: what tells each image from others; 0 of pixels in stores of version 0.1."""
        return self._arrays.all_of("digest")

    def __len__(self) -> int:
        return len(self._arrays.positions)

    def __repr__(self) -> str:
        samples = f"{len(self):,}" if self.complete else f"{len(self):,} of {self.layout.samples:,}"
        what = f"{self.dataset} by {self.encoder_name}, {samples} samples"
        return f"<ResidualStore {self.storage.address!r}: {what}>"

    def read(self, samples: Samples | None = None, kinds: Sequence[str] | None = None) -> Coordinates:
        """Coordinates of some samples and kinds of unit, by default of all that are kept.

        Raises:
            DamagedStoreError: a byte of them was changed.
            ResidualError: a kind isn't kept.
        """
        kinds = self._kinds(kinds)
        positions = self._positions(samples)
        wanted = [name for name in _FIELDS if KIND_OF.get(name) in (None, *kinds)]
        held = [name for name in wanted if name in self.layout.arrays]
        return self._coordinates(self._arrays.read_each(held, positions))

    def contributions(
        self, samples: Samples | None = None, units: UnitsLike | None = None
    ) -> Float[Tensor, "n *t u d"]:
        """Contributions of some samples and units, by default of all: `n · u · d` numbers.

        Of heads and MLPs only the layers that are asked for are read.

        Raises:
            DamagedStoreError: a byte of them was changed.
            ResidualError: there is no such unit, or its kind isn't kept.
        """
        if units is None:
            return self.linearization.contributions(self.read(samples))
        return self.linearization.contributions(self.coordinates_of(units, samples), units)

    def coordinates_of(self, units: UnitsLike, samples: Samples | None = None) -> Coordinates:
        """What these units' contributions are made of, for some samples or all; nothing else is read.

        Layers that no unit is of hold zeros.

        Raises:
            DamagedStoreError: a byte of them was changed.
            ResidualError: there is no such unit.
        """
        chosen = self.units.iloc[self.linearization.units.checked(units)]
        positions = self._positions(samples)
        values = self._arrays.read_each(("mean", "std"), positions)
        for name, kind in KIND_OF.items():
            array, of_kind = self.layout.arrays.get(name), chosen[chosen["kind"] == kind]
            if array is None or not len(of_kind):
                continue
            axis = array.layer_axis
            if axis is None:
                values[name] = self._arrays.read(name, positions)
                continue
            count, rest = array.tail[axis], array.tail[:axis] + array.tail[axis + 1 :]
            layers = sorted({int(layer) for layer in of_kind["layer"] if layer < count})
            all_layers = np.zeros((count, len(positions), *rest), array.dtype)  # zeros take no memory
            all_layers[layers] = np.moveaxis(self._arrays.read(name, positions, layers), axis + 1, 0)
            values[name] = np.moveaxis(all_layers, 0, axis + 1)
        return self._coordinates(values)

    def batches(
        self, size: int = 1024, kinds: Sequence[str] | None = None, prefetch: int | None = None
    ) -> Iterator[Coordinates]:
        """The coordinates, `size` samples at a time, in order; `prefetch` batches are read
        ahead, by as many threads; by default one for every four cores, four at most.

        The precision is that in which they are kept.

        Raises:
            ResidualError: `size` is below 1, or a kind isn't kept.
        """
        kinds = self._kinds(kinds)
        depth = max(1, min(4, cores() // 4)) if prefetch is None else prefetch
        return ahead(lambda part: self.read(part, kinds), parts_of(len(self), size), depth, max(1, depth))

    def load(self) -> MemoryStore:
        """All of it in memory, in float32.

        Raises:
            DamagedStoreError: a byte of it was changed.
        """
        return MemoryStore.of(self, self.read().to(dtype=torch.float32))

    def verify(
        self, progress: Progress | None = None, *, sample: int | None = None, seed: int = 0
    ) -> Verified:
        """Read every chunk of every file. What isn't as it was written comes back, with the samples that it
        spoils: a list of damages, empty where nothing is wrong.

        Args:
            progress: told of "verify", in shards.
            sample: read so many shards only, chosen at random, beside all that isn't of coordinates; what
                comes back says which (`.shards`), and what that shows of the others (`.shown`).
            seed: of the choice.

        Raises:
            ResidualError: `sample` is below 1.
        """
        return self._arrays.verify(progress, sample, seed)

    def _positions(self, samples: Samples | None) -> np.ndarray:
        positions = self._arrays.positions
        return positions[:] if samples is None else positions[samples]

    def _coordinates(self, values: dict[str, np.ndarray]) -> Coordinates:
        fields: dict[str, Any] = {
            name: torch.from_numpy(values[name]) if name in values else None for name in _FIELDS
        }
        return Coordinates(**fields)

    def _kinds(self, kinds: Sequence[str] | None) -> tuple[str, ...]:
        if kinds is None:
            return self.kinds
        kinds = checked_kinds(kinds)
        if missing := [kind for kind in kinds if kind not in self.kinds]:
            raise ResidualError(
                f"{self.storage.address!r} was encoded without units of kind {', '.join(missing)}; it keeps "
                f"{', '.join(self.kinds)}."
            )
        return kinds
