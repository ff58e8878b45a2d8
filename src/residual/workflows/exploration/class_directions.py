"""The classifier of a store's classes, for which an encoder is loaded once: directions are kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from residual.encoders.encoder import Encoder
from residual.encoders.names import is_listed
from residual.errors import ResidualError, StoreEncoderError
from residual.files import cache_folder
from residual.store.base import Store
from residual.tensor_files import load_tensors, save_tensors
from residual.text.classifier import ZeroShotClassifier
from residual.workflows.store_origin import StoreDataset, classifier_of

_KIND = "classes"


@dataclass(frozen=True)
class ClassDirections:
    """A classifier, and how it came to be.

    Args:
        classifier: itself.
        of_text: whether class names were embedded; else classes are means of their samples.
        note: what has to be known of it, or None.
    """

    classifier: ZeroShotClassifier
    of_text: bool
    note: str | None = None


def class_directions(
    store: Store, origin: StoreDataset, encoder: Callable[[], Encoder], name: str | None
) -> ClassDirections:
    """By the classes' names, or by class means where there is no text tower or the encoder isn't here.

    Args:
        store: whose classes they are.
        origin: its templates.
        encoder: loads the encoder.
        name: of the encoder, where the user gave one.

    Raises:
        ResidualError: a class has no sample, where means are needed.
    """
    path = _path(store, origin, name)
    if path is not None and (kept := _kept(path, store)) is not None:
        return ClassDirections(kept, True)
    try:
        loaded = encoder()
    except StoreEncoderError as error:
        note = f"Classes are the means of their samples, as no text tower is here: {error.message}"
        return ClassDirections(_means(store), False, note)
    if not loaded.has_text:
        note = f"Classes are the means of their samples: {loaded.name} has no text tower."
        return ClassDirections(_means(store), False, note)
    made = classifier_of(store, loaded, origin)
    if path is not None:
        with suppress(ResidualError, OSError):  # a closed cache folder does no harm
            save_tensors(path, _KIND, {"classes": made.weights}, {"scale": made.scale})
    return ClassDirections(made, True)


def _means(store: Store) -> ZeroShotClassifier:
    about = store.labels, store.class_names
    return ZeroShotClassifier.from_class_means(store.output(), *about, fingerprint=store.fingerprint)


def _path(store: Store, origin: StoreDataset, name: str | None) -> Path | None:
    """Where they are kept; of an encoder that isn't listed nowhere, as its text tower may change."""
    if not is_listed(name or store.encoder_name):
        return None
    what = (name or store.encoder_name, store.fingerprint, store.class_names, origin.templates)
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    return cache_folder() / "classes" / f"{digest}.safetensors"


def _kept(path: Path, store: Store) -> ZeroShotClassifier | None:
    if not path.is_file():
        return None
    try:
        tensors, note = load_tensors(path, _KIND, ("scale",))
        weights, scale = tensors["classes"], float(note["scale"])
        if weights.shape != (len(store.class_names), store.linearization.output_dim):
            return None
        return ZeroShotClassifier(weights, store.class_names, scale, store.fingerprint)
    except (ResidualError, KeyError, TypeError, ValueError):  # a damaged one is made anew
        return None
