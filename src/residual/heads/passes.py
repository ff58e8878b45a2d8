"""Samples of a store, a batch at a time, as scores of units and accuracies of selections need them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError
from residual.progress import Progress
from residual.store.base import Store
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization

ROWS = 1024  # read at a time


def batches_of(
    store: Store, device: torch.device, progress: Progress | None, rows: int = ROWS
) -> Iterator[tuple[slice, Coordinates]]:
    """The store's samples in order, on the device, and where they are in it.

    Raises:
        ResidualError: the store keeps several tokens an image.
    """
    start = 0
    for batch in store.batches(min(rows, ROWS)):
        check_one_token(store, batch)
        where = slice(start, start + len(batch))
        start = where.stop
        yield where, batch.to(device)
        if progress is not None:
            progress("read store", start, len(store))


def check_one_token(store: Store, batch: Coordinates) -> None:
    """Refuse a store that keeps several tokens an image."""
    if batch.mean.ndim > 1 and not store.linearization.units.pool_mlp:
        raise ResidualError(
            f"{store.dataset} was encoded with pooling {store.pooling!r}, several tokens an image, and "
            "labels and pictures belong to images: encode it with one token."
        )


def exact_features(linearization: Linearization, batch: Coordinates, unit: int) -> Float[Tensor, "n f"]:
    """The same as `linearization.features`, in float64."""
    exact = replace(batch, mean=batch.mean.double(), std=batch.std.double())
    return linearization.features(exact, unit)
