"""What an experiment goes over: encoders, datasets, how they are read, and where results go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from residual.adapters.matching import check_every_class
from residual.data import ImageDataset, load_dataset
from residual.data.load import dataset_name
from residual.encoders.encoder import Encoder
from residual.encoders.load import load_encoder
from residual.encoders.names import encoder_name
from residual.errors import ResidualError
from residual.executors import Executor
from residual.files import read_regular
from residual.progress import Progress, named
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset, store_path
from residual.store.encoding import Allowance, Encoding
from residual.store.manifest import identity_of
from residual.tensor_files import MOST_BYTES
from residual.tracing.units import KINDS

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """Which cells there are, and how their images are read.

    Args:
        out: the folder of all results: a folder for each experiment, and `stores` that they share.
        stores: where these are instead, a folder or an address.
        encoders: names as `load_encoder` takes them.
        datasets: names as `load_dataset` takes them.
        reference: the dataset that the others are held against: ImageNet in the paper, a mixture here. It may
            be one of them.
        split: of all datasets.
        limit: at most so many images of each, chosen at random, the same every time; 0 for all.
        reference_limit: the same of the reference alone, the sample that bases are of.
        task_limit: the same of every split of the other datasets. Of two limits the lower counts.
        stream: fetch pictures of the hub while they are read, see `load_dataset`; each encoder does it anew.
        batch_size, workers, decode, on_error: see `encode_dataset`.
        most_skipped, most_skipped_share: how many images of a split may be left out, see `Allowance`.
        device: where to compute; by default the GPU if there is one, else the CPU.

    Raises:
        ResidualError: no encoder, an unknown name, one that comes twice, or a number out of range.
    """

    out: Path
    encoders: tuple[str, ...]
    datasets: tuple[str, ...]
    reference: str
    split: str = "train"
    limit: int = 0
    reference_limit: int = 0
    task_limit: int = 0
    stream: bool = False
    batch_size: int = 64
    workers: int | None = None
    decode: str = "auto"
    on_error: str = "skip"
    most_skipped: int = 100
    most_skipped_share: float | int = 0.01
    device: str | None = None
    stores: str | Path | None = None

    def __post_init__(self):
        if not self.encoders:
            raise ResidualError("An experiment needs at least one encoder.")
        object.__setattr__(self, "reference", dataset_name(self.reference))
        object.__setattr__(self, "encoders", tuple(map(encoder_name, self.encoders)))
        object.__setattr__(self, "datasets", tuple(map(dataset_name, self.datasets)))
        for names in (self.encoders, self.datasets):
            if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
                raise ResidualError(f"Named twice: {', '.join(twice)}.")
        if (least := min(self.limit, self.reference_limit, self.task_limit)) < 0:
            raise ResidualError(f"The limit is a number of images, or 0 for all; got {least}.")
        self.allowance  # noqa: B018 (says what is out of range)

    def limit_of(self, name: str) -> int:
        """At most how many images of each split of a dataset; 0 for all."""
        own = self.reference_limit if name == self.reference else self.task_limit
        return min(filter(None, (self.limit, own)), default=0)

    def limits_of(self, names: Collection[str]) -> dict[str, int]:
        """As results of some datasets note them: one, or two where the reference among them has another."""
        limits = {name == self.reference: self.limit_of(name) for name in names}
        own, tasks = limits.get(True), limits.get(False)
        if tasks is None:
            return {"limit": own or 0}
        return {"limit": tasks} | ({} if own in (None, tasks) else {"reference_limit": own})

    def dataset(self, name: str, split: str | None = None, every_class: bool = False) -> ImageDataset:
        """A dataset, by default of the plan's split, cut to its limit; `every_class` as `sample` takes it."""
        dataset, limit = load_dataset(name, split or self.split, stream=self.stream), self.limit_of(name)
        return dataset.sample(limit, every_class=every_class) if limit else dataset

    @property
    def place_of_stores(self) -> str | Path:
        """The folder or the address that stores are in."""
        return self.out / "stores" if self.stores is None else self.stores

    @property
    def allowance(self) -> Allowance:
        """How many images of a split may be left out."""
        return Allowance(self.most_skipped_share, self.most_skipped)


