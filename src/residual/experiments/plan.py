"""What an experiment goes over: encoders, datasets, how they are read, and where results go."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from residual.data import ImageDataset, load_dataset
from residual.encoders.encoder import Encoder
from residual.encoders.load import check_encoder_name, load_encoder
from residual.errors import ResidualError
from residual.progress import Progress, named
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset, store_path
from residual.store.forward import Encoding
from residual.store.manifest import identity_of
from residual.tracing.units import KINDS


@dataclass(frozen=True)
class Plan:
    """Which cells there are, and how their images are read.

    Args:
        out: the folder of all results: a folder for each experiment, and `stores` that they share.
        encoders: names as `load_encoder` takes them.
        datasets: names as `load_dataset` takes them.
        reference: the dataset that the others are held against: ImageNet in the paper, a mixture here.
        split: of all datasets.
        limit: at most so many images of each, chosen at random, the same every time; 0 for all.
        batch_size, workers, on_error: see `encode_dataset`.
        device: where to compute; by default the GPU if there is one, else the CPU.

    Raises:
        ResidualError: no encoder, an unknown one, one named twice, or a negative limit.
    """

    out: Path
    encoders: tuple[str, ...]
    datasets: tuple[str, ...]
    reference: str
    split: str = "train"
    limit: int = 0
    batch_size: int = 64
    workers: int | None = None
    on_error: str = "raise"
    device: str | None = None

    def __post_init__(self):
        if not self.encoders:
            raise ResidualError("An experiment needs at least one encoder.")
        for names in (self.encoders, (self.reference, *self.datasets)):
            if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
                raise ResidualError(f"Named twice: {', '.join(twice)}.")
        for name in self.encoders:
            check_encoder_name(name)
        if self.limit < 0:
            raise ResidualError(f"The limit is a number of images, or 0 for all; got {self.limit}.")

    def dataset(self, name: str, split: str | None = None) -> ImageDataset:
        """A dataset, by default of the plan's split, cut to the limit."""
        dataset = load_dataset(name, split or self.split)
        return dataset.sample(self.limit) if self.limit else dataset


class Work:
    """One encoder at work on a plan: it is loaded when first needed, and so are stores.

    Args:
        plan: what it works on.
        name: of the encoder.
        progress: told of every batch.
    """

    def __init__(self, plan: Plan, name: str, progress: Progress):
        self.plan, self.name, self.progress = plan, name, progress
        self.dataset = lru_cache(maxsize=None)(plan.dataset)
        self.store = lru_cache(maxsize=4)(self._store)  # the reference, and those at hand

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder."""
        return load_encoder(self.name, device=self.plan.device)

    def stage(self, what: str) -> Progress:
        """Progress of one stage."""
        return named(self.progress, f"{self.name}: {what}")

    def encoding(self, pooling: str = "own", kinds: tuple[str, ...] = KINDS) -> Encoding:
        """How images are encoded."""
        plan = self.plan
        return Encoding(pooling, kinds, plan.batch_size, plan.workers, plan.on_error)

    def identity(self, name: str, split: str | None = None) -> dict[str, Any]:
        """What the coordinates of a dataset are of: encoder, and dataset by checksum."""
        whole = identity_of(self.encoder, self.dataset(name, split), "own", KINDS, "float16")
        dataset = {key: whole["dataset"][key] for key in ("name", "split", "samples", "checksum")}
        return {"encoder": whole["encoder"], "dataset": dataset}

    def _store(self, name: str, pooling: str = "own", split: str | None = None) -> ResidualStore:
        """A dataset's coordinates, encoded now or before."""
        plan, settings = self.plan, self.encoding(pooling)
        about = [
            name,
            split or plan.split,
            *([str(plan.limit)] if plan.limit else []),
            *([pooling] if pooling != "own" else []),
        ]
        place = store_path(plan.out / "stores", self.name, *about)
        return encode_dataset(
            self.encoder,
            self.dataset(name, split),
            place,
            progress=self.stage(f"encode {name}"),
            **vars(settings),
        )
