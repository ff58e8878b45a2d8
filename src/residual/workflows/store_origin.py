"""The classifier of a store's classes, by the encoder that made it."""

from __future__ import annotations

from residual.data import load_dataset
from residual.encoders.encoder import Encoder
from residual.encoders.load import load_encoder
from residual.errors import ResidualError
from residual.store.base import Store
from residual.text.classifier import PLAIN, ZeroShotClassifier


def encoder_of(store: Store, name: str | None = None, device: str | None = None) -> Encoder:
    """The encoder whose coordinates the store keeps, by its name there or by another.

    Raises:
        ResidualError: as `load_encoder`; or its weights are others.
    """
    encoder = load_encoder(name or store.encoder_name, device=device, centering=store.centering)
    if encoder.fingerprint != store.fingerprint:
        raise ResidualError(
            f"{store.dataset} was encoded by {store.encoder_name} (weights {store.fingerprint[:8]}), not by "
            f"{encoder.name} (weights {encoder.fingerprint[:8]}): name its encoder with --encoder."
        )
    return encoder


def classifier_of(store: Store, encoder: Encoder) -> ZeroShotClassifier:
    """From class names and the dataset's templates; from class means where the encoder has no text tower.

    Where the dataset isn't known any more, the template is "a photo of a {}."; class means are those of the
    store itself.

    Raises:
        ResidualError: a class has no sample, where means are needed.
    """
    if not encoder.has_text:
        return ZeroShotClassifier.from_class_means(
            store.output(), store.labels, store.class_names, fingerprint=store.fingerprint
        )
    return ZeroShotClassifier.from_text(encoder, store.class_names, templates_of(store))


def templates_of(store: Store) -> tuple[str, ...]:
    """The templates of the store's dataset, or a plain one."""
    name, _, split = store.dataset.rpartition("/")
    try:
        dataset = load_dataset(name, split)
    except ResidualError:
        return PLAIN
    return dataset.templates if dataset.class_names == store.class_names else PLAIN