class Work:
    """One encoder at work on a plan: it is loaded when first needed, and so are stores.

    Args:
        plan: what it works on.
        name: of the encoder.
        progress: told of every batch.
        dtype: of the encoder, see `load_encoder`.
    """

    def __init__(self, plan: Plan, name: str, progress: Progress, dtype: torch.dtype | None = None):
        self.plan, self.name, self.progress, self.dtype = plan, name, progress, dtype
        # In place of the folder of results, what is read of it; stores are then encoded already.
        self.files: Mapping[Path, bytes] | None = None
        self.outputs: dict[Path, bytes] = {}  # files that a cell leaves in the folder of results
        self._made: dict[str, tuple[tuple[Any, ...], Any]] = {}
        self.dataset = lru_cache(maxsize=None)(self._dataset)
        self.identity = lru_cache(maxsize=None)(self._identity)
        self.store = lru_cache(maxsize=4)(self._store)  # the reference, and those at hand
        self.skipped: dict[str, tuple[str, ...]] = {}  # by dataset and split, ids of what can't be read

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder."""
        return load_encoder(self.name, device=self.plan.device, dtype=self.dtype)

    def _dataset(self, name: str, split: str | None = None) -> ImageDataset:
        """Pictures of a dataset; of every class, where class means stand for texts."""
        return self.plan.dataset(name, split, every_class=not self.encoder.has_text)

    def check_classes(self, name: str) -> None:
        """Find out before the long work whether a classifier of a dataset can be made.

        Raises:
            ResidualError: it can't: the limit leaves a class without pictures, and the encoder has no text.
        """
        check_every_class(self.encoder, self.dataset(name, "train"), self.plan.limit_of(name))

    def once(self, name: str, make: Callable[..., T], *of: Any) -> T:
        """`make(*of)`, which several cells need: made for the first of them, and of each name only the last
        is kept."""
        if name not in self._made or self._made[name][0] != of:
            self._made.pop(name, None)  # it isn't held while the next is made
            self._made[name] = of, make(*of)
        return self._made[name][1]

    def read(self, path: Path) -> bytes | None:
        """A file in the folder of results, or None where there is none.

        Raises:
            ResidualError: it can't be read.
        """
        if self.files is not None:
            return self.files.get(path)
        whole = self.plan.out / path
        try:
            return read_regular(whole, MOST_BYTES) if whole.is_file() else None
        except OSError as error:
            raise ResidualError(f"{whole} can't be read ({error.strerror}).") from error

    def stage(self, what: str) -> Progress:
        """Progress of one stage."""
        return named(self.progress, f"{self.name}: {what}")

    def encoding(self, pooling: str = "own", kinds: tuple[str, ...] = KINDS) -> Encoding:
        """How images are encoded."""
        plan = self.plan
        how = plan.batch_size, plan.workers, plan.on_error, plan.allowance, plan.decode
        return Encoding(pooling, kinds, *how)

    def _identity(self, name: str, split: str | None = None) -> dict[str, Any]:
        """What the coordinates of a dataset are of: encoder, and dataset by checksum."""
        whole = identity_of(self.encoder, self.dataset(name, split), "own", KINDS, "float16")
        dataset = {key: whole["dataset"][key] for key in ("name", "split", "samples", "checksum")}
        return {"encoder": whole["encoder"], "dataset": dataset}

    def place(self, name: str, pooling: str = "own", split: str | None = None) -> str | Path:
        """Where a dataset's coordinates are kept."""
        limit = self.plan.limit_of(name)
        about = [
            name,
            split or self.plan.split,
            *([str(limit)] if limit else []),
            *([pooling] if pooling != "own" else []),
        ]
        return store_path(self.plan.place_of_stores, self.name, *about)

    def encode(
        self, name: str, pooling: str = "own", split: str | None = None, executor: Executor | None = None
    ) -> ResidualStore:
        """A dataset's coordinates, encoded now or before: here, or by an executor."""
        return encode_dataset(
            self.encoder,
            self.dataset(name, split),
            self.place(name, pooling, split),
            progress=self.stage(f"encode {name}"),
            executor=executor,
            **vars(self.encoding(pooling)),
        )

    def _store(self, name: str, pooling: str = "own", split: str | None = None) -> ResidualStore:
        """A dataset's coordinates, encoded now or before."""
        if self.files is None:
            store = self.encode(name, pooling, split)
        else:
            store = ResidualStore.open(self.place(name, pooling, split))
        self.skipped[f"{name}/{split or self.plan.split}"] = store.skipped
        return store
