"""Fit the units' bases from stores of coordinates, in one pass over the small coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from residual.errors import ResidualError
from residual.spectral.bases import Origin, SpectralBases
from residual.spectral.pca import PCA, IncrementalPCA
from residual.store.base import Store
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.units import units_of


def fit_bases(store: Store | Sequence[Store], kinds: Sequence[str] = ("head",)) -> SpectralBases:
    """Principal bases of the contributions of all units of these kinds.

    Equal to `pca(store.contributions(units=[unit])[:, 0])` for each unit, from one pass over the coordinates:
    a head's from the covariance of its `h + 2` features and its fixed map (see `Linearization`), whatever is
    no narrower than the output from the covariance of its contribution.

    Args:
        store: coordinates; several stores of one encoder count as one.
        kinds: "head", "mlp", "emb".

    Raises:
        ResidualError: an unknown kind, stores of different encoders, or fewer than two samples.
    """
    stores = list(store) if isinstance(store, Sequence) else [store]
    if not stores:
        raise ResidualError("Bases need at least one store, got none.")
    first = stores[0]
    for other in stores[1:]:
        if (other.fingerprint, other.split) != (first.fingerprint, first.split):
            raise ResidualError(
                f"Stores of different encoders can't share bases: {first.dataset} is of {first.encoder_name} "
                f"(split {first.split!r}), {other.dataset} of {other.encoder_name} (split {other.split!r})."
            )
    linearization = first.linearization
    chosen = units_of(linearization.units, kinds)
    moments = [_Moments(linearization, unit, unit in chosen) for unit in linearization.units["unit"].tolist()]
    for part in stores:
        for batch in part.batches():
            for seen in moments:
                seen.update(batch)
    fitted = [moments[unit].compute() for unit in chosen]
    return SpectralBases(
        units=chosen,
        means=torch.stack([basis.mean for basis in fitted]),
        components=[basis.components for basis in fitted],
        eigenvalues=[basis.eigenvalues for basis in fitted],
        all_means=torch.stack([seen.mean() for seen in moments]),
        origin=Origin(
            encoder_name=first.encoder_name,
            fingerprint=first.fingerprint,
            split=first.split,
            datasets=tuple(part.dataset for part in stores),
            samples=sum(len(part) for part in stores),
        ),
    )


class _Moments:
    """Running moments of one unit: of its features where those are narrower than the output, else of its
    contribution; where only its mean is wanted, no more than that is kept.
    """

    def __init__(self, linearization: Linearization, unit: int, whole: bool):
        self.linearization, self.unit, self.whole = linearization, unit, whole
        self.matrix, self.offset = linearization.matrix(unit), linearization.offset(unit)
        self.narrow = self.matrix.shape[0] < self.matrix.shape[1]
        self.moments = IncrementalPCA(min(self.matrix.shape) if whole else 0)
        self.total = torch.zeros(self.matrix.shape[0], dtype=torch.float64)
        self.count = 0

    def update(self, batch: Coordinates) -> None:
        features = self.linearization.features(batch, self.unit).double()
        self.total += features.sum(dim=0)
        self.count += len(features)
        if self.whole:
            self.moments.update(features if self.narrow else features @ self.matrix + self.offset)

    def mean(self) -> Tensor:
        return self.total / self.count @ self.matrix + self.offset

    def compute(self) -> PCA:
        return (
            self.moments.compute_affine(self.matrix, self.offset) if self.narrow else self.moments.compute()
        )
