"""The shards of a store as work for several processes: what each of them needs, and what it does of it.

A task is some shards. It writes them straight into the store and gives back only what it left out, so that it
may be cut off anywhere and done again: it goes on behind those of its shards that are whole. How far all are
is seen in the store itself, by its receipts.
"""

from __future__ import annotations

import copy
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from residual.data import ImageDataset, PixelDataset
from residual.devices import find_device
from residual.encoders.encoder import Encoder
from residual.errors import OtherResultError, ResidualError, UnreadableImageError
from residual.executors import Executor
from residual.store.encoding import Encoding
from residual.store.forward import encode_batches
from residual.store.manifest import RECEIPTS, Receipt, StoreManifest, read_manifest
from residual.store.resume import weights_checked
from residual.store.storage import Storage
from residual.store.writer import Begun, Writer, whole_receipt
from residual.tracing.linearization import Linearization, linearization_of

T = TypeVar("T")

SAMPLES_OF_A_TASK = 2**15  # each begins and ends a pipeline; what a death loses is a shard, not a task
_PROBES = 8  # samples that the first one to be read is looked for among
_WAITS = (0.0, 1.0, 4.0)  # seconds, for a folder of a network to show what another machine wrote
_SETTLES = 60.0
_LISTING = 0.05  # of the time may be spent on looking how far workers are


@dataclass(frozen=True)
class Work:
    """An encoder, a dataset and how the one goes through the other, for other processes.

    Args:
        encoder: on the CPU or not; it comes out on the best device that there is.
        dataset: of images that all can read.
        settings: how.
        weights: the encoder's `rounded_fingerprint`.
        probe: a sample that can be read, and its digest; None where none is known.
    """

    encoder: Encoder
    dataset: ImageDataset
    settings: Encoding
    weights: str
    probe: tuple[int, int] | None = None

    @classmethod
    def of(cls, encoder: Encoder, dataset: ImageDataset, settings: Encoding, samples: Sequence[int]) -> Work:
        """To encode some samples."""
        sent = copy.copy(encoder)
        sent._tokenize = None
        return cls(sent, dataset, settings, encoder.rounded_fingerprint, _probe(dataset, samples))

    def begun(self) -> tuple[Encoder, Linearization]:
        """In a worker: its encoder, on its device.

        Raises:
            ResidualError: it is another than it was where it came from; or its pictures are.
        """
        encoder = self.encoder.to(find_device(None))
        if encoder.rounded_fingerprint != self.weights:
            raise ResidualError(
                f"{encoder.name} is another encoder on {socket.gethostname()} than where it was sent from.",
                "All workers need the same versions of this library and of the one that the model is of.",
            )
        if self.probe is not None:
            self._check_seen(*self.probe)
        return encoder, linearization_of(encoder, encoder.parts, "image", self.settings.pooling)

    def _check_seen(self, position: int, digest: int) -> None:
        what = f"{self.dataset.sample_ids[position]!r} of {self.dataset.full_name}"
        way_out = "All workers must see the same files, at the same place."
        try:
            if self.dataset.digest(position) == digest:
                return
        except UnreadableImageError as error:
            raise ResidualError(
                f"On {socket.gethostname()} there is no {what} ({error.reason}).", way_out
            ) from error
        raise OtherResultError(f"On {socket.gethostname()}, {what} is another image. {way_out}")


@dataclass(frozen=True)
class Job:
    """A store that is begun, and the work of writing its shards.

    Args:
        work: of encoding.
        path: of the store, as it is found from every worker.
        manifest: of the store.
        skipped: what can't be read of what is whole already, by position, and why.
    """

    work: Work
    path: str
    manifest: StoreManifest
    skipped: dict[int, str]

    def __call__(self) -> Bench:
        """In a worker: all that is ready to encode.

        Raises:
            ResidualError: as `Work.begun`; or the store isn't seen here.
        """
        storage = Storage(self.path)
        for wait in _WAITS:
            time.sleep(wait)
            manifest = read_manifest(storage)
            if manifest is not None and manifest.mark == self.manifest.mark:
                return Bench(self, storage, *self.work.begun())
        raise ResidualError(
            f"On {socket.gethostname()} there isn't the store that is begun at {storage.address!r}: that "
            "is a place of another machine alone.",
            "Give a folder that all workers see, or an address such as s3://….",
        )


