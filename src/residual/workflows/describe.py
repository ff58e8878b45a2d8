"""Heads of one store described: what `residual describe` shows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from residual.encoders.encoder import Encoder
from residual.errors import ResidualError, printable
from residual.files import shareable
from residual.heads.by_name import check_atoms, check_heads, parse_heads
from residual.heads.describe import describe_heads
from residual.heads.descriptions import DescribeSettings, HeadDescription
from residual.heads.suits import suited
from residual.progress import Progress, named
from residual.report import DescribedHeads
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases
from residual.store.disk import ResidualStore
from residual.text.classifier import ZeroShotClassifier, check_class_names
from residual.text.dictionary import TextDictionary, checked_texts, read_texts
from residual.workflows.store_origin import StoreDataset, dataset_of, encoder_of


@dataclass(frozen=True)
class StoreDescription:
    """A store's heads as they are shown, what is known of its dataset, `result` for JSON; and for maps the
    encoder and the bases of all heads.
    """

    heads: DescribedHeads
    origin: StoreDataset
    result: dict[str, Any]
    encoder: Encoder
    bases: SpectralBases


def describe_store(
    address: str,
    dictionary: str,
    heads: Sequence[str] | None,
    settings: DescribeSettings,
    *,
    encoder: str | None = None,
    dataset: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> StoreDescription:
    """Describe heads of a store, with bases of its own samples.

    Args:
        address: of the store.
        dictionary: a list that ships, or a file of texts; see `TextDictionary.encode`.
        heads: by layer and head, as "11.4"; None for the best by the task.
        settings: how.
        encoder: its name, where it isn't what the store notes, or isn't listed by the library.
        dataset: its name, for the pictures and templates of one that doesn't ship; see `dataset_of`.
        device: where to compute.
        progress: told of every stage.

    Raises:
        ResidualError: as `ResidualStore.open`, `parse_heads`, `TextDictionary.encode` and `describe_heads`;
            an encoder or a dataset that can't be loaded, or an encoder that has no text tower, or other
            weights than the store's.
    """
    start = time.perf_counter()
    store = ResidualStore.open(address)
    texts = checked_texts(read_texts(dictionary))
    check_heads(store)
    units = None if heads is None else parse_heads(heads, store)
    check_atoms(settings.atoms, len(texts))
    origin = dataset_of(store, name=dataset)
    loaded = encoder_of(store, encoder, device)
    if not loaded.has_text:
        raise ResidualError(
            f"{loaded.name} ({loaded.family.name}) has no text tower, and a dictionary of texts needs one: "
            "take a store by an encoder with text, such as a CLIP."
        )
    if settings.task != "correlation":
        check_class_names(loaded, store.class_names, origin.templates)
    bases = fit_bases(store, ("head",), device=device, progress=progress)
    entries = TextDictionary.encode(loaded, texts, progress=named(progress, "embed texts"))
    classifier = None
    if settings.task != "correlation":
        classifier = ZeroShotClassifier.from_text(
            loaded, store.class_names, origin.templates, progress=named(progress, "embed classes")
        )
    described = describe_heads(
        store, loaded, entries, bases, units, settings, classifier=classifier, device=device,
        progress=progress,
    )  # fmt: skip
    fits = None if classifier is None else suited(store, entries, classifier, settings)
    unsuited = "" if fits is None or fits.suits else fits.verdict
    described = [replace(head, unsuited=unsuited) for head in described]
    result = {
        "store": shareable(address, path=True),
        "encoder": store.encoder_name,
        "dataset": store.dataset,
        "pooling": store.pooling,
        "samples": len(store),
        "dictionary": {
            "source": shareable(dictionary, path=True),
            "entries": len(entries),
            "suited": None if fits is None else {**asdict(fits), "suits": fits.suits},
        },
        "settings": asdict(settings),
        "heads_of_encoder": int((store.units["kind"] == "head").sum()),
        "heads": [_json_of(head) for head in described],
        "notes": [*filter(None, [unsuited]), *origin.notes],
        "seconds": round(time.perf_counter() - start, 3),
    }
    shown = DescribedHeads(
        title=printable(f"{result['encoder']} on {result['dataset']}, {len(store):,} samples"),
        settings=settings,
        heads=described,
        of=result["heads_of_encoder"],
        dictionary=shareable(dictionary, path=True),
        entries=len(entries),
        chosen=heads is None,
        notes=origin.notes,
        unsuited=unsuited,
    )
    return StoreDescription(shown, origin, result, loaded, bases)


def _json_of(head: HeadDescription) -> dict[str, Any]:
    """A head for JSON, with what follows from what it holds."""
    follows = ("explained_variance_ratio", "share", "named", "verdict")
    held = {name: value for name, value in asdict(head).items() if name != "unsuited"}
    return {"name": head.name, **held, **{name: getattr(head, name) for name in follows}}
