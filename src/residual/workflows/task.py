"""The steps of one task: encode a dataset's splits, take bases, fit an adapter, test it.

The encoder runs once over every picture. Bases come from pictures that need not be the task's own: by default
a mixed, unlabelled sample of the whole offline suite, which plays the part of ImageNet in the paper.
`Pictures` takes the steps one by one, `encode_task` and `reference_from` all at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from residual.adapters.adapter import Adapter
from residual.adapters.early_stopping import FitResult
from residual.adapters.fit import adapted_output, fit_many
from residual.adapters.fit_settings import FitSettings, TrainSettings
from residual.adapters.matching import check_every_class
from residual.adapters.methods import BASES_KINDS, METHODS, AdapterSettings, Reference, make_adapter
from residual.adapters.scores import compute_scores
from residual.data import SPLITS, ImageDataset, MixedDataset, hold_out, load_dataset, own_splits
from residual.data.layout import listed_once
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.executors import Executor
from residual.files import local_path, shareable
from residual.libraries import version_of
from residual.progress import Progress, named
from residual.spectral.bases import SpectralBases
from residual.store.base import Store
from residual.store.encode import encode_dataset, store_path
from residual.store.shared import Seen, check_apart
from residual.text.classifier import ZeroShotClassifier, check_class_names
from residual.tracing.linearization import Linearization
from residual.tracing.units import Units

MIXED = "mixed"


@dataclass(frozen=True)
class Task:
    """A dataset as an encoder sees it, and the frozen classifier of its classes.

    Args:
        name: of the dataset.
        stores: coordinates of "train", "val" and "test".
        datasets: the pictures themselves, for looking at.
        classifier: from class names and templates, or from class means where the encoder has no text tower.
        zero_shot: its accuracy on "test" without any adapter.
        seconds: of reading, encoding and classifying.
        released: the classifier as the code that was published with the paper has it, where that differs:
            class means are as long as they are.
        answers: the class that it gives each picture of "test".
    """

    name: str
    stores: Mapping[str, Store]
    datasets: Mapping[str, ImageDataset]
    classifier: ZeroShotClassifier
    zero_shot: float
    seconds: float
    released: ZeroShotClassifier | None = None
    answers: Int[np.ndarray, " _"] = field(default_factory=lambda: np.empty(0, np.int64), repr=False)

    def classifier_for(self, method: str) -> ZeroShotClassifier:
        """The one that a method is fitted and measured with."""
        own = METHODS[method].released and self.released
        return own or self.classifier

    @property
    def skipped(self) -> list[str]:
        """Ids of the pictures that could not be read."""
        return [sample for store in self.stores.values() for sample in store.skipped]


@dataclass(frozen=True)
class Adapted:
    """One fitted adapter: its accuracy on "test", its answers there, and how the fit went."""

    method: str
    seed: int
    adapter: Adapter
    accuracy: float
    result: FitResult = field(repr=False)
    answers: Int[np.ndarray, " _"] = field(repr=False)

    @property
    def weights(self) -> int:
        """How many were trained."""
        return self.adapter.weights.numel()


@dataclass(frozen=True)
class Pictures:
    """Pictures through an encoder: how they are read, and where their coordinates are kept.

    Args:
        encoder: with a text tower, or without (then the class means of the train outputs classify).
        batch_size: pictures at a time.
        on_error, decode: see `encode_dataset`.
        stores: a folder or an address that coordinates are kept in, and read from if they are there; None for
            memory.
        progress: told of every batch.
        limit: at most so many of each split that isn't a mixture, see `load_splits`; 0 for all.
        executor: where they are encoded, into `stores`; None for this process.
    """

    encoder: Encoder
    batch_size: int = 64
    on_error: str = "raise"
    stores: str | Path | None = None
    progress: Progress | None = None
    limit: int = 0
    executor: Executor | None = None
    decode: str = "auto"

    def encode(self, dataset: ImageDataset, stage: str, limit: int = 0) -> Store:
        """Coordinates of a dataset.

        Raises:
            ResidualError: see `encode_dataset`.
        """
        how: dict[str, Any] = {
            "batch_size": self.batch_size,
            "on_error": self.on_error,
            "decode": self.decode,
            "progress": named(self.progress, stage),
        }
        if self.stores is None:
            return encode_dataset(self.encoder, dataset, **how)
        about = [dataset.name, dataset.split, *([str(limit)] if limit else [])]
        path = store_path(self.stores, self.encoder.name, *about)
        return encode_dataset(self.encoder, dataset, path, executor=self.executor, **how)

    def splits(self, datasets: Mapping[str, ImageDataset]) -> dict[str, Store]:
        """Coordinates of every split of a dataset.

        Raises:
            ResidualError: see `encode_dataset`.
        """
        return {name: self.encode(each, f"encode {name}", self.limit) for name, each in datasets.items()}

    def of_bases(self, source: str = MIXED, per_dataset: int = 200) -> Store | Reference:
        """What principal components are taken of: see `reference_from`.

        Raises:
            ResidualError: nothing is known by that name, or the file's bases are of another encoder.
        """
        if source.endswith(".safetensors"):
            if not local_path(source).is_file():
                raise ResidualError(
                    f"No file of bases at {source!r}. Known: {MIXED!r}, a dataset, or such a file."
                )
            return _belonging(SpectralBases.load(local_path(source)), self.encoder, source)
        if source == MIXED:
            return self.encode(MixedDataset("train", per_dataset), "encode for bases")
        dataset = cut_to(self.limit, load_dataset(source, "train", stream=bool(self.limit)))
        return self.encode(dataset, "encode for bases", self.limit)


OwnData = Any  # pictures, or splits of them, as `residual.data.own_splits` takes them


def title_of(data: str | OwnData, splits: Mapping[str, ImageDataset]) -> str:
    """What a dataset is called: its whole name, or that it is the user's own."""
    return splits["train"].name if isinstance(data, str) else "own"


