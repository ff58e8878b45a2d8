"""An adapted encoder on a dataset: its accuracy beside that of the encoder alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from residual.adapters.adapted_encoder import AdaptedEncoder
from residual.data import ImageDataset, as_dataset, load_dataset
from residual.data.load import dataset_name
from residual.encoders.names import encoder_name
from residual.errors import ResidualError, SharedSamplesWarning, told_apart
from residual.files import shareable
from residual.finite import correct
from residual.progress import Progress
from residual.store.encoding import Encoding
from residual.store.reading import read_pixels
from residual.workflows.outcome import compared
from residual.workflows.task import versions


@dataclass(frozen=True)
class Evaluation:
    """`logits (n, c)`, `labels (n,)`, `sample_ids`, and `summary` for JSON."""

    logits: Tensor
    labels: np.ndarray
    sample_ids: tuple[str, ...]
    summary: dict[str, Any]


def evaluate_adapter(
    adapter: str,
    dataset: str,
    split: str = "test",
    batch_size: int = 64,
    on_error: str = "raise",
    *,
    encoder: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run an adapter that was kept over a split of a dataset; see `evaluate_encoder`.

    Args:
        adapter: a folder or a repository, as `AdaptedEncoder.from_pretrained` takes it.
        dataset, split: as `load_dataset` takes them.
        batch_size, on_error: see `encode_dataset`.
        encoder: its name, where the adapter's isn't one that the library lists, or isn't the right one.
        device: where to compute.
        progress: told of every batch.

    Raises:
        ResidualError: see `load_dataset`, `AdaptedEncoder.from_pretrained` and `evaluate_encoder`.
    """
    dataset = dataset_name(dataset)
    if encoder is not None:
        encoder = encoder_name(encoder)
    images = load_dataset(dataset, split)
    adapted = AdaptedEncoder.from_pretrained(adapter, encoder, device)
    return evaluate_encoder(adapted, images, batch_size, on_error, progress)


def evaluate_encoder(
    adapted: AdaptedEncoder,
    dataset: Any,
    batch_size: int = 64,
    on_error: str = "raise",
    progress: Progress | None = None,
    *,
    labels: Iterable[Any] | None = None,
) -> Evaluation:
    """Run an adapted encoder over pictures of its classes.

    Args:
        adapted: with a classifier.
        dataset: a dataset, or pictures as `as_dataset` takes them; those that name no classes are of the
            adapter's, which numbers stand for.
        batch_size, on_error: see `encode_dataset`.
        progress: told of every batch.
        labels: of pictures that have none, see `as_dataset`.

    The summary holds `encoder, method, dataset, split, samples, accuracy` (of the adapted encoder;
    "zero_shot" of the one that it was made of, by the same classifier, but for a fine-tuned one, whose
    original isn't there), `standard_error` of both (of the choice of pictures), `over_pictures` and `best`
    (see `compared`), `per_class`, `skipped` and `versions`.

    A `SharedSamplesWarning` tells of pictures that the adapter was trained on, or chosen by.

    Raises:
        ResidualError: no classifier, other classes than the dataset's, no picture, one that can't be read, or
            logits that aren't finite.
    """
    classifier = adapted.classifier
    if classifier is None:
        raise ResidualError(f"{adapted.name} has no classifier: make one with it to measure its accuracy.")
    dataset = as_dataset(dataset, labels=labels, unnamed=adapted.class_names)
    if tuple(dataset.class_names) != adapted.class_names:
        ours, theirs = (", ".join(names[:4]) for names in (adapted.class_names, tuple(dataset.class_names)))
        raise ResidualError(
            f"The adapter tells {len(adapted.class_names)} classes apart ({ours}, …), and "
            f"{dataset.full_name} has {len(dataset.class_names)} ({theirs}, …): they must be the same, in "
            "the same order."
        )
    _warn_of_seen(adapted, dataset)
    method, tuned = adapted.method, adapted.original is not None
    settings = Encoding("own", ("head",), batch_size, None, on_error)
    kept: list[int] = []
    skipped: list[int] = []
    logits, plain = [], []
    with torch.inference_mode():
        batches = settings.batches(range(len(dataset)))
        for read in read_pixels(adapted.encoder, dataset, batches, None, on_error == "skip"):
            kept += read.positions
            skipped += list(read.skipped)
            for pixels in read.pixels:
                logits.append(adapted(pixels, logits=True).float().cpu())
                if not tuned:
                    output = adapted.encoder.tower("image").encode(
                        adapted.module, adapted.encoder.checked_pixels(pixels)
                    )
                    plain.append(classifier.logits(output.float().cpu()))
            if progress is not None:
                progress("evaluate", len(kept) + len(skipped), len(dataset))
    if not kept:
        raise ResidualError(f"None of the {len(dataset)} images of {dataset.full_name} can be read.")
    labels = np.asarray(dataset.labels, dtype=np.int64)[kept]
    whole, truth = torch.cat(logits), torch.from_numpy(labels)
    hits = {} if tuned else {"zero_shot": correct(torch.cat(plain), truth).numpy()}
    hits[method] = correct(whole, truth).numpy()
    summary = {
        "encoder": shareable(adapted.name),
        "method": method,
        "dataset": shareable(dataset.name),
        "split": dataset.split,
        **counted(hits, labels, adapted.class_names),
        "skipped": [dataset.sample_ids[position] for position in skipped],
        "versions": versions(),
    }
    return Evaluation(whole, labels, tuple(dataset.sample_ids[position] for position in kept), summary)


def counted(
    hits: Mapping[str, Bool[np.ndarray, " n"]], labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """What a summary tells of what each method has right: `samples`, `accuracy`, `standard_error`, what
    `compared` gives, and `per_class` of the last method.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    right = np.bincount(labels, [*hits.values()][-1], len(class_names)) / np.maximum(counts, 1)
    return {
        "samples": len(labels),
        "accuracy": {name: float(each.mean()) for name, each in hits.items()},
        "standard_error": {
            name: math.sqrt(each.mean() * (1 - each.mean()) / len(each)) for name, each in hits.items()
        },
        **compared({name: each.astype(np.float64) for name, each in hits.items()}),
        "per_class": {
            name: {"samples": int(n), "accuracy": float(share)}
            for name, n, share in zip(told_apart(class_names), counts, right, strict=True)
            if n
        },
    }


def _warn_of_seen(adapted: AdaptedEncoder, dataset: ImageDataset) -> None:
    """As far as names tell, which is all that an adapter keeps of its pictures."""
    did = {"train": "trained on", "val": "chosen by (its epoch and seed)"}.get(dataset.split)
    trained_on = "" if adapted.record is None else shareable(adapted.record.dataset)
    if did and trained_on == shareable(dataset.name):
        warnings.warn(
            f"{dataset.shared_name} is what the adapter was {did}: accuracy there tells nothing of other "
            "pictures.",
            SharedSamplesWarning,
            stacklevel=3,
        )
