"""How the contributions of every unit are shaped: their dimension by spectrum and by neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.devices import find_device
from residual.errors import ResidualError
from residual.progress import Progress
from residual.read_ahead import ahead
from residual.settings import PAPER, check_settings, setting
from residual.spectral.dimension import TwoNN, linear_dimension, two_nn_scales
from residual.spectral.pca import PCA, components_of
from residual.store.base import Store

MEASURES = {
    "linear_dimension": "linear dimension",
    "two_nn": "TwoNN dimension",
    "linear_over_two_nn": "linear / TwoNN",
    "first_explained_variance_ratio": "first explained variance ratio",
    "participation_ratio": "participation ratio",
}

_LAST_BITS = 2.0**-22  # of float32, of a number: what one picture differs by from batch to batch
_IMAGES = 8  # where tokens are samples, times as many images are read as would do, so that few come from one


@dataclass(frozen=True)
class GeometrySettings:
    """How units are measured; the defaults are the paper's, where it has any.

    Args:
        threshold: part of the variance, of the linear dimension.
        fraction: of the ratios that TwoNN fits.
        level: of confidence of its interval.
        samples: at most so many, chosen by `seed`; where several tokens are kept, each is one.
        halvings: how often TwoNN is repeated on half of the samples before (see `two_nn_scales`).
        seed: of the choice of samples, and of the parts.

    Raises:
        ResidualError: one is out of range.
    """

    threshold: float = setting(0.99, above=0, below=1, source=PAPER)
    fraction: float = setting(0.9, above=0, most=1, source=PAPER)
    level: float = setting(0.95, above=0, below=1)
    samples: int = setting(50_000, least=3, source=PAPER)
    halvings: int = setting(3, least=0, most=30)
    seed: int = setting(0, least=0)

    def __post_init__(self):
        check_settings(self)


def unit_geometry(
    store: Store,
    kinds: Sequence[str] | None = None,
    settings: GeometrySettings | None = None,
    *,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Measures of the contributions of every unit of these kinds.

    A unit's contributions are never made where its coordinates are fewer: those are mapped so that variances
    and distances stay (`Linearization.root`).

    Args:
        store: coordinates.
        kinds: "head", "mlp", "emb"; by default all that the store keeps.
        settings: by default the paper's.
        device: where to compute; by default the GPU if there is one, else the CPU.
        progress: called with the number of units done and their total.

    Returns:
        The table of units with the columns of `MEASURES`; `two_nn_low` and `two_nn_high`, its interval;
        `two_nn_2`, `two_nn_4`, …, the same from a half, a quarter, … of the samples; and `samples` and
        `dropped`, how many TwoNN used and left out, as duplicates (pictures that come twice) or otherwise
        (`two_nn`). NaN where a unit is the same for (nearly) all samples.

    Raises:
        ResidualError: an unknown kind or one that isn't kept, fewer than three samples, NaN or infinity.
    """
    settings = settings or GeometrySettings()
    chosen = store.units.iloc[store.linearization.units.positions(store.kinds if kinds is None else kinds)]
    if missing := [kind for kind in chosen["kind"].unique() if kind not in store.kinds]:
        raise ResidualError(
            f"The store holds no units of kind {', '.join(missing)}, only {', '.join(store.kinds)}."
        )
    if len(store) < 3:
        raise ResidualError(f"Shapes can be measured of at least 3 samples; the store has {len(store)}.")
    where, rows = find_device(device), []
    for samples, size in _unit_samples(store, chosen, settings, where):
        rows.append(_measured(samples, size, settings))
        if progress is not None:
            progress("measure", len(rows), len(chosen))
    return pd.concat([chosen.reset_index(drop=True), pd.DataFrame(rows)], axis=1)


def _unit_samples(
    store: Store, chosen: pd.DataFrame, settings: GeometrySettings, device: torch.device
) -> Iterator[tuple[Float[Tensor, "m r"], float]]:
    """Of every unit what stands for its contributions, and how large these are; a layer is read at once."""
    groups = [
        group["unit"].tolist() for _, group in chosen.groupby(["kind", "layer"], sort=False, dropna=False)
    ]
    random, linearization = np.random.default_rng(settings.seed), store.linearization
    first = store.coordinates_of(groups[0], slice(0, 1))
    tokens = 1 if linearization.attends else first.mean.numel()
    images = settings.samples if tokens == 1 else math.ceil(_IMAGES * settings.samples / tokens)
    samples = _some(random, len(store), images)
    kept = torch.from_numpy(_some(random, tokens * len(samples), settings.samples)).to(device)
    read = ahead(lambda units: store.coordinates_of(units, samples), groups)
    for units, coordinates in zip(groups, read, strict=True):
        exact = replace(
            coordinates,
            mean=coordinates.mean.to(device, torch.float64),
            std=coordinates.std.to(device, torch.float64),
        )
        for unit in units:
            features = linearization.features(exact, unit).flatten(0, -2)
            features = features[kept] if len(kept) < len(features) else features
            if not features.isfinite().all():
                raise ResidualError(f"The store holds NaN or infinity in unit {unit}: encode it again.")
            root = linearization.root(unit).to(device)
            # Seen from one of them, what all have in common is zero, where a sum would leave its rounding.
            yield (features - features[:1]) @ root, (features @ root).norm(dim=1).max().item()


def _some(random: np.random.Generator, count: int, most: int) -> np.ndarray:
    return np.sort(random.permutation(count)[:most])


def _measured(samples: Float[Tensor, "m r"], size: float, settings: GeometrySettings) -> dict[str, Any]:
    spectrum = _spectrum(samples)
    linear = linear_dimension(spectrum, settings.threshold)
    scales = _two_nn(samples, _LAST_BITS * size, settings) if linear else []
    own = scales[0] if scales else TwoNN(math.nan, math.nan, math.nan, 0, len(samples), math.nan)
    row = {
        "linear_dimension": linear,
        "two_nn": own.dimension,
        "two_nn_low": own.low,
        "two_nn_high": own.high,
        "linear_over_two_nn": linear / own.dimension,
        "first_explained_variance_ratio": spectrum.explained_variance_ratio[0].item() if linear else math.nan,
        "participation_ratio": spectrum.participation_ratio if linear else math.nan,
    }
    for times in range(1, settings.halvings + 1):
        row[f"two_nn_{2**times}"] = scales[times].dimension if times < len(scales) else math.nan
    return {**row, "samples": own.samples, "dropped": own.dropped}


def _two_nn(samples: Float[Tensor, "m r"], resolution: float, settings: GeometrySettings) -> list[TwoNN]:
    how = settings.fraction, settings.level, settings.halvings
    try:
        return two_nn_scales(samples, *how, seed=settings.seed, resolution=resolution)
    except ResidualError:  # nearly all samples are duplicates, or lie on a grid
        return []


def _spectrum(samples: Float[Tensor, "m r"]) -> PCA:
    mean = samples.mean(0)
    centred = samples - mean
    return components_of(mean.cpu(), (centred.T @ centred).cpu() / (len(samples) - 1))