@dataclass(frozen=True)
class Bench:
    """A job with what it needs at hand."""

    job: Job
    storage: Storage
    encoder: Encoder
    linearization: Linearization

    def write(
        self,
        shards: Sequence[int],
        tell: Callable[[int], object] = lambda _: None,
        lacks: Callable[[], StoreManifest] | None = None,
    ) -> dict[int, str]:
        """Encode the samples of shards and write these; after a batch, `tell` hears how many are done. What
        the store still `lacks` (`Begun`) is written meanwhile.

        Gives those that can't be read, by position, and why.

        Raises:
            ResidualError: as `encode_dataset`.
        """
        job, work, layout = self.job, self.job.work, self.job.manifest.layout
        dtype = getattr(torch, job.manifest.identity["settings"]["dtype"])
        writer, skipped, done = Writer(self.storage, job.manifest, lacks), {}, 0
        batches = [batch for shard in shards for batch in work.settings.batches(layout.samples_of(shard))]
        how = batches, work.settings, self.linearization, dtype
        try:
            for encoded in encode_batches(self.encoder, work.dataset, *how, skipped=job.skipped):
                writer.add(encoded, lambda: weights_checked(self.encoder, work.weights))
                skipped |= encoded.read.skipped
                done += len(encoded.read.positions) + len(encoded.read.skipped)
                tell(done)
        finally:
            writer.close()
        return skipped


def write_task(bench: Bench, shards: Sequence[int]) -> dict[int, str]:
    """`Bench.write` of those shards that aren't whole: the task may be one that died.

    Gives what can't be read of all of them.
    """
    whole = partial(whole_receipt, bench.storage, bench.job.manifest)
    receipts = list(bench.storage.several(whole, shards))
    skipped = {at: why for receipt in receipts if receipt is not None for at, why in receipt.skipped.items()}
    left = [shard for shard, receipt in zip(shards, receipts, strict=True) if receipt is None]
    return skipped | (bench.write(left) if left else {})


def cut(pending: Sequence[T], samples: int, workers: int) -> list[Sequence[T]]:
    """Work in pieces for so many workers: each gets as many of them, of much the same size.

    Args:
        pending: what is to be done.
        samples: in it.
        workers: at once.

    Example:
        >>> cut(range(5), 5_000, 2)
        [range(0, 2), range(2, 5)]
    """
    count = max(1, -(-samples // (SAMPLES_OF_A_TASK * workers))) * workers
    count = min(count, len(pending))
    return [pending[k * len(pending) // count : (k + 1) * len(pending) // count] for k in range(count)]


def write_elsewhere(job: Job, begun: Begun, executor: Executor, tell: Callable[[int], object]) -> None:
    """Have workers write the pending shards, and wait until all are seen here; `tell` hears how many of their
    samples are.

    Raises:
        ResidualError: as `Bench.write` and `Executor.run`; or what they wrote isn't here.
    """
    seen, skipped = _Seen(begun), dict(job.skipped)
    tasks = cut(begun.pending, seen.total, executor.workers())
    for _, found in executor.run(job, write_task, tasks, tick=lambda: seen.tell(tell)):
        skipped |= found
        job.work.settings.check_skipped(job.work.dataset, skipped)
    until = time.monotonic() + _SETTLES
    while (missing := seen.missing()) and time.monotonic() < until:
        time.sleep(1.0)
    if missing:
        raise ResidualError(
            f"Workers have written {len(begun.pending):,} shards to {job.path!r}, and {len(missing):,} of "
            "them aren't there: it is another place on another machine.",
            "Give a folder that all workers see, or an address such as s3://….",
        )
    tell(seen.total)


class _Seen:
    """How many of the pending shards are whole, looked up in the store, and not so often that it costs."""

    def __init__(self, begun: Begun):
        self.storage, self.next = begun.storage, 0.0
        self.sizes = {Receipt.file(shard): len(begun.layout.samples_of(shard)) for shard in begun.pending}
        self.total = sum(self.sizes.values())

    def tell(self, tell: Callable[[int], object]) -> None:
        """How many samples are in whole shards, if it is time to look again."""
        if (start := time.monotonic()) >= self.next:
            tell(self.total - sum(self.sizes[name] for name in self.missing()))
            self.next = time.monotonic() + (time.monotonic() - start) / _LISTING

    def missing(self) -> set[str]:
        """Receipts that aren't there."""
        return self.sizes.keys() - self.storage.sizes(RECEIPTS).keys()


def _probe(dataset: ImageDataset, samples: Sequence[int]) -> tuple[int, int] | None:
    if dataset.in_order or isinstance(dataset, PixelDataset):  # it comes from elsewhere; it is sent whole
        return None
    for position in samples[:_PROBES]:
        try:
            return position, dataset.digest(position)
        except UnreadableImageError:
            continue
    return None
