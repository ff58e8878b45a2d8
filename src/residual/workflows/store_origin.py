"""What is behind a store: its encoder, its dataset and a classifier of its classes, by the names it notes."""

from __future__ import annotations

from dataclasses import dataclass

from residual.data import ImageDataset, load_dataset
from residual.encoders.encoder import Encoder
from residual.encoders.load import load_encoder
from residual.errors import ResidualError, StoreEncoderError
from residual.store.base import Store
from residual.text.classifier import PLAIN, ZeroShotClassifier


@dataclass(frozen=True)
class StoreDataset:
    """The dataset of a store as it is today: the pictures, if they are there, and what changed."""

    images: ImageDataset | None
    templates: tuple[str, ...]
    notes: tuple[str, ...] = ()


def encoder_of(store: Store, name: str | None = None, device: str | None = None) -> Encoder:
    """The encoder whose coordinates the store keeps, by its name there or by another.

    Raises:
        ResidualError: as `load_encoder`; or its weights are others.
    """
    try:
        encoder = load_encoder(name or store.encoder_name, device=device, centering=store.centering)
    except ResidualError as error:
        if name is not None:
            raise
        raise StoreEncoderError(
            f"The encoder of the store, {store.encoder_name!r}, can't be loaded by that name: {error.message}"
        ) from error
    if encoder.fingerprint != store.fingerprint:
        raise StoreEncoderError(
            f"{store.dataset} was encoded by {store.encoder_name} (weights {store.fingerprint[:8]}), not by "
            f"{encoder.name} (weights {encoder.fingerprint[:8]})."
        )
    return encoder


def dataset_of(store: Store, images: ImageDataset | None = None) -> StoreDataset:
    """The store's dataset, and its templates; where it isn't what was encoded any more, a plain template.

    Args:
        store: coordinates.
        images: the dataset, if it is loaded already.
    """
    name, _, split = store.dataset.rpartition("/")
    plain = f"so pictures are left out and the template is {PLAIN[0]!r}"
    try:
        images = load_dataset(name, split) if images is None else images
    except (ResidualError, OSError) as error:
        why = (error.message if isinstance(error, ResidualError) else str(error)).rstrip(".")
        return StoreDataset(None, PLAIN, (f"The dataset can't be loaded any more, {plain}: {why}.",))
    if images.class_names != store.class_names:
        note = f"{store.dataset} has other classes than when it was encoded, {plain}."
        return StoreDataset(None, PLAIN, (note,))
    known = set(images.sample_ids)
    if gone := [sample for sample in store.sample_ids if sample not in known]:
        note = (
            f"Not in {store.dataset} any more: {len(gone):,} of the store's samples, the first {gone[0]!r}; "
            "their pictures are left out."
        )
        return StoreDataset(images, images.templates, (note,))
    return StoreDataset(images, images.templates)


def classifier_of(store: Store, encoder: Encoder, images: ImageDataset | None = None) -> ZeroShotClassifier:
    """From class names and the dataset's templates; from class means where the encoder has no text tower.

    Where the dataset isn't known any more, the template is "a photo of a {}."; class means are those of the
    store itself.

    Args:
        store: coordinates.
        encoder: theirs.
        images: the store's dataset, if it is loaded already.

    Raises:
        ResidualError: a class has no sample, where means are needed.
    """
    if not encoder.has_text:
        return ZeroShotClassifier.from_class_means(
            store.output(), store.labels, store.class_names, fingerprint=store.fingerprint
        )
    return ZeroShotClassifier.from_text(encoder, store.class_names, dataset_of(store, images).templates)
