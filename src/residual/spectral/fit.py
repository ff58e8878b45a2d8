"""Fit the units' bases in one pass over small coordinates: from stores, or as an encoder makes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import torch

from residual.data import ImageDataset, Manifest
from residual.devices import find_device
from residual.encoders.changes import EncoderLike, checked_encoder
from residual.errors import ResidualError
from residual.executors import Executor, opened
from residual.files import shareable, shareable_split
from residual.progress import Progress
from residual.spectral.bases import Origin, SpectralBases, whole_note
from residual.spectral.pca import PCA, IncrementalPCA
from residual.spectral.sums import ImagesBench, ImagesJob, Piece, StoresJob, in_order
from residual.spectral.unit_moments import UnitMoments
from residual.store.base import Store, parts_of
from residual.store.decoding import road
from residual.store.encoding import CPU, Encoding, Part
from residual.store.form import FormError, check_form, check_range
from residual.store.forward import encode_batches
from residual.store.job import Work, cut
from residual.store.resume import check_images, check_weights, readable_again, spread
from residual.store.site import site_of
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.token_choice import resolve

_PROGRESS = {"split": str, "part": [int], "done": int, "skipped": {str: str}, "digests": [[int]]}
_PROGRESS |= {"decode": str}
SECONDS_BETWEEN = 60.0  # two checkpoints: what a kill loses at most
_ROWS = 512  # read at a time


def fit_bases(
    store: Store | Sequence[Store],
    kinds: Sequence[str] = ("head",),
    *,
    device: str | torch.device | None = None,
    executor: Executor | str | None = None,
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
        executor: where samples are read and summed, see `residual.executors.executor_of`. All of its workers
            must see the stores. Sums are merged in the order of the samples, and so are the same for as many
            workers each time.
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
    if executor is None:
        for batch in _batches(stores, progress):
            moments.update(batch)
        return moments.compute()
    with opened(executor) as elsewhere:
        pieces = [Piece(k, part) for k, one in enumerate(stores) for part in parts_of(len(one), _ROWS)]
        total = sum(map(len, stores))
        tasks = cut(pieces, total, elsewhere.workers())
        for contents in in_order(elsewhere.run(StoresJob(stores, moments.kinds), StoresJob.sums, tasks)):
            moments.take_in(contents)
            if progress is not None:
                progress("fit bases", moments.origin.samples, total)
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
    executor: Executor | str | None = None,
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
        executor: where it runs, see `encode_dataset`. Workers keep nothing: their sums come here and are
            merged in order, and so the checkpoint is that of all of them, and one process goes on from it as
            well. What a stop loses are the tasks at work. The sums are the same but for rounding.
        progress: told of the images that are done, after every batch, or every task of an `executor`.

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
    batches = [range(position, position + 1) for position in again]
    batches += settings.batches(samples[moments.progress["done"] :])
    with opened(executor) as elsewhere:
        lacks = None if elsewhere is None else site_of(elsewhere).lacks
        # A run that goes on decodes as it began.
        decode = road(settings.decode, encoder, dataset, moments.progress.get("decode"), lacks)
        settings, moments.progress["decode"] = replace(settings, decode=decode), decode
        tally = _Tally(moments, dataset, samples, len(again), checkpoint, progress)
        if elsewhere is not None and batches:
            left_out: dict[int, str] = {}
            tasks = cut(batches, sum(map(len, batches)), elsewhere.workers())
            work = Work.of(encoder, dataset, settings, [position for batch in tasks[0] for position in batch])
            for summed in in_order(elsewhere.run(ImagesJob(work, origin), ImagesBench.sums, tasks)):
                settings.check_skipped(dataset, left_out := left_out | summed.skipped)
                moments.take_in(summed.contents)
                tally.add(*summed[1:])
        else:
            precision = torch.promote_types(encoder.dtype, torch.float32)
            how = batches, settings, linearization, precision, str(encoder.device)
            for encoded in encode_batches(encoder, dataset, *how):
                if encoded.coordinates is not None:
                    moments.update(encoded.coordinates)
                read = encoded.read
                tally.add(read.positions, read.digests, read.skipped, lambda: check_weights(encoder, weights))
        check_weights(encoder, weights)
    del moments.progress["digests"], moments.progress["decode"]
    if settings.decode != CPU:
        moments.progress["roads"] = {shareable_split(dataset.shared_name): settings.decode}
    return moments


class _Tally:
    """How far moments are, noted in them; and in a checkpoint, once a minute."""

    def __init__(
        self,
        moments: UnitMoments,
        dataset: ImageDataset,
        samples: range,
        again: int,
        checkpoint: str | Path | None,
        progress: Progress | None,
    ):
        self.moments, self.dataset, self.samples, self.again = moments, dataset, samples, again
        self.checkpoint, self.saved = checkpoint, time.monotonic()
        self.looked_at = set(spread(samples).tolist())
        self.tell = partial(progress or (lambda *_: None), "encode")
        self.tell(moments.progress["done"], len(samples))

    def add(
        self,
        positions: Sequence[int],
        digests: Sequence[int],
        skipped: Mapping[int, str],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Note the next images; `check` is called before a checkpoint is written, which it may refuse."""
        noted, ids = self.moments.progress, self.dataset.sample_ids
        for position, digest in zip(positions, digests, strict=True):
            noted["skipped"].pop(ids[position], None)
            if position in self.looked_at:
                noted["digests"].append([position, digest])
        noted["skipped"] |= {ids[position]: reason for position, reason in skipped.items()}
        count = len(positions) + len(skipped)
        before = min(count, self.again)  # of an earlier run, which come first
        self.again -= before
        noted["done"] += count - before
        self.tell(noted["done"], len(self.samples))
        if self.checkpoint is not None and time.monotonic() - self.saved > SECONDS_BETWEEN:
            check()
            self.moments.save(self.checkpoint, unfinished=True)
            self.saved = time.monotonic()


def _resumed(
    fresh: UnitMoments, checkpoint: str | Path, samples: range, dataset: ImageDataset
) -> UnitMoments:
    """The state in a checkpoint, if it is one of the same run."""
    kept = UnitMoments.load(checkpoint, fresh.device)
    fresh.check(kept)
    kept.progress = {"digests": [], "decode": CPU, **kept.progress}  # version 0.1 kept none of these
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
