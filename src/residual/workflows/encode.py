"""What `residual encode` and `residual bases` do, and what there is to tell of it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from residual.data import ImageDataset, load_dataset
from residual.data.load import dataset_name
from residual.encoders.encoder import Encoder
from residual.encoders.load import load_encoder
from residual.errors import ResidualError
from residual.executors import Executor, opened
from residual.files import shareable
from residual.outputs import check_file, check_folder, check_stores
from residual.products import BASES, MOMENTS, STORE
from residual.progress import Progress
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases, stream_moments
from residual.spectral.unit_moments import UnitMoments
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.store.encoding import Encoding
from residual.store.resume import check_choice
from residual.store.site import site_of
from residual.store.storage import Storage


def encode_split(
    out: str,
    *,
    dataset: str,
    split: str = "train",
    encoder: str = "picto",
    limit: int = 0,
    stream: bool = False,
    columns: Mapping[str, Any] | None = None,
    device: str | None = None,
    on: str | None = None,
    bases_only: bool = False,
    overwrite: bool = False,
    pooling: str = "own",
    kinds: str = "emb,mlp,head",
    dtype: str = "float16",
    shard_mb: int = 64,
    batch_size: int = 64,
    workers: int = -1,
    decode: str = "auto",
    on_error: str = "raise",
    part: str = "1/1",
    check: str = "some",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Encode a split of a dataset to a store, or fit its bases and store nothing else.

    Args:
        out: the store, a folder or an address; or the file of bases.
        dataset, split: as `load_dataset` takes them, with `columns` for its further arguments.
        encoder: its name.
        limit: only the first so many images; 0 for all.
        stream: fetch images of the hub while they are read, see `load_dataset`.
        device: where to compute, in this process.
        on: other processes that it runs in, see `residual.executors.executor_of`.
        bases_only: fit bases; of a part of several, leave its moments.
        overwrite: whether these may replace earlier ones; a store is gone on with.
        pooling, dtype, shard_mb, batch_size, decode, on_error, check: see `encode_dataset`; "all" is for
            stores.
        kinds: of unit, with commas between.
        workers: as `encode_dataset` takes them, -1 for None.
        part: which of several, as "2/8".
        progress: told of every batch.

    Returns:
        what there is to tell, for JSON, with `sentence` for people.

    Raises:
        ResidualError: see `load_encoder`, `load_dataset`, `encode_dataset` and `stream_moments`.
    """
    chosen = parse_part(part)
    check_choice(check)
    if bases_only and check == "all":
        raise ResidualError("Bases alone keep digests of some images: only a store can be checked for all.")
    if bases_only and shard_mb != 64:
        raise ResidualError(f"Bases alone have no shards, so none of {shard_mb} MB.")
    check_on(on, device)
    readers = None if workers < 0 else workers
    settings = Encoding(pooling, split_kinds(kinds), batch_size, readers, on_error, decode=decode)
    if bases_only:
        check_file(out, BASES if chosen == (1, 1) else MOMENTS, overwrite)
    elif (place := Storage(out).local) is not None:
        check_folder(place, STORE)
    else:
        check_stores(out)
    dataset = dataset_name(dataset)
    with opened(on) as executor:
        if executor is not None:
            executor.workers()  # which take seconds to begin
        model = load_encoder(encoder, device=device if executor is None else "cpu")
        images = load_dataset(dataset, split, stream=stream, **(columns or {}))
        if limit:
            some, every = np.unique(images.labels[:limit]), np.unique(images.labels)
            images = images.subset(range(min(limit, len(images))))
            if len(some) < len(every):
                few = f"The first {limit:,} are of {len(some)} of its {len(every)} classes alone."
                images.notes += (few,)
        if executor is not None:  # in the precision that suits where it runs, where that may have a GPU
            model.to(dtype=site_of(executor).dtype)
        watch = _Watch(progress)
        made = (
            _bases_of_images(model, images, settings, out, chosen, executor, watch, overwrite)
            if bases_only
            else _store_of_images(
                model, images, settings, out, chosen, executor, watch, dtype, shard_mb, check
            )
        )
    made["sentence"] = " ".join([f"{made['sentence']}; {watch.sentence()}.", *images.notes])
    return {**made, "notes": list(images.notes), "encoder": shareable(model.name), **watch.result()}


def _store_of_images(
    encoder: Encoder,
    images: ImageDataset,
    settings: Encoding,
    out: str,
    part: tuple[int, int],
    executor: Executor | None,
    progress: Progress,
    dtype: str,
    shard_mb: int,
    check: str,
) -> dict[str, Any]:
    store = encode_dataset(
        encoder, images, out, dtype=dtype, shard_mb=shard_mb, part=part, check=check, executor=executor,
        progress=progress, **asdict(settings),
    )  # fmt: skip
    size = sum(store.storage.sizes().values())
    state = "complete" if store.complete else "not complete yet"
    return {
        "store": shareable(out, path=True),
        "dataset": store.dataset,
        "samples": len(store),
        "complete": store.complete,
        "bytes": size,
        "skipped": store.reasons,
        "sentence": f"{shareable(out, path=True)}: {len(store):,} samples of {store.dataset} by "
        f"{store.encoder_name}, {size / 1e6:,.1f} MB, {state}",
    }


