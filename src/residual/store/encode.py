"""Run an encoder over a dataset once: into memory, or into a store on disk that survives anything."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from residual.addresses import check_address
from residual.data import ImageDataset, PixelDataset, as_dataset
from residual.data.own import OwnDataset
from residual.encoders.changes import EncoderLike, checked_encoder
from residual.encoders.encoder import Encoder
from residual.errors import NoPlaceError, ResidualError
from residual.executors import Executor, opened
from residual.files import safe_name, shareable
from residual.progress import Progress
from residual.store.arrays import CheckedArrays
from residual.store.base import MemoryStore
from residual.store.decoding import road
from residual.store.disk import ResidualStore
from residual.store.encoding import Allowance, Encoding, Part
from residual.store.forward import encode_batches
from residual.store.job import Bench, Job, Work, write_elsewhere
from residual.store.layout import Layout
from residual.store.manifest import decoded_on, identity_of, read_manifest
from residual.store.pieces import Pixels
from residual.store.reading import read_pixels
from residual.store.resume import check_choice, check_images, check_weights, readable_again, spread
from residual.store.site import site_of
from residual.store.storage import Storage
from residual.store.writer import Begun, begin
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import linearization_of
from residual.tracing.token_choice import resolve
from residual.tracing.trace import trace
from residual.tracing.units import KINDS

DTYPES = {"float16": torch.float16, "float32": torch.float32}


@overload
def encode_dataset(
    encoder: EncoderLike,
    dataset: Any,
    path: None = None,
    *,
    labels: Iterable[Any] | None = ...,
    groups: Iterable[Any] | None = ...,
    class_names: Sequence[str] | None = ...,
    image_column: str | None = ...,
    label_column: str | None = ...,
    pooling: str = ...,
    kinds: Sequence[str] = ...,
    batch_size: int = ...,
    workers: int | None = ...,
    on_error: str = ...,
    allowance: Allowance | None = ...,
    decode: str = ...,
    progress: Progress | None = ...,
) -> MemoryStore: ...


@overload
def encode_dataset(
    encoder: EncoderLike,
    dataset: Any,
    path: str | os.PathLike[str],
    *,
    labels: Iterable[Any] | None = ...,
    groups: Iterable[Any] | None = ...,
    class_names: Sequence[str] | None = ...,
    image_column: str | None = ...,
    label_column: str | None = ...,
    pooling: str = ...,
    kinds: Sequence[str] = ...,
    dtype: str = ...,
    shard_mb: int = ...,
    part: tuple[int, int] = ...,
    batch_size: int = ...,
    workers: int | None = ...,
    on_error: str = ...,
    allowance: Allowance | None = ...,
    decode: str = ...,
    check: str = ...,
    executor: Executor | str | None = ...,
    progress: Progress | None = ...,
) -> ResidualStore: ...


def encode_dataset(
    encoder: EncoderLike,
    dataset: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    labels: Iterable[Any] | None = None,
    groups: Iterable[Any] | None = None,
    class_names: Sequence[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    pooling: str = "own",
    kinds: Sequence[str] = KINDS,
    dtype: str = "float16",
    shard_mb: int = 64,
    part: tuple[int, int] = (1, 1),
    batch_size: int = 64,
    workers: int | None = None,
    on_error: str = "raise",
    allowance: Allowance | None = None,
    decode: str = "auto",
    check: str = "some",
    executor: Executor | str | None = None,
    progress: Progress | None = None,
) -> MemoryStore | ResidualStore:
    """Run `encoder` over pictures and keep the coordinates of every sample.

    With a `path` they go into a store there, a shard of samples at a time. Called again after whatever
    stopped it, it goes on behind the last whole shard, and the finished store is the same, byte for byte, as
    that of a run that nothing stopped (on the same CPU, with the same `batch_size`; on a GPU but for
    rounding).

    Args:
        encoder: from `load_encoder` or `wrap_encoder`; or what wraps one, as an `AdaptedEncoder`.
        dataset: from `load_dataset`; or your own pictures, in a list, an array, or a dataset of torch,
            torchvision or Hugging Face, as `residual.data.as_dataset` takes them.
        path: a folder or an fsspec address; None keeps everything in memory, in float32 (float64 if the
            encoder is).
        labels, groups, class_names, image_column, label_column: of your own pictures, see `as_dataset`.
        pooling: which tokens, see `decompose`; noted as "own" where the encoder does that itself.
        kinds: the kinds of unit to keep: "emb", "mlp", "head".
        dtype: of stored coordinates, "float16" or "float32"; `mean` and `std` are always in float32.
        shard_mb: of coordinates (2²⁰ bytes) in a shard of a new store, 1 to 1,024: what a kill loses at
            most. Larger ones make fewer files, which tells on an object store; memory has to hold five.
        part: `(number, of)`, such as `(2, 8)` for the second of eight parts: several processes, on several
            machines if `path` is in reach of all, can each write one part of a store.
        batch_size: images at a time; changes speed and memory, not results (but for rounding).
        workers: processes that read images; 0 for a thread; by default one a core (at most 16) for an encoder
            on a GPU, and a thread for one on the CPU, which needs the cores itself.
        on_error: an image that can't be read stops the run ("raise") or is left out and listed ("skip").
        allowance: with "skip", how many may be left out; None for any number.
        decode: where JPEG files are decoded and resized: "cpu", by Pillow; "gpu", by nvJPEG beside the
            encoder, which gives slightly other pixels (docs/stores.md); "auto", as a store that is there was
            begun, or else on the GPU where that can be had.
        check: where a store is there already, whether it is of the same images: 64 of those that it holds are
            looked at again, spread evenly over them, or "all". Those that couldn't be read are tried again.
        executor: where it runs, see `residual.executors.executor_of`: "gpus", "processes:4", "ray" and so on.
            Several workers write one store, the same as here, and all must see its `path` and the pictures.
            The encoder is sent to them as it is, in its precision, and runs on the best device of each.
        progress: called with the number of samples done and their total, after every batch; with an
            `executor`, as shards become whole.

    Raises:
        UnreadableImageError: with `on_error="raise"`; names the sample.
        TooManySkippedError: more can't be read than may be left out.
        OtherResultError: the path holds something else, or other images of the same names.
        ResidualError: labels or groups aren't one a sample or have no name; no sample is there or none can be
            read; the sum of units misses the model's own output (checked on the first batch); weights change
            meanwhile; the disk is full; or a pixel isn't finite, or a coordinate too large for `dtype`.

    Example:
        >>> import residual
        >>> digits = residual.load_dataset("letters", "test").subset(range(4))
        >>> store = residual.encode_dataset(residual.load_encoder("picto", "cpu"), digits)
        >>> len(store), store.contributions(units=[0, 5]).shape
        (4, torch.Size([4, 2, 192]))
        >>> store.subset([3, 1]).sample_ids == (digits.sample_ids[3], digits.sample_ids[1])
        True
    """
    encoder = checked_encoder(encoder)
    asked, pooling = pooling, resolve(pooling, encoder.parts, encoder.name).name
    settings = Encoding(pooling, tuple(kinds), batch_size, workers, on_error, allowance, decode)
    check_choice(check)
    dataset = as_dataset(
        dataset, labels=labels, groups=groups, class_names=class_names, image_column=image_column,
        label_column=label_column,
    )  # fmt: skip
    dataset.check()
    if len(dataset) == 0:
        raise ResidualError(f"Dataset {dataset.full_name} has no samples.")
    if path is None and executor is not None:
        raise NoPlaceError()
    if path is None:
        return _into_memory(encoder, dataset, settings, progress)
    if dtype not in DTYPES:
        raise ResidualError(f"dtype is {' or '.join(map(repr, DTYPES))}, got {dtype!r}.")
    if not 1 <= shard_mb <= 1024:
        raise ResidualError(f"A shard has 1 to 1,024 MB of coordinates, got {shard_mb}.")
    how = settings, dtype, shard_mb, Part(*part), asked, check
    with opened(executor) as elsewhere:
        if elsewhere is not None:
            elsewhere.workers()  # which take seconds to begin
        store = _onto_disk(encoder, dataset, path, *how, elsewhere, progress)
    if store.complete and not len(store):
        raise ResidualError(f"None of the {len(dataset)} images of {dataset.full_name} can be read.")
    return store


def _onto_disk(
    encoder: Encoder,
    dataset: ImageDataset,
    path: str | os.PathLike[str],
    settings: Encoding,
    dtype: str,
    shard_mb: int,
    part: Part,
    asked: str,
    check: str,
    executor: Executor | None,
    progress: Progress | None,
) -> ResidualStore:
    storage, weights = Storage(path), encoder.rounded_fingerprint
    linearization = linearization_of(encoder, encoder.parts, "image", settings.pooling)
    tokens = kept_tokens(encoder, dataset, settings.pooling)
    layout = Layout.of(linearization, tokens, settings.kinds, len(dataset), dtype, shard_mb * 2**20)
    there = read_manifest(storage)
    stored = None if there is None else decoded_on(there.identity)
    lacks = None if executor is None else site_of(executor).lacks
    settings = replace(settings, decode=road(settings.decode, encoder, dataset, stored, lacks))
    identity = identity_of(encoder, dataset, settings.pooling, settings.kinds, dtype, settings.decode)
    begun = begin(storage, there, identity, dataset, linearization, layout, part, asked)
    if begun.whole or not begun.pending or executor is not None:
        begun = begun.settled()
    begun, skipped = _look_again(begun, encoder, dataset, settings, check)
    total, left = (sum(map(len, map(begun.layout.samples_of, shards)))
                   for shards in (part.share(begun.layout.shards), begun.pending))  # fmt: skip
    report = partial(progress or (lambda *_: None), "encode")
    report(total - left, total)
    if begun.pending and executor is not None:
        work = Work.of(encoder, dataset, settings, begun.layout.samples_of(begun.pending[0]))
        place = os.fspath(path) if storage.local is None else os.path.abspath(storage.local)
        job = Job(work, place, begun.manifest, skipped)
        write_elsewhere(job, begun, executor, lambda done: report(total - left + done, total))
    elif begun.pending:
        job = Job(Work(encoder, dataset, settings, weights), os.fspath(path), begun.manifest, skipped)
        bench = Bench(job, storage, encoder, linearization)
        bench.write(begun.pending, lambda done: report(total - left + done, total), begun.lacks)
    begun.finish()
    return ResidualStore.open(path, cut_off=True)


def _look_again(
    begun: Begun, encoder: Encoder, dataset: ImageDataset, settings: Encoding, check: str
) -> tuple[Begun, dict[int, str]]:
    """Whether the shards that are there are of these images; what couldn't be read and now can comes in.

    Gives what still can't be read, too, by position, and why.
    """
    if not begun.whole:
        return begun, {}
    arrays = CheckedArrays(begun.storage, begun.manifest, begun.whole, {})
    held = arrays.positions[:] if check == "all" else spread(arrays.positions)
    digests = dict(zip(held.tolist(), arrays.read("digest", held).tolist(), strict=True))
    check_images(encoder, dataset, digests, settings.on_error, begun.storage.address)
    again = readable_again(encoder, dataset, list(arrays.skipped), settings)
    skipped = {position: arrays.skipped[position] for position in arrays.skipped.keys() - set(again)}
    settings.check_skipped(dataset, skipped)
    return begun.write_again(position // begun.layout.rows for position in again), skipped


def _into_memory(
    encoder: Encoder, dataset: ImageDataset, settings: Encoding, progress: Progress | None
) -> MemoryStore:
    weights = encoder.rounded_fingerprint  # as good as instant
    linearization = linearization_of(encoder, encoder.parts, "image", settings.pooling)
    wide = torch.promote_types(encoder.dtype, torch.float32)
    seen = Pixels()  # of all batches, without the pixels
    coordinates: Coordinates | None = None
    batches = settings.batches(range(len(dataset)))
    with ThreadPoolExecutor(1, "residual-fingerprint") as aside:  # seconds of hashing, for a large encoder
        fingerprint = aside.submit(lambda: encoder.fingerprint)
        for encoded in encode_batches(encoder, dataset, batches, settings, linearization, wide):
            if encoded.coordinates is not None:
                if coordinates is None:
                    coordinates = encoded.coordinates.room(len(dataset))
                coordinates.put(len(seen.positions), encoded.coordinates)
            seen.add(replace(encoded.read, pixels=[]))
            if progress is not None:
                progress("encode", len(seen.positions) + len(seen.skipped), len(dataset))
    check_weights(encoder, weights)
    if coordinates is None:
        raise ResidualError(f"None of the {len(dataset)} images of {dataset.full_name} can be read.")
    kept = seen.positions
    return MemoryStore(
        coordinates=coordinates[: len(kept)],
        linearization=linearization,
        labels=np.asarray(dataset.labels, dtype=np.int64)[kept],
        sample_ids=tuple(dataset.sample_ids[position] for position in kept),
        digests=np.array(seen.digests, np.uint64),
        groups=None if dataset.groups is None else dataset.groups[kept],
        reasons={dataset.sample_ids[position]: reason for position, reason in seen.skipped.items()},
        class_names=tuple(dataset.class_names),
        group_names=tuple(dataset.group_names),
        dataset=dataset.shared_name,
        encoder_name=shareable(encoder.name),
        fingerprint=fingerprint.result(),
        pooling=settings.pooling,
        kinds=tuple(kind for kind in KINDS if kind in settings.kinds),
    )


def kept_tokens(encoder: Encoder, dataset: ImageDataset, pooling: str) -> int | None:
    """How many tokens of an image are kept, seen on a blank one; None where there is no token axis."""
    if not resolve(pooling, encoder.parts, encoder.name).keeps_tokens:
        return None
    first = dataset.pixels[0] if isinstance(dataset, PixelDataset) else Image.new("RGB", (256, 256))
    if isinstance(dataset, OwnDataset) and not isinstance(own := dataset.load(0), Image.Image):
        first = own  # pixels
    pixels = encoder.pixels([first])
    with torch.inference_mode():
        return trace(encoder, pixels, pooling=pooling)[0].mean.shape[1]


def store_path(folder: str | os.PathLike[str], encoder: str, *about: str) -> str | Path:
    """Where one of several stores is kept in a folder or at an address: by encoder, and by what it is about.

    Example:
        >>> store_path("s3://bucket/stores", "picto", "letters", "train")
        's3://bucket/stores/picto/letters-train'
    """
    names = safe_name(encoder), safe_name("-".join(about))
    if check_address(where := os.fspath(folder)) is None:
        return Path(folder).joinpath(*names)
    return "/".join((where.rstrip("/"), *names))


def outputs_of(
    encoder: Encoder, dataset: ImageDataset, settings: Encoding, progress: Progress | None = None
) -> Tensor:
    """The encoder's own output `(n, d)` for every sample that can be read, in order; nothing else is kept.
    `progress` is told of every batch.

    Raises:
        UnreadableImageError: with `on_error="raise"`; names the sample.
    """
    batches, skip = settings.batches(range(len(dataset))), settings.on_error == "skip"
    done, parts = 0, []
    with torch.inference_mode():
        decode = road(settings.decode, encoder, dataset)
        for read in read_pixels(encoder, dataset, batches, settings.workers, skip, decode):
            parts += [encoder.encode_image(pixels.to(encoder.device)).float() for pixels in read.pixels]
            done += len(read.positions) + len(read.skipped)
            if progress is not None:
                progress(f"encode {dataset.split} anew", done, len(dataset))
    return torch.cat(parts)
