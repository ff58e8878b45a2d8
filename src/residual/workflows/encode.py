"""What `residual encode` and `residual bases` do, and what there is to tell of it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.files import check_writable
from residual.progress import Progress
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases, stream_moments
from residual.spectral.unit_moments import UnitMoments
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset
from residual.store.forward import Encoding


@dataclass(frozen=True)
class Job:
    """A dataset to be encoded: how, where to, and which part of it."""

    settings: Encoding
    dtype: str
    out: str
    part: tuple[int, int]

    @classmethod
    def of(cls, options: dict[str, Any], out: str, part: tuple[int, int]) -> Job:
        """From the options of the command."""
        workers = None if options["workers"] < 0 else options["workers"]
        kinds = split_kinds(options["kinds"])
        settings = Encoding(options["pooling"], kinds, options["batch_size"], workers, options["on_error"])
        return cls(settings, options["dtype"], out, part)

    def store(self, encoder: Encoder, dataset: ImageDataset, progress: Progress | None) -> dict[str, Any]:
        """Encode to a store."""
        watch = _Watch(progress)
        how: dict[str, Any] = vars(self.settings)
        store = encode_dataset(
            encoder, dataset, self.out, dtype=self.dtype, part=self.part, progress=watch, **how
        )
        size = sum(store.storage.sizes().values())
        state = "complete" if store.complete else "not complete yet"
        return {
            "store": self.out,
            "encoder": encoder.name,
            "dataset": store.dataset,
            "samples": len(store),
            "complete": store.complete,
            "bytes": size,
            "skipped": store.reasons,
            **watch.result(),
            "sentence": f"{self.out}: {len(store):,} samples of {store.dataset} by {encoder.name}, "
            f"{size / 1e6:,.1f} MB, {state}; {watch.sentence()}.",
        }

    def bases(self, encoder: Encoder, dataset: ImageDataset, progress: Progress | None) -> dict[str, Any]:
        """Fit bases and store nothing else; of a part of several, leave its moments."""
        check_writable(self.out)
        watch = _Watch(progress)
        checkpoint = Path(f"{self.out}.unfinished")
        moments = stream_moments(
            encoder, dataset, self.settings, part=self.part, checkpoint=checkpoint, progress=watch
        )
        if self.part == (1, 1):
            made = moments.compute()
            made.save(self.out)
            what = f"{made}"
        else:
            moments.save(self.out)
            what = f"part {self.part[0]} of {self.part[1]} ({moments.origin.samples:,} samples)"
        checkpoint.unlink(missing_ok=True)
        return {
            "bases": self.out,
            "encoder": encoder.name,
            "dataset": moments.origin.datasets[0],
            "samples": moments.origin.samples,
            "skipped": moments.progress["skipped"],
            **watch.result(),
            "sentence": f"{self.out}: {what}; {watch.sentence()}.",
        }


def bases_of(
    sources: Sequence[str], out: Path, kinds: str | None, device: str | None, progress: Progress | None
) -> dict[str, Any]:
    """Fit bases from stores, or from the moments that parts of a run left.

    Raises:
        ResidualError: they are of different encoders, or not all of one sort.
    """
    files = [source for source in sources if Path(source).is_file()]
    if files and len(files) < len(sources):
        raise ResidualError(f"Stores and files of moments can't be mixed: {', '.join(sources)}.")
    start = time.perf_counter()
    if files:
        made = _merged(files, kinds)
    else:
        stores = [ResidualStore.open(source) for source in sources]
        made = fit_bases(stores, split_kinds(kinds or "head"), device=device, progress=progress)
    made.save(out)
    seconds = time.perf_counter() - start
    return {
        "bases": str(out),
        "units": len(made),
        "components": sum(made.ranks),
        "samples": 0 if made.origin is None else made.origin.samples,
        "seconds": round(seconds, 3),
        "sentence": f"{out}: {made}, in {seconds:.1f} s.",
    }


def _merged(files: Sequence[str], kinds: str | None) -> SpectralBases:
    moments = UnitMoments.load(files[0])
    for file in files[1:]:
        moments.merge(UnitMoments.load(file))
    if kinds and set(split_kinds(kinds)) != set(moments.kinds):
        raise ResidualError(f"These moments are of {', '.join(moments.kinds)}: leave out --kinds.")
    return moments.compute()


def split_kinds(kinds: str) -> tuple[str, ...]:
    """`"head, mlp"` as ("head", "mlp")."""
    return tuple(kind.strip() for kind in kinds.split(",") if kind.strip())


def parse_part(part: str) -> tuple[int, int]:
    """`"2/8"` as (2, 8).

    Raises:
        ResidualError: it isn't of that form.
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", part.strip())
    if not found:
        raise ResidualError(f"A part looks like 2/8, the second of eight; got {part!r}.")
    return int(found[1]), int(found[2])


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