def _bases_of_images(
    encoder: Encoder,
    images: ImageDataset,
    settings: Encoding,
    out: str,
    part: tuple[int, int],
    executor: Executor | None,
    progress: Progress,
    overwrite: bool,
) -> dict[str, Any]:
    checkpoint = unfinished(out)
    how = {"part": part, "checkpoint": checkpoint, "executor": executor, "progress": progress}
    moments = stream_moments(encoder, images, settings, **how)
    if part == (1, 1):
        made = moments.compute()
        made.save(out, overwrite)
        what = f"{made}"
    else:
        moments.save(out, overwrite=overwrite)
        what = f"part {part[0]} of {part[1]} ({moments.origin.samples:,} samples)"
    checkpoint.unlink(missing_ok=True)
    return {
        "bases": shareable(out, path=True),
        "dataset": moments.origin.datasets[0],
        "samples": moments.origin.samples,
        "skipped": moments.progress["skipped"],
        "sentence": f"{shareable(out, path=True)}: {what}",
    }


def unfinished(out: str) -> Path:
    """Where bases that are fitted without a store are kept until they are whole."""
    return Path(f"{out}.unfinished")


def bases_of(
    sources: Sequence[str],
    out: Path,
    kinds: str | None,
    device: str | None,
    progress: Progress | None = None,
    *,
    on: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fit bases from stores, or from the moments that parts of a run left.

    Raises:
        ExistingError, ForeignError: earlier bases are there already, see `overwrite`; or something else is.
        ResidualError: they are of different encoders, or not all of one sort.
    """
    check_on(on, device)
    check_file(out, BASES, overwrite)
    files = [source for source in sources if Path(source).is_file()]
    if files and len(files) < len(sources):
        raise ResidualError(f"Stores and files of moments can't be mixed: {', '.join(sources)}.")
    start = time.perf_counter()
    if files and on is not None:
        raise ResidualError(f"Moments are merged here: nothing of {', '.join(files)} can run elsewhere.")
    if files:
        made = _merged(files, kinds)
    else:
        stores = [ResidualStore.open(source) for source in sources]
        made = fit_bases(stores, split_kinds(kinds or "head"), device=device, executor=on, progress=progress)
    made.save(out, overwrite)
    seconds = time.perf_counter() - start
    return {
        "bases": shareable(str(out), path=True),
        "units": len(made),
        "components": sum(made.ranks),
        "samples": 0 if made.origin is None else made.origin.samples,
        "seconds": round(seconds, 3),
        "sentence": f"{shareable(str(out), path=True)}: {made}, in {seconds:.1f} s.",
    }


def _merged(files: Sequence[str], kinds: str | None) -> SpectralBases:
    moments = UnitMoments.load(files[0])
    for file in files[1:]:
        moments.merge(UnitMoments.load(file))
    if kinds and set(split_kinds(kinds)) != set(moments.kinds):
        raise ResidualError(f"These moments are of {', '.join(moments.kinds)}: leave out other kinds.")
    return moments.compute()


def check_on(on: Executor | str | None, device: str | None) -> None:
    """Refuse a device of this process where the work runs in others.

    Raises:
        ResidualError: both are said.
    """
    if on is not None and device is not None:
        raise ResidualError(
            f"Work on {str(on)!r} runs on the best device of each worker, and {device!r} is one of this "
            "process.",
            "Say one of both.",
        )


def split_kinds(kinds: str) -> tuple[str, ...]:
    """`"head, mlp"` as ("head", "mlp")."""
    return tuple(kind.strip() for kind in kinds.split(",") if kind.strip())


def parse_part(part: str) -> tuple[int, int]:
    """`"2/8"` as (2, 8).

    Raises:
        ResidualError: it isn't of that form.
    """
    numbers = re.fullmatch(r"([0-9]+)/([0-9]+)", part.strip())
    if not numbers:
        raise ResidualError(f"A part looks like 2/8, the second of eight; got {part!r}.")
    return int(numbers[1]), int(numbers[2])


class _Watch:
    """Passes progress on, and knows how fast it was; what an earlier run had done doesn't count."""

    def __init__(self, progress: Progress | None):
        self.progress, self.start, self.done = progress, time.perf_counter(), 0
        self.first: int | None = None

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        self.first = done if self.first is None else self.first
        self.done = done
        if self.progress is not None:
            self.progress(stage, done, total)

    def result(self) -> dict[str, float]:
        seconds, images = time.perf_counter() - self.start, self._images()
        return {"seconds": round(seconds, 3), "images_per_second": round(images / seconds, 1)}

    def sentence(self) -> str:
        images, seconds = self._images(), time.perf_counter() - self.start
        return f"{images:,} images in {seconds:.1f} s, {images / seconds:,.0f} a second"

    def _images(self) -> int:
        return self.done - (self.first or 0)
