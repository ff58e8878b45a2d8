"""Fit the units' bases in one pass over small coordinates: from stores, or as an encoder makes them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch

from residual.data import ImageDataset, Manifest
from residual.devices import find_device
from residual.encoders.changes import EncoderLike, checked_encoder
from residual.errors import ResidualError
from residual.files import shareable, shareable_split
from residual.progress import Progress
from residual.spectral.bases import Origin, SpectralBases, whole_note
from residual.spectral.pca import PCA, IncrementalPCA
from residual.spectral.unit_moments import UnitMoments
from residual.store.base import Store
from residual.store.encoding import Encoding, Part
from residual.store.form import FormError, check_form, check_range
from residual.store.forward import encode_batches
from residual.store.resume import check_images, check_weights, readable_again, spread
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.token_choice import resolve

_PROGRESS = {"split": str, "part": [int], "done": int, "skipped": {str: str}, "digests": [[int]]}
SECONDS_BETWEEN = 60.0  # two checkpoints: what a kill loses at most
_ROWS = 512  # read at a time


def fit_bases(
    store: Store | Sequence[Store],
    kinds: Sequence[str] = ("head",),
    *,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> SpectralBases:
    """Principal bases of the contributions of all units of these kinds.

    Equal to `pca(store.contributions(units=[unit])[:, 0])` for each unit, from one pass over the coordinates:
    a head's from the covariance of its `h + 2` features and its fixed map (see `Linearization`). Memory
    doesn't grow with the samples. Where a store keeps several tokens, each counts as a sample.

    Args:
        store: coordinates; several stores of one encoder count as one.
        kinds: "head", "mlp", "emb".
        device: where covariances are taken; by default the GPU if there is one, else the CPU.
        progress: told of the samples that are done.

    Raises:
        ResidualError: an unknown kind or one that isn't kept, stores of different encoders, or fewer than two
            samples.

    Example:
        >>> import residual
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> store = residual.encode_dataset(encoder, residual.load_dataset("digits", "val").sample(8))
        >>> residual.fit_bases(store, "mlp")
        SpectralBases(8 units from 1 to 8, 56 components of width 192, of picto)
    """
    stores = _stores(store)
    moments = UnitMoments.of_store(stores[0], kinds, find_device(device))
    for other in stores[1:]:
        moments.add_store(other)
    for batch in _batches(stores, progress):
        moments.update(batch)
    return moments.compute()


def fit_output(store: Store | Sequence[Store], *, progress: Progress | None = None) -> PCA:
    """Principal components of the encoder's own output, from one pass; what `SpectralMap` re-weights.

    Raises:
        ResidualError: as `fit_bases`; or a kind of unit isn't kept in the store.
    """
    stores, moments = _stores(store), IncrementalPCA()
    for batch in _batches(stores, progress):
        moments.update(stores[0].linearization.output(batch).flatten(0, -2))
    return moments.compute()


def fit_halves(
    store: Store,
    kinds: Sequence[str] = ("head",),
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> tuple[SpectralBases, SpectralBases]:
    """Bases of a random half of the samples, and of the other: how alike they are is what chance leaves of 1.

    Raises:
        ResidualError: as `fit_bases`; each half needs two samples.
    """
    halves = [UnitMoments.of_store(store, kinds, find_device(device)) for _ in range(2)]
    half_of, start = torch.randperm(len(store), generator=torch.Generator().manual_seed(seed)) % 2, 0
    for batch in store.batches(_ROWS):
        own, start = half_of[start : start + len(batch)], start + len(batch)
        for number, moments in enumerate(halves):
            moments.update(batch[(own == number).nonzero()[:, 0]])
    return halves[0].compute(), halves[1].compute()


def stream_moments(
    encoder: EncoderLike,
    dataset: ImageDataset,
    settings: Encoding,
    *,
    part: tuple[int, int] = (1, 1),
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> UnitMoments:
    """Moments of the units of `settings.kinds` over `dataset`; `.compute()` gives their bases.

    Nothing is stored: for all tokens of an image, or for many images.

    Args:
        encoder: from `load_encoder` or `wrap_encoder`.
        dataset: what to encode.
        settings: how; several tokens of an image (`pooling="patches"`) count as so many samples.
        part: `(number, of)`: only that of so many equal parts of the dataset; the parts' moments merge.
        checkpoint: a file in which the state is kept once a minute. If it is there already, the run goes on
            from it, to the same bytes, and looks at some images again, as `encode_dataset` does.
        progress: told of the images that are done, after every batch.

    Raises:
        UnreadableImageError: with `on_error="raise"`; names the sample.
        OtherResultError: the checkpoint is of other images of the same names.
        ResidualError: the checkpoint is of something else; or see `encode_dataset`.
    """
    encoder = checked_encoder(encoder)
    settings = replace(settings, pooling=resolve(settings.pooling, encoder.parts, encoder.name).name)
    samples, weights = Part(*part).share(len(dataset)), encoder.rounded_fingerprint
    linearization = Linearization.of(encoder, pooling=settings.pooling)
    about = (encoder.centering, (dataset.shared_name,), 0, settings.pooling)
    origin = Origin(shareable(encoder.name), encoder.fingerprint, *about)
    moments = UnitMoments(linearization, settings.kinds, settings.kinds, origin, encoder.device)
    split = Manifest.of(dataset).checksum
    moments.progress = {"split": split, "part": list(part), "done": 0, "skipped": {}, "digests": []}
    again: list[int] = []
    if checkpoint is not None and Path(checkpoint).is_file():
        moments = _resumed(moments, checkpoint, samples, dataset)
        done = samples[: moments.progress["done"]]
        known = dict(moments.progress["digests"])
        check_images(encoder, dataset, known, settings.on_error, str(checkpoint))
        left_out = [
            position for position in done if dataset.sample_ids[position] in moments.progress["skipped"]
        ]
        again = readable_again(encoder, dataset, left_out, settings)
    if progress is not None:
        progress("encode", moments.progress["done"], len(samples))
    saved, looked_at = time.monotonic(), set(spread(samples).tolist())
    batches = [range(position, position + 1) for position in again]
    batches += settings.batches(samples[moments.progress["done"] :])
    precision = torch.promote_types(encoder.dtype, torch.float32)
    for encoded in encode_batches(
        encoder, dataset, batches, settings, linearization, precision, str(encoder.device)
    ):
        read = encoded.read
        if encoded.coordinates is not None:
            moments.update(encoded.coordinates)
        for position, digest in zip(read.positions, read.digests, strict=True):
            moments.progress["skipped"].pop(dataset.sample_ids[position], None)
            if position in looked_at:
                moments.progress["digests"].append([position, digest])
        for position, reason in read.skipped.items():
            moments.progress["skipped"][dataset.sample_ids[position]] = reason
        if again:
            again.pop()
        else:
            moments.progress["done"] += len(read.positions) + len(read.skipped)
        if progress is not None:
            progress("encode", moments.progress["done"], len(samples))
        if checkpoint is not None and time.monotonic() - saved > SECONDS_BETWEEN:
            check_weights(encoder, weights)
            moments.save(checkpoint, unfinished=True)
            saved = time.monotonic()
    check_weights(encoder, weights)
    del moments.progress["digests"]
    return moments


def _resumed(
    fresh: UnitMoments, checkpoint: str | Path, samples: range, dataset: ImageDataset
) -> UnitMoments:
    """The state in a checkpoint, if it is one of the same run."""
    kept = UnitMoments.load(checkpoint, fresh.device)
    fresh.check(kept)
    kept.progress = {"digests": [], **kept.progress}  # version 0.1 kept none
    with whole_note(checkpoint):
        check_form(kept.progress, _PROGRESS, "the progress")
    same = [kept.progress[name] == fresh.progress[name] for name in ("split", "part")]
    if not all(same) or list(map(shareable_split, kept.origin.datasets)) != list(fresh.origin.datasets):
        of = ", ".join(kept.origin.datasets)
        raise ResidualError(
            f"{str(checkpoint)!r} is of another run (of {of}, or of another part): choose another place, or "
            "remove it."
        )
    with whole_note(checkpoint):
        _check_counts(kept, samples, dataset)
    return kept


def _check_counts(kept: UnitMoments, samples: range, dataset: ImageDataset) -> None:
    """Refuse a checkpoint that counts otherwise than a run does."""
    progress, rows = kept.progress, kept.origin.samples
    check_range(progress["done"], 0, len(samples), "the number of images that are done")
    done = samples[: progress["done"]]
    read = sum(dataset.sample_ids[position] not in progress["skipped"] for position in done)
    if (rows % read if read else rows) or rows < read:  # several tokens of an image may count
        raise FormError("it holds moments of another number of images than are done")
    for held in progress["digests"]:
        if len(held) != 2 or held[0] not in done or not 0 <= held[1] < 2**64:
            raise FormError("it holds digests of none of its images")


def _stores(store: Store | Sequence[Store]) -> list[Store]:
    stores = list(store) if isinstance(store, Sequence) else [store]
    if not stores:
        raise ResidualError("Bases need at least one store, got none.")
    for other in stores[1:]:
        Origin.of_store(stores[0]).check_shared(Origin.of_store(other))
    return stores


def _batches(stores: list[Store], progress: Progress | None) -> Iterator[Coordinates]:
    total, done = sum(map(len, stores)), 0
    for batch in chain.from_iterable(store.batches(_ROWS) for store in stores):
        yield batch
        done += len(batch)
        if progress is not None:
            progress("fit bases", done, total)
