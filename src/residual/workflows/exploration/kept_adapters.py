"""Adapters in folders, as they change the contributions of a store: no encoder is needed for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from residual.adapters.adapter import Adapter
from residual.adapters.sharing import read_adapter
from residual.errors import ResidualError
from residual.files import shareable
from residual.store.base import Store
from residual.text.classifier import ZeroShotClassifier
from residual.tracing.linearization import Linearization


@dataclass(frozen=True)
class HeldAdapter:
    """An adapter for a store.

    Args:
        name: of its folder.
        place: where it is.
        adapter: itself.
        classifier: its own, where it tells the store's classes apart; else None.
        store: that it is for.
    """

    name: str
    place: str
    adapter: Adapter
    classifier: ZeroShotClassifier | None
    store: Store

    @cached_property
    def linearization(self) -> Linearization:
        """Each unit's contribution as it is adapted."""
        return self.adapter.adapted(self.store.linearization)

    @property
    def note(self) -> str | None:
        """What is done where its classes are others than the store's."""
        if self.classifier is not None:
            return None
        return f"{self.name} has no classifier of the classes of {self.store.dataset}: theirs is taken."


def held_adapters(places: Sequence[str], store: Store) -> dict[str, HeldAdapter]:
    """By the names of their folders; where two are called the same, with a number.

    Raises:
        ResidualError: one isn't there, is a fine-tuned encoder, or of another encoder than the store.
    """
    found: dict[str, HeldAdapter] = {}
    for place in places:
        held = read_adapter(place)
        name = Path(shareable(place, path=True)).name or place
        if held.adapter is None:
            raise ResidualError(
                f"{name} is a fine-tuned encoder: the store's coordinates are of the encoder as it was. "
                "Encode with it, and explore that store."
            )
        facts, own = held.facts, (store.fingerprint, store.centering)
        if (facts.fingerprint, facts.split) != own or held.adapter.dim != store.linearization.output_dim:
            raise ResidualError(
                f"{name} is for {facts.name} (weights {facts.fingerprint[:8]}, centering {facts.split!r}), "
                f"and {store.dataset} was encoded by {store.encoder_name} (weights {store.fingerprint[:8]}, "
                f"centering {store.centering!r})."
            )
        if held.adapter.origin is not None:
            held.adapter.origin.check_store(store)
        fits = held.classifier is not None and held.classifier.class_names == store.class_names
        key, number = name, 2
        while key in found:
            key, number = f"{name} ({number})", number + 1
        found[key] = HeldAdapter(key, place, held.adapter, held.classifier if fits else None, store)
    return found
