"""What the answers of the explorer are made of: stores and what is behind them, each made when it is first
needed and then kept. Threads may ask at once; each part is made by one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import RLock

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.encoder import Encoder
from residual.errors import ResidualError, unknown_name
from residual.heads.accuracy import batches_of
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases
from residual.store.base import Store, parts_of
from residual.store.disk import ResidualStore
from residual.text.classifier import ZeroShotClassifier
from residual.text.dictionary import TextDictionary
from residual.tracing.units import Units
from residual.workflows.exploration.bounded import Bounded, ByKey, once
from residual.workflows.exploration.class_directions import ClassDirections, class_directions
from residual.workflows.exploration.kept_adapters import HeldAdapter, held_adapters
from residual.workflows.store_origin import StoreDataset, check_named, dataset_of, encoder_of

FEATURES = 2**30  # bytes of units' features that are kept, at most
_ROWS = 1024


@dataclass(frozen=True)
class Sources:
    """What is explored, by the names that a user gives.

    Args:
        stores: addresses of one store, or of two of one encoder.
        adapters: folders that hold one each.
        encoder, dataset: of the stores, where they aren't what these name; see `encoder_of`, `dataset_of`.
        dictionary: texts to tell heads by, see `TextDictionary.encode`.
        device: where to compute; None for a GPU if there is one.
    """

    stores: Sequence[str]
    adapters: Sequence[str] = field(default=())
    encoder: str | None = None
    dataset: str | None = None
    dictionary: str = "attributes"
    device: str | None = None


class Parts:
    """The parts of an exploration.

    Args:
        sources: what is explored.
        stores, encoder: themselves, where they are open or loaded already.

    Attributes:
        running: held by the thread that runs the encoder, whose hooks are of one pass at a time.

    Raises:
        ResidualError: there is no store, or they are of different encoders; or as `ResidualStore.open`.
    """

    def __init__(
        self, sources: Sources, stores: Sequence[Store] | None = None, encoder: Encoder | None = None
    ):
        self.sources, self._encoder = sources, encoder
        self.stores = tuple(stores or map(ResidualStore.open, sources.stores))
        if not 1 <= len(self.stores) <= 2:
            raise ResidualError(f"One store is explored, or two side by side; got {len(self.stores)}.")
        first, last = self.stores[0], self.stores[-1]
        if (first.fingerprint, first.centering) != (last.fingerprint, last.centering):
            raise ResidualError(
                f"Two stores are compared unit by unit, so they are of one encoder: {first.dataset} is of "
                f"{first.encoder_name} (weights {first.fingerprint[:8]}), {last.dataset} of "
                f"{last.encoder_name} (weights {last.fingerprint[:8]})."
            )
        self.made = ByKey()  # by whoever makes something of these parts
        self._features: Bounded[Tensor] = Bounded(FEATURES)
        self.running = RLock()

    @property
    def store(self) -> Store:
        """The first, which all but the comparison is of."""
        return self.stores[0]

    @property
    def units(self) -> Units:
        """Names and positions of the encoder's units."""
        return self.store.linearization.units

    @property
    def kept_units(self) -> list[int]:
        """Positions of the units that the store keeps, in order."""
        return self.units.positions(self.store.kinds)

    @once
    def origin(self) -> StoreDataset:
        """The dataset: `.images` (None where they aren't there), `.templates`, `.notes`."""
        return dataset_of(self.store, name=self.sources.dataset)

    @once
    def encoder(self) -> Encoder:
        """The encoder, which is loaded for what coordinates alone can't answer.

        Raises:
            ResidualError: as `encoder_of`.
        """
        if self._encoder is not None:
            return self._encoder
        return encoder_of(self.store, self.sources.encoder, self.sources.device)

    def check_encoder(self) -> None:
        """Refuse an encoder that nobody but the store names, without loading it.

        Raises:
            StoreEncoderError: nobody does.
        """
        if self._encoder is None:
            check_named(self.store, self.sources.encoder)

    def directions(self, place: int = 0) -> ClassDirections:
        """The classifier of a store's classes, by its place, and how it came to be.

        Raises:
            ResidualError: as `class_directions`.
        """

        def make() -> ClassDirections:
            store, name = self.stores[place], self.sources.encoder
            origin = dataset_of(store, name=self.sources.dataset) if place else self.origin
            return class_directions(store, origin, lambda: self.encoder, name)

        return self.made.get(("directions", place), make)

    @property
    def classifier(self) -> ZeroShotClassifier:
        """Of the store's classes."""
        return self.directions().classifier

    @property
    def bases(self) -> SpectralBases:
        """Components of every unit that the store keeps, of its own samples: what λ are of."""
        return self.bases_of(0)

    def bases_of(self, place: int) -> SpectralBases:
        """The same of a store by its place."""
        store = self.stores[place]
        return self.made.get(
            ("bases", place), lambda: fit_bases(store, store.kinds, device=self.sources.device)
        )

    @once
    def adapters(self) -> dict[str, HeldAdapter]:
        """The adapters, by their keys.

        Raises:
            ResidualError: as `held_adapters`.
        """
        return held_adapters(self.sources.adapters, self.store)

    def adapter(self, key: str) -> HeldAdapter:
        """One of them.

        Raises:
            ResidualError: there is none of that key.
        """
        if key not in self.adapters:
            raise unknown_name("adapter", key, self.adapters)
        return self.adapters[key]

    @once
    def dictionary(self) -> TextDictionary:
        """The texts to tell heads by.

        Raises:
            ResidualError: as `encoder_of` and `TextDictionary.encode`.
        """
        return TextDictionary.encode(self.encoder, self.sources.dictionary)

    @once
    def labels(self) -> Tensor:
        """`(n,)`, int64."""
        return torch.as_tensor(self.store.labels.copy(), dtype=torch.long)

    def features(self, unit: int, positions: Sequence[int]) -> Float[Tensor, "m f"]:
        """A unit's features (see `Linearization`) of some samples, in float32 on the CPU."""
        if (whole := self._whole(unit)) is not None:
            return whole[list(positions)]
        batch = self.store.coordinates_of([unit], np.asarray(positions, np.int64))
        return self.store.linearization.features(batch, unit).float()

    def blocks(self, unit: int) -> Iterator[tuple[slice, Float[Tensor, "b f"]]]:
        """The same of all samples, in order, some at a time: no more of them has to be in memory."""
        if (whole := self._whole(unit)) is None:
            yield from self._read(unit)
        else:
            yield from ((rows, whole[rows]) for rows in parts_of(len(whole), _ROWS))

    def mean(self, unit: int) -> Float[Tensor, " f"]:
        """The mean of a unit's features over the store, in float64."""

        def make() -> Tensor:
            sums = torch.stack([block.double().sum(0) for _, block in self.blocks(unit)])
            return sums.sum(0) / len(self.store)

        return self.made.get(("mean", unit), make)

    def _whole(self, unit: int) -> Tensor | None:
        """Of all samples, kept as long as there is room; None where they are more than `FEATURES`."""
        if 4 * len(self.store) * self.store.linearization.matrix(unit).shape[0] > self._features.most:
            return None
        return self._features.get(unit, lambda: torch.cat([block for _, block in self._read(unit)]))

    def _read(self, unit: int) -> Iterator[tuple[slice, Tensor]]:
        for rows, batch in batches_of(self.store, torch.device("cpu"), None, _ROWS, units=[unit]):
            yield rows, self.store.linearization.features(batch, unit).float()
