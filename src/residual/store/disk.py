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
from residual.errors import NoStoreError, ResidualError
from residual.progress import Progress
from residual.read_ahead import ahead
from residual.store.arrays import Arrays, Damage
from residual.store.base import Samples, Store, parts_of, positions_of
from residual.store.memory import MemoryStore
from residual.store.receipts import (
    LINEARIZATION,
    MANIFEST,
    RECEIPTS,
    Receipt,
    StoreManifest,
    packed_receipts,
    read_manifest,
)
from residual.store.storage import Place
from residual.tracing.coordinates import KIND_OF, Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.units import checked_kinds

_FIELDS = (*KIND_OF, "mean", "std")


class ResidualStore(Store):
    """A `Store` on disk: whatever is read is checked, and nothing else is touched. Made by `open`.

    Only samples of whole shards are in it; `complete` says whether those are all.
    """

    def __init__(self, place: Place, manifest: StoreManifest, receipts: dict[int, Receipt]):
        self.place, self.manifest, self.layout = place, manifest, manifest.layout
        self._arrays = Arrays(place, manifest, receipts)

    @classmethod
    def open(cls, path: str | os.PathLike[str], cut_off: bool = False) -> ResidualStore:
        """Open a store; one that was cut off is opened as far as it is complete, with a warning.

        Args:
            path: a folder or an fsspec address.
            cut_off: don't warn of a store that isn't complete.

        Raises:
            ResidualError: there is no store, or its manifest or a receipt is damaged.
        """
        place = Place(path)
        manifest = read_manifest(place)
        if manifest is None:
            raise NoStoreError(f"There is no store at {place.address!r}, as it holds no {MANIFEST}.")
        there = place.sizes(RECEIPTS)
        packed = packed_receipts(place, range(manifest.layout.shards), there)
        receipts = {
            shard: manifest.receipt(data, f"{place.address}/{Receipt.file(shard)}", shard)
            for shard, data in packed.items()
        }
        store = cls(place, manifest, receipts)
        if not store.complete and not cut_off:
            warnings.warn(
                f"{place.address!r} isn't complete: {store._done:,} of {store.layout.samples:,} samples are "
                "there. Encoding the same again goes on from there.",
                stacklevel=2,
            )
        return store

    @property
    def complete(self) -> bool:
        """Whether every shard is there."""
        return len(self._arrays.receipts) == self.layout.shards

    @property
    def encoder_name(self) -> str:
        """What made the coordinates."""
        return self.manifest.identity["encoder"]["name"]

    @property
    def fingerprint(self) -> str:
        """Of that encoder's weights."""
        return self.manifest.identity["encoder"]["weights"]

    @property
    def centering(self) -> str:
        """How the last LayerNorm's mean is shared out among units."""
        return self.manifest.identity["encoder"]["split"]

    @property
    def dataset(self) -> str:
        """Name and split, as "name/split"."""
        return "{name}/{split}".format(**self.manifest.identity["dataset"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """One a class."""
        return tuple(self.manifest.identity["dataset"]["class_names"])

    @property
    def group_names(self) -> tuple[str, ...]:
        """One a group, where the dataset has groups."""
        return tuple(self.manifest.identity["dataset"]["group_names"])

    @property
    def pooling(self) -> str:
        """Which tokens."""
        return self.manifest.identity["settings"]["pooling"]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of unit that are kept."""
        return tuple(self.manifest.identity["settings"]["kinds"])

    @cached_property
    def linearization(self) -> Linearization:
        """From coordinates to contributions."""
        return Linearization.unpack(
            self._arrays.checked(LINEARIZATION), f"{self.place.address}/{LINEARIZATION}"
        )

    @cached_property
    def labels(self) -> np.ndarray:
        """`(n,)`, int64."""
        return self._arrays.small("label")[self._positions]

    @cached_property
    def groups(self) -> np.ndarray | None:
        """`(n,)`, int64, where the dataset has groups."""
        return self._arrays.small("group")[self._positions] if self.group_names else None

    @cached_property
    def sample_ids(self) -> tuple[str, ...]:
        """One a sample."""
        return tuple(self._arrays.ids[position] for position in self._positions)

    @cached_property
    def skipped(self) -> tuple[str, ...]:
        """Ids of the samples that could not be read."""
        return tuple(self.reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Why each of the samples in `skipped` could not be read."""
        return {self._arrays.ids[position]: reason for position, reason in self._arrays.reasons.items()}

    @cached_property
    def digests(self) -> np.ndarray:
        """`(n,)`, uint64: what tells each sample's image from others; 0 where pixels were encoded."""
        return self._arrays.read("digest", self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def __repr__(self) -> str:
        samples = f"{len(self):,}" if self.complete else f"{len(self):,} of {self.layout.samples:,}"
        what = f"{self.dataset} by {self.encoder_name}, {samples} samples"
        return f"<ResidualStore {self.place.address!r}: {what}>"

    def read(self, samples: Samples | None = None, kinds: Sequence[str] | None = None) -> Coordinates:
        """Coordinates of some samples and kinds of unit, by default of all that are kept.

        Raises:
            ResidualError: a byte of them was changed, or a kind isn't kept.
        """
        kinds = self._kinds(kinds)
        at = self._at(samples)
        wanted = [name for name in self._fields if KIND_OF.get(name) in (None, *kinds)]
        return self._coordinates({name: torch.from_numpy(self._arrays.read(name, at)) for name in wanted})

    def contributions(
        self, samples: Samples | None = None, units: Sequence[int] | np.ndarray | None = None
    ) -> Float[Tensor, "n *t u d"]:
        """Contributions of some samples and units, by default of all: `n · u · d` numbers.

        Of heads and MLPs only the layers that are asked for are read.
        """
        if units is None:
            return self.linearization.contributions(self.read(samples))
        return self.linearization.contributions(self.coordinates_of(units, samples), units)

    def coordinates_of(
        self, units: Sequence[int] | np.ndarray, samples: Samples | None = None
    ) -> Coordinates:
        """What these units' contributions are made of, for some samples or all; nothing else is read.

        Layers that no unit is of hold zeros.
        """
        chosen = self.units.iloc[self.linearization.units.checked(units)]
        at = self._at(samples)
        values = {name: torch.from_numpy(self._arrays.read(name, at)) for name in ("mean", "std")}
        for name in self._fields:
            of_kind = chosen[chosen["kind"] == KIND_OF.get(name)]
            if name in values or not len(of_kind):
                continue
            if not self.layout.has_layers(name):
                values[name] = torch.from_numpy(self._arrays.read(name, at))
                continue
            array, axis = self.layout.arrays[name], self.layout.layer_axis(name)
            layers = sorted({int(layer) for layer in of_kind["layer"] if layer < array.tail[axis]})
            rest = array.tail[:axis] + array.tail[axis + 1 :]
            whole = np.zeros(
                (array.tail[axis], len(at), *rest), array.dtype
            )  # untouched layers take no memory
            whole[layers] = np.moveaxis(self._arrays.read(name, at, layers), axis + 1, 0)
            values[name] = torch.from_numpy(np.moveaxis(whole, 0, axis + 1))
        return self._coordinates(values)

    def batches(
        self, size: int = 1024, kinds: Sequence[str] | None = None, prefetch: int | None = None
    ) -> Iterator[Coordinates]:
        """The coordinates, `size` samples at a time, in order; `prefetch` batches are read
        ahead, by as many threads; by default one for every four cores, four at most.

        The precision is that in which they are kept.
        """
        kinds = self._kinds(kinds)
        depth = max(1, min(4, cores() // 4)) if prefetch is None else prefetch
        return ahead(lambda part: self.read(part, kinds), parts_of(len(self), size), depth, max(1, depth))

    def load(self) -> MemoryStore:
        """All of it in memory, in float32."""
        return MemoryStore(
            coordinates=self.read().to(dtype=torch.float32),
            linearization=self.linearization,
            labels=self.labels,
            sample_ids=self.sample_ids,
            class_names=self.class_names,
            dataset=self.dataset,
            encoder_name=self.encoder_name,
            fingerprint=self.fingerprint,
            pooling=self.pooling,
            kinds=self.kinds,
            skipped=self.skipped,
        )

    def verify(self, progress: Progress | None = None) -> list[Damage]:
        """Read every chunk of every file. What isn't as it was written comes back, with the samples that it
        spoils.

        Args:
            progress: called with the number of shards done and their total.
        """
        return self._arrays.verify(progress)

    @property
    def _fields(self) -> list[str]:
        return [name for name in _FIELDS if name in self.layout.arrays]

    def _coordinates(self, values: dict[str, Tensor]) -> Coordinates:
        fields: dict[str, Any] = {name: values.get(name) for name in _FIELDS}
        return Coordinates(**fields)

    @property
    def _positions(self) -> np.ndarray:
        return self._arrays.positions

    @property
    def _done(self) -> int:
        return sum(len(self.layout.samples_of(shard)) for shard in self._arrays.receipts)

    def _kinds(self, kinds: Sequence[str] | None) -> tuple[str, ...]:
        if kinds is None:
            return self.kinds
        kinds = checked_kinds(kinds)
        if missing := [kind for kind in kinds if kind not in self.kinds]:
            raise ResidualError(
                f"{self.place.address!r} was encoded without units of kind {', '.join(missing)}; it keeps "
                f"{', '.join(self.kinds)}."
            )
        return kinds

    def _at(self, samples: Samples | None) -> np.ndarray:
        return self._positions if samples is None else self._positions[positions_of(samples, len(self))]