def cut_to(limit: int, dataset: ImageDataset) -> ImageDataset:
    """At most `limit` samples of a dataset, chosen at random, the same every time, as experiments choose
    them; where there is room for all classes, some of each. All of them for 0.

    Raises:
        ResidualError: a limit below 0.
    """
    return dataset.sample(limit, every_class=True) if limit else dataset


def load_splits(
    name: str | OwnData,
    encoder: Encoder,
    held_out: Sequence[str] = (),
    limit: int = 0,
    stream: bool = True,
    fits: Sequence[FitSettings | TrainSettings] = (),
) -> dict[str, ImageDataset]:
    """The three splits of a dataset, none of it decoded yet, with classes that a classifier can be made of.

    Args:
        name: as `load_dataset` takes it, or splits of your own.
        encoder: of the classifier.
        held_out: groups or patterns of sample ids that are val, see `hold_out`.
        limit: at most so many pictures of each split, as `cut_to` chooses them; 0 for all.
        stream: whether only these are fetched of the hub, each time that they are read.
        fits: what is fitted on train.

    Raises:
        ResidualError: see `load_dataset`, `check_class_names`, `hold_out` and `check_every_class`.
    """
    with listed_once():
        datasets = (
            {split: load_dataset(name, split, stream=stream and limit > 0) for split in SPLITS}
            if isinstance(name, str)
            else own_splits(name)
        )
    check_class_names(encoder, datasets["train"].class_names, datasets["train"].templates)
    cut = {split: cut_to(limit, each) for split, each in hold_out(datasets, held_out).items()}
    check_every_class(encoder, cut["train"], limit, fits)
    return cut


def make_task(
    encoder: Encoder,
    name: str,
    datasets: Mapping[str, ImageDataset],
    stores: Mapping[str, Store],
    seconds: float,
    progress: Progress | None = None,
) -> Task:
    """The task of splits that took `seconds` to encode: with a classifier, and its accuracy. `progress` is
    told of the prompts that are done.

    Raises:
        SharedSamplesError: more than a tenth of the test samples are in train or val, too.
        ResidualError: see `ZeroShotClassifier`.
    """
    start, train, test = time.perf_counter(), stores["train"], stores["test"]
    check_apart(Seen.of(train), Seen.of(test), "methods are fitted on")
    check_apart(Seen.of(stores["val"]), Seen.of(test), "epoch and seed are chosen by")
    output, classes = test.output(), datasets["train"]
    released = None
    if encoder.has_text:
        stage = named(progress, "embed classes")
        classifier = ZeroShotClassifier.from_text(
            encoder, classes.class_names, classes.templates, progress=stage
        )
    else:
        of = (train.output(), train.labels, classes.class_names)
        classifier, released = (
            ZeroShotClassifier.from_class_means(*of, fingerprint=train.fingerprint, normalized=normalized)
            for normalized in (True, False)
        )
    zero_shot, answers = classifier.accuracy(output, test.labels), classifier.answers(output).cpu().numpy()
    seconds += time.perf_counter() - start
    return Task(name, stores, datasets, classifier, zero_shot, seconds, released, answers)


def encode_task(
    encoder: Encoder,
    name: str | OwnData,
    batch_size: int = 64,
    on_error: str = "raise",
    progress: Progress | None = None,
    *,
    stores: str | Path | None = None,
    held_out: Sequence[str] = (),
    limit: int = 0,
) -> Task:
    """Encode the three splits of a dataset and make its classifier.

    Args:
        name: as `load_dataset` takes it, or splits of your own.
        held_out, limit: see `load_splits`.
        encoder, batch_size, on_error, progress, stores: see `Pictures`.

    Raises:
        ResidualError: see `load_dataset`, `encode_dataset` and `ZeroShotClassifier`.
    """
    start, datasets = time.perf_counter(), load_splits(name, encoder, held_out, limit)
    encoded = Pictures(encoder, batch_size, on_error, stores, progress, limit).splits(datasets)
    title, seconds = title_of(name, datasets), time.perf_counter() - start
    return make_task(encoder, title, datasets, encoded, seconds, progress)


