"""Fit the units' bases from stores of coordinates, in one pass over the small coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from residual.devices import find_device
from residual.errors import ResidualError
from residual.progress import Progress
from residual.spectral.bases import SpectralBases
from residual.spectral.pca import PCA, IncrementalPCA
from residual.spectral.unit_moments import UnitMoments
from residual.store.base import Store

_ROWS = 512  # read at a time


def fit_bases(
    store: Store | Sequence[Store],
    kinds: Sequence[str] = ("head",),
    *,
    device: str | torch.device | None = None,
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
        progress: called with the number of samples done and their total.

    Raises:
        ResidualError: an unknown kind or one that isn't kept, stores of different encoders, or fewer than two
            samples.
    """
    stores = _stores(store)
    moments = UnitMoments.of_store(stores[0], kinds, find_device(device))
    for other in stores[1:]:
        moments.add_store(other)
    total, done = sum(map(len, stores)), 0
    for batch in (batch for part in stores for batch in part.batches(_ROWS)):
        moments.update(batch)
        done += len(batch)
        if progress is not None:
            progress("fit bases", done, total)
    return moments.compute()


def fit_output(store: Store | Sequence[Store], *, progress: Progress | None = None) -> PCA:
    """Principal components of the encoder's own output, from one pass; what `SpectralMap` re-weights.

    Raises:
        ResidualError: as `fit_bases`; or a kind of unit isn't kept in the store.
    """
    stores = _stores(store)
    moments, total, done = IncrementalPCA(stores[0].linearization.output_dim), sum(map(len, stores)), 0
    for part in stores:
        for batch in part.batches(_ROWS):
            moments.update(part.linearization.output(batch).flatten(0, -2))
            done += len(batch)
            if progress is not None:
                progress("fit bases", done, total)
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
    side, start = torch.randperm(len(store), generator=torch.Generator().manual_seed(seed)) % 2, 0
    for batch in store.batches(_ROWS):
        here, start = side[start : start + len(batch)], start + len(batch)
        for number, moments in enumerate(halves):
            moments.update(batch[(here == number).nonzero()[:, 0]])
    return halves[0].compute(), halves[1].compute()


def _stores(store: Store | Sequence[Store]) -> list[Store]:
    stores = list(store) if isinstance(store, Sequence) else [store]
    if not stores:
        raise ResidualError("Bases need at least one store, got none.")
    return stores
