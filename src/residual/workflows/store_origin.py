"""What is behind a store: its encoder, its dataset and a classifier of its classes.

A store names its encoder and its dataset, and may come from anyone: an encoder is loaded because a store
names it only if the library lists it, a dataset only if it ships. Any other, the user names.
"""

from __future__ import annotations

from dataclasses import dataclass

from residual.data import ImageDataset
from residual.data.held_out import load_split
from residual.data.hub.catalogue import classes_of, hub_entries, templates_of
from residual.data.load import ships
from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.encoders.load import load_encoder
from residual.encoders.names import is_listed
from residual.errors import ResidualError, StoreEncoderError
from residual.progress import Progress
from residual.store.base import Store
from residual.text.classifier import PLAIN, ZeroShotClassifier


@dataclass(frozen=True)
class StoreDataset:
    """The dataset of a store as it is today: the pictures, if they are there, and what changed.

    Args:
        images: the pictures, or None.
        templates: its prompt templates, or a plain one.
        notes: what is left out, and why.
        unnamed: whether it is left out because nobody but the store names it.
    """

    images: ImageDataset | None
    templates: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unnamed: bool = False


def encoder_of(store: Store, name: str | None = None, device: str | None = None) -> Encoder:
    """The encoder whose coordinates the store keeps: by `name`, or by the store's where the library lists it.

    Raises:
        ResidualError: as `load_encoder`; its weights are others; or it has to be named.
    """
    check_named(store, name)
    chosen, found = store.encoder_name if name is None else name, find_device(device)
    try:
        encoder = load_encoder(chosen, device=found, centering=store.centering)
    except ResidualError as error:
        if name is not None:
            raise
        raise StoreEncoderError(f"The encoder of the store, {chosen!r}, can't be loaded: {error}") from error
    if encoder.fingerprint != store.fingerprint:
        raise StoreEncoderError(
            f"{store.dataset} was encoded by {store.encoder_name} (weights {store.fingerprint[:8]}), not by "
            f"{encoder.name} (weights {encoder.fingerprint[:8]})."
        )
    return encoder


def check_named(store: Store, name: str | None = None) -> None:
    """Refuse to load an encoder because a store names it, but for those that the library lists.

    Raises:
        StoreEncoderError: nobody else names it.
    """
    if name is None and not is_listed(store.encoder_name):
        raise StoreEncoderError(
            f"The encoder of the store, {store.encoder_name!r}, isn't loaded because a store names it: it is "
            "none that the library lists."
        )


def dataset_of(store: Store, images: ImageDataset | None = None, *, name: str | None = None) -> StoreDataset:
    """The store's dataset, and its templates; where it isn't what was encoded any more, a plain template.

    Args:
        store: coordinates.
        images: the dataset, if it is loaded already.
        name: of the dataset, as `load_dataset` takes it, for the store's split; None for what the store
            names, which is loaded if it ships with the library. Templates of the paper's suite are known
            without its datasets.

    Raises:
        ResidualError: as `load_dataset`, of a dataset that is given by its name.
    """
    noted, _, split = store.dataset.rpartition("/")
    plain = f"so pictures are left out and the template is {PLAIN[0]!r}"
    if images is None:
        if name is None and not ships(noted):
            return _unloaded(store, noted)
        try:
            images = load_split(noted if name is None else name, split)
        except (ResidualError, OSError) as error:
            if name is not None:
                raise
            why = (error.message if isinstance(error, ResidualError) else str(error)).rstrip(".")
            return StoreDataset(None, PLAIN, (f"The dataset can't be loaded any more, {plain}: {why}.",))
    shown = images.shared_name  # notes go into pages
    if images.class_names != store.class_names:
        note = f"{shown} has other classes than {store.dataset} when it was encoded, {plain}."
        return StoreDataset(None, PLAIN, (note,))
    known = set(images.sample_ids)
    if gone := [sample for sample in store.sample_ids if sample not in known]:
        note = (
            f"Not in {shown} any more: {len(gone):,} of the store's samples, the first {gone[0]!r}; "
            "their pictures are left out."
        )
        return StoreDataset(images, images.templates, (note,))
    return StoreDataset(images, images.templates)


def _unloaded(store: Store, name: str) -> StoreDataset:
    """What is known of a dataset that only the store names, without loading it."""
    templates, left_out = PLAIN, f"pictures are left out and the template is {PLAIN[0]!r}"
    entry = hub_entries().get(name)
    if entry is not None and classes_of(entry.classes).names == store.class_names:
        templates, left_out = templates_of(name), "pictures are left out"
    note = f"The dataset of the store, {name!r}, isn't loaded because a store names it: {left_out}."
    return StoreDataset(None, templates, (note,), unnamed=True)


def classifier_of(
    store: Store,
    encoder: Encoder,
    images: ImageDataset | StoreDataset | None = None,
    progress: Progress | None = None,
) -> ZeroShotClassifier:
    """From class names and the dataset's templates; from class means where the encoder has no text tower.

    Where the dataset isn't known, the template is "a photo of a {}."; class means are those of the store
    itself.

    Args:
        store: coordinates.
        encoder: theirs.
        images: the store's dataset, if it is loaded already; or what `dataset_of` gave.
        progress: told of the prompts that are done.

    Raises:
        ResidualError: a class has no sample, where means are needed.
    """
    if not encoder.has_text:
        return ZeroShotClassifier.from_class_means(
            store.output(), store.labels, store.class_names, fingerprint=store.fingerprint
        )
    origin = images if isinstance(images, StoreDataset) else dataset_of(store, images)
    return ZeroShotClassifier.from_text(encoder, store.class_names, origin.templates, progress=progress)
