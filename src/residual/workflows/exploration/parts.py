"""What the answers of the explorer are made of: stores and what is behind them, each made when it is first
needed and then kept. Threads may ask at once; each part is made by one of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.encoder import Encoder
from residual.encoders.names import is_listed
from residual.errors import ResidualError, StoreEncoderError, unknown_name
from residual.files import cache_folder
from residual.heads.accuracy import batches_of
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases
from residual.store.base import Store
from residual.store.disk import ResidualStore
from residual.tensor_files import load_tensors, save_tensors
from residual.text.classifier import PLAIN, ZeroShotClassifier
from residual.text.dictionary import TextDictionary
from residual.tracing.units import Units
from residual.workflows.exploration.bounded import Bounded, once
from residual.workflows.exploration.kept_adapters import HeldAdapter, held_adapters
from residual.workflows.store_origin import StoreDataset, classifier_of, dataset_of, encoder_of

FEATURES = 2**30  # bytes of units' features that are kept, at most


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
        stores: the stores themselves, where they are open already.

    Raises:
        ResidualError: there is no store, or they are of different encoders; or as `ResidualStore.open`.
    """

    def __init__(self, sources: Sources, stores: Sequence[Store] | None = None):
        self.sources = sources
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
        self._features: Bounded[Tensor] = Bounded(FEATURES)

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
        return encoder_of(self.store, self.sources.encoder, self.sources.device)

    @once
    def classifier(self) -> ZeroShotClassifier:
        """Of the store's classes: by their names, or by class means where there is no text tower, or where
        the encoder isn't here (`classifier_note` says so).

        The directions of classes are kept on disk, so that the encoder isn't loaded for them again.
        """
        kept = self._kept_classes()
        if kept is not None:
            return kept
        try:
            encoder = self.encoder
        except StoreEncoderError as error:
            self.classifier_note = (
                "Classes are told by the means of their samples, as the encoder isn't here to embed their "
                f"names: {error.message}"
            )
            return ZeroShotClassifier.from_class_means(
                self.store.output(), self.store.labels, self.store.class_names
            )
        if not encoder.has_text:
            self.classifier_note = (
                "Classes are told by the means of their samples: this encoder has no text tower."
            )
        made = classifier_of(self.store, encoder, self.origin)
        if encoder.has_text and (path := self._classes_path()) is not None:
            with suppress(ResidualError, OSError):  # a closed cache folder does no harm
                save_tensors(path, "classes", {"classes": made.weights}, {"scale": made.scale})
        return made

    classifier_note: str | None = None

    def _classes_path(self) -> Path | None:
        """Where directions of the classes are kept; of an encoder that isn't listed they aren't."""
        name = self.sources.encoder or self.store.encoder_name
        if not is_listed(name):
            return None
        what = (name, self.store.fingerprint, self.store.class_names, self.origin.templates or PLAIN)
        digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        return cache_folder() / "classes" / f"{digest}.safetensors"

    def _kept_classes(self) -> ZeroShotClassifier | None:
        path = self._classes_path()
        if path is None or not path.is_file():
            return None
        try:
            tensors, note = load_tensors(path, "classes", ("scale",))
            weights, scale = tensors["classes"], float(note["scale"])
            if weights.shape != (len(self.store.class_names), self.store.linearization.output_dim):
                return None
            return ZeroShotClassifier(weights, self.store.class_names, scale, self.store.fingerprint)
        except (ResidualError, KeyError, TypeError, ValueError):  # a damaged one is made anew
            return None

    @once
    def bases(self) -> SpectralBases:
        """Components of every unit that the store keeps, of its own samples: what λ are of."""
        return fit_bases(self.store, self.store.kinds, device=self.sources.device)

    @once
    def other_bases(self) -> SpectralBases:
        """The same of the second store."""
        return fit_bases(self.stores[1], self.stores[1].kinds, device=self.sources.device)

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

    def features(self, unit: int) -> Float[Tensor, "n f"]:
        """A unit's features (see `Linearization`) of all samples, in float32 on the CPU; kept as long as
        there is room.
        """
        return self._features.get(unit, lambda: self._read(unit))

    def _read(self, unit: int) -> Tensor:
        linearization, cpu = self.store.linearization, torch.device("cpu")
        batches = batches_of(self.store, cpu, None, units=[unit])
        return torch.cat([linearization.features(batch, unit).float() for _, batch in batches])
