"""Heads of one store described: what `residual describe` shows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from residual.data import ImageDataset, load_dataset
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.heads.describe import (
    DescribeSettings,
    HeadDescription,
    check_atoms,
    check_heads,
    describe_heads,
    parse_heads,
)
from residual.progress import Progress, named
from residual.spectral.fit import fit_bases
from residual.store.base import Store
from residual.store.disk import ResidualStore
from residual.text.classifier import PLAIN, ZeroShotClassifier
from residual.text.dictionary import TextDictionary, checked_texts, read_texts
from residual.workflows.store_origin import encoder_of


@dataclass(frozen=True)
class Described:
    """What was found.

    Args:
        title: what it is of.
        settings: how heads were chosen and described.
        heads: the descriptions.
        of: how many heads the encoder has.
        dictionary: its name or file, and how many entries it has.
        dataset: with the pictures, or None where it can't be loaded any more.
        notes: what is not as it should be, a sentence each.
        result: all numbers, for JSON.
    """

    title: str
    settings: DescribeSettings
    heads: list[HeadDescription]
    of: int
    dictionary: tuple[str, int]
    dataset: ImageDataset | None
    notes: list[str]
    result: dict[str, Any]


def describe_store(
    address: str,
    dictionary: str,
    heads: Sequence[str] | None,
    settings: DescribeSettings,
    *,
    encoder: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Described:
    """Describe heads of a store, with bases of its own samples.

    Args:
        address: of the store.
        dictionary: a list that ships, or a file of texts; see `TextDictionary.encode`.
        heads: by layer and head, as "11.4"; None for the best by the task.
        settings: how.
        encoder: its name, where it isn't the store's.
        device: where to compute.
        progress: told of every stage.

    Raises:
        ResidualError: as `ResidualStore.open`, `parse_heads`, `TextDictionary.encode` and `describe_heads`;
            an encoder that can't be loaded, has other weights than the store's, or has no text tower.
    """
    start = time.perf_counter()
    store = ResidualStore.open(address)
    check_heads(store)
    units = None if heads is None else parse_heads(heads, store)
    texts = checked_texts(read_texts(dictionary))
    check_atoms(settings.atoms, len(texts))
    loaded = _encoder(store, encoder, device)

    dataset, notes = _dataset(store)
    known = TextDictionary.encode(loaded, texts, progress=named(progress, "embed texts"))
    classifier = None
    if settings.task != "correlation":
        templates = PLAIN if dataset is None else dataset.templates
        classifier = ZeroShotClassifier.from_text(
            loaded, store.class_names, templates, progress=named(progress, "embed classes")
        )
    bases = fit_bases(store, ("head",), device=device, progress=progress)
    found = describe_heads(
        store, loaded, known, bases, units, settings, classifier=classifier, device=device, progress=progress
    )
    of = int((store.units["kind"] == "head").sum())
    result = {
        "store": address,
        "encoder": store.encoder_name,
        "dataset": store.dataset,
        "pooling": store.pooling,
        "samples": len(store),
        "dictionary": {"source": dictionary, "entries": len(known)},
        "settings": asdict(settings),
        "heads_of_encoder": of,
        "heads": [
            {"name": head.name, **asdict(head), "explained_variance_ratio": head.explained_variance_ratio}
            for head in found
        ],
        "notes": notes,
        "seconds": round(time.perf_counter() - start, 3),
    }
    title = f"{store.encoder_name} on {store.dataset}, {len(store):,} samples"
    return Described(title, settings, found, of, (dictionary, len(known)), dataset, notes, result)


def _encoder(store: Store, name: str | None, device: str | None) -> Encoder:
    try:
        encoder = encoder_of(store, name, device)
    except ResidualError as error:
        if name is not None or "--encoder" in str(error):
            raise
        raise ResidualError(
            f"The encoder of the store, {store.encoder_name!r}, can't be loaded by that name (say --encoder "
            f"NAME, the same weights under another): {error}"
        ) from error
    if not encoder.has_text:
        raise ResidualError(
            f"{encoder.name} ({encoder.family.name}) has no text tower, and a dictionary of texts needs one: "
            "take a store by an encoder with text, such as a CLIP."
        )
    return encoder


def _dataset(store: Store) -> tuple[ImageDataset | None, list[str]]:
    """The dataset with the pictures, and what is to be said about it."""
    name, _, split = store.dataset.rpartition("/")
    try:
        dataset = load_dataset(name, split)
    except (ResidualError, OSError) as error:
        said = str(error).rstrip(".")
        return None, [
            f"The dataset can't be loaded any more, so pictures are left out and the template is "
            f"{PLAIN[0]!r}: {said}."
        ]
    if dataset.class_names != store.class_names:
        return None, [
            f"{store.dataset} has other classes than when it was encoded, so pictures are left out and the "
            f"template is {PLAIN[0]!r}."
        ]
    known = set(dataset.sample_ids)
    if gone := [sample for sample in store.sample_ids if sample not in known]:
        return dataset, [
            f"Not in {store.dataset} any more: {len(gone):,} of the store's samples, the first {gone[0]!r}; "
            "their pictures are left out."
        ]
    return dataset, []