def reference_from(
    encoder: Encoder,
    source: str = MIXED,
    per_dataset: int = 200,
    batch_size: int = 64,
    on_error: str = "raise",
    progress: Progress | None = None,
    *,
    stores: str | Path | None = None,
) -> Reference:
    """Principal components of all heads and MLPs of `encoder`, and of its output.

    Args:
        source: "mixed", `per_dataset` train pictures of each dataset of the offline suite, labels unused; a
            dataset as `load_dataset` takes it (its train pictures); or a file by `SpectralBases.save`.
        per_dataset: pictures of each dataset, for "mixed".
        encoder, batch_size, on_error, progress, stores: see `Pictures`.

    Raises:
        ResidualError: nothing is known by that name, or the file's bases are of another encoder.
    """
    pictures = Pictures(encoder, batch_size, on_error, stores, progress)
    return reference_of(pictures.of_bases(source, per_dataset), progress)


def reference_of(source: Store | Reference, progress: Progress | None = None) -> Reference:
    """The components of a store; those of a file are there already."""
    return source if isinstance(source, Reference) else Reference.of(source, progress=progress)


def task_summary(encoder: Encoder, task: Task) -> dict[str, Any]:
    """What there is to tell of a task, whatever is done with it, for JSON."""
    return {
        "encoder": shareable(encoder.name),
        "dataset": shareable(task.name),
        **{f"n_{split}": len(store) for split, store in task.stores.items()},
        "classes": len(task.classifier),
        "classifier": "text" if encoder.has_text else "class means",
        "notes": list(dict.fromkeys(note for each in task.datasets.values() for note in each.notes)),
        "skipped": task.skipped,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of what results depend on."""
    return {name: version_of(name) for name in ("residual-vit", "torch", "transformers")}


def adapt(
    task: Task,
    reference: Reference,
    method: str,
    fits: Sequence[FitSettings],
    settings: AdapterSettings | None = None,
    progress: Progress | None = None,
) -> list[Adapted]:
    """Fit one method on the train part, choose the epoch on val, measure on test; once for each of `fits`.

    Args:
        task: from `encode_task`.
        reference: from `reference_from`.
        method: "linear", "spectral", "coarse", "residual_star" (heads, 90 % of the variance, all else
            dropped) or "residual" (heads and MLPs, all components, the embedding kept); or with "_released"
            behind, see `residual.adapters.methods.released`.
        fits: of each fit, all at once; the seed also draws the first λ.
        settings: what is different from the paper in the adapters.
        progress: told of every epoch.

    Raises:
        ResidualError: an unknown method, or components that don't belong to the task's encoder.
    """
    adapters = [make_adapter(method, reference, settings, each.seed) for each in fits]
    scores = {
        split: compute_scores(adapters[0], store, progress=named(progress, f"score {split} for {method}"))
        for split, store in task.stores.items()
    }
    stage, classifier = f"fit {method}", task.classifier_for(method)
    given = (scores["train"], scores["val"], classifier)
    results = fit_many(adapters, *given, fits, named(progress, stage))
    if progress is not None:  # early stopping leaves the bar short
        longest = max(len(result.history) for result in results)
        progress(stage, longest, longest)
    test, labels = scores["test"], task.stores["test"].labels
    found = [
        classifier.to(test.scores.device).answers(adapted_output(each, test)).cpu().numpy()
        for each in adapters
    ]
    return [
        Adapted(method, each.seed, adapter, float((answers == labels).mean()), result, answers)
        for each, adapter, answers, result in zip(fits, adapters, found, results, strict=True)
    ]


def _belonging(bases: SpectralBases, encoder: Encoder, source: str) -> Reference:
    """The bases, if they are of this encoder and of all its heads and MLPs."""
    parts = encoder.parts
    if bases.origin is not None:
        bases.origin.check_encoder(encoder, f"The bases of {source!r}")
    units = Units(len(parts.blocks), parts.heads, parts.pool_mlp is not None)
    wanted = set(units.positions(BASES_KINDS))
    if not wanted <= set(bases.units):
        raise ResidualError(
            f"The bases of {source!r} must be of all {len(wanted)} heads and MLPs of {encoder.name}; "
            f"{len(wanted - set(bases.units))} are missing (fit_bases(store, kinds=('mlp', 'head')))."
        )
    linearization = Linearization.of(encoder)
    return Reference(bases, None, tuple(units.positions("head")), linearization=linearization)
