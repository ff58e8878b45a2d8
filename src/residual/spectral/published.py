"""How alike a unit is on two datasets, seen from its own contributions to anchors: as published.

`relative` in `similarity` sees means of units from outputs of the encoder; here a unit is seen from itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.devices import find_device
from residual.errors import ResidualError
from residual.finite import check_finite
from residual.progress import Progress
from residual.spectral.similarity import mean_correlation, mean_cosine
from residual.store.base import Store
from residual.tracing.units import UnitsLike

PUBLISHED = {
    "published_relative_cosine": "cosine of relative means, as published",
    "published_relative_correlation": "correlation of relative means, as published",
}
ANCHORS = 100


def published_similarity(
    a: Store,
    b: Store,
    units: UnitsLike,
    anchors: int = ANCHORS,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Relative similarities of units on two datasets, over all samples of both, as the published code does.

    With `x_n` and `y_m` a unit's contributions on the two and `A` those on the anchors, a row each, and a hat
    for rows less their own mean, at length 1:

        cosine      |cos(mean_n x̂_n Âᵀ, mean_m ŷ_m Âᵀ)|
        correlation |corr(mean_n x_n Aᵀ, mean_m y_m Aᵀ)|    over the anchors

    Contributions are never made: a unit's are affine in its few features.

    Args:
        a: coordinates; anchors are samples of these.
        b: others of the same encoder; those of `a` again give 1.
        units: which, see `Units.checked`; a row each, by position.
        anchors: how many samples of `a`, at random; all if there are fewer.
        seed: of their choice.
        device: where to compute; by default the GPU if there is one, else the CPU.
        progress: told of the units that are done.

    Returns:
        One row a unit: `unit` and the columns of `PUBLISHED`.

    Raises:
        ResidualError: a store with several tokens an image, or one that holds NaN.
    """
    where, units = find_device(device), sorted(set(a.linearization.units.checked(units)))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(a))[:anchors])
    rows = []
    parts = (
        _features(store, units, samples, where) for store, samples in ((a, None), (b, None), (a, chosen))
    )
    for unit, *features in zip(units, *parts, strict=True):
        matrix, root = (each(unit).to(where) for each in (a.linearization.matrix, a.linearization.root))
        offset = a.linearization.offset(unit).to(where)
        x, y, rows_of_anchors = (_at_length_1(each, root) for each in features)
        directions = [each.mean(0) @ matrix for each in (x, y)]
        centred = rows_of_anchors @ matrix
        whole = features[2] @ matrix + offset
        means = [each.mean(0) @ matrix + offset for each in features[:2]]
        rows.append(
            {
                "unit": unit,
                "published_relative_cosine": abs(mean_cosine(*(each @ centred.T for each in directions))),
                "published_relative_correlation": abs(mean_correlation(*(each @ whole.T for each in means))),
            }
        )
        if progress is not None:
            progress("compare units", len(rows), len(units))
    return pd.DataFrame(rows)


def _features(
    store: Store, units: Sequence[int], samples: np.ndarray | None, device: torch.device
) -> Iterator[Float[Tensor, "n f"]]:
    """Of one unit after the other, in float64; a layer is read at once."""
    table = store.units.iloc[list(units)]
    for _, group in table.groupby(["kind", "layer"], sort=False, dropna=False):
        own = group["unit"].tolist()
        read = store.coordinates_of(own, samples)
        if read.mean.ndim > 1:
            raise ResidualError(f"{store.dataset} keeps several tokens an image: encode it with one.")
        read = replace(read, mean=read.mean.to(device, torch.float64), std=read.std.to(device, torch.float64))
        for unit in own:
            yield check_finite(store.linearization.features(read, unit), f"Coordinates of {store.dataset}")


def _at_length_1(features: Tensor, root: Tensor) -> Tensor:
    """Less their mean, and so that what they stand for has length 1: `root` keeps lengths."""
    moved = features - features.mean(0)
    lengths = (moved @ root).norm(dim=1, keepdim=True)
    return moved / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)
