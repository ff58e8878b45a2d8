"""Samples in the space of their scores: all that training an adapter needs, computed once.

`o' = (S ⊙ λ) Φ + rest`. The scores come straight from a store's coordinates: a unit's features times one
small matrix; no `(n, u, d)` block is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residual.adapters.residual import ResiDual
from residual.store.base import Store
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization


@dataclass(frozen=True)
class Scores:
    """Scores of `n` samples on the `K` kept components of an adapter.

    Args:
        scores: `S`, of each sample's centred contributions.
        directions: `Φ`, the components.
        rest: what does not depend on λ: units left alone, tails.
        fingerprint: of the encoder.
    """

    scores: Float[Tensor, "n K"]
    directions: Float[Tensor, "K d"]
    rest: Float[Tensor, "n d"]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.scores)

    def output(self, lambdas: Float[Tensor, " K"]) -> Float[Tensor, "n d"]:
        """The adapter's output at these weights, for every sample."""
        return (self.scores * lambdas) @ self.directions + self.rest


def compute_scores(adapter: ResiDual, store: Store, batch_size: int = 1024) -> Scores:
    """Scores of all samples of `store` on the components that `adapter` keeps.

    Equal to what `adapter(store.contributions())` works with, in pieces of `batch_size` samples.

    Raises:
        ResidualError: the adapter's bases are of another encoder, another split, width or number of units.
    """
    check_origin(adapter, store)
    work = _Work(adapter, store.linearization)
    parts = [work.scores(batch) for batch in store.batches(batch_size)]
    scores = torch.cat([scores for scores, _ in parts])
    return Scores(
        scores=scores,
        directions=adapter.directions.detach().to(scores),
        rest=torch.cat([rest for _, rest in parts]),
        fingerprint=store.fingerprint,
    )


def check_origin(adapter: ResiDual, store: Store) -> None:
    """Refuse a store that the adapter's bases don't belong to."""
    adapter.bases.check_store(store)
    adapter.check_units(len(store.units), store.linearization.output_dim)


class _Work:
    """The small matrices that turn one unit's features into its scores, and some units' into the rest.

    A unit's scores are `(f M + o − m) Φᵀ = f (M Φᵀ) + (o − m) Φᵀ`.
    """

    def __init__(self, adapter: ResiDual, linearization: Linearization):
        self.linearization = linearization
        self.adapter = adapter
        self.n_units = len(linearization.units)
        directions = adapter.directions.detach().double().cpu()
        self.directions = directions
        self.maps = []
        for unit, mean, rows in zip(
            adapter.units, adapter.bases.means, directions.split(adapter.ranks), strict=True
        ):
            matrix, offset = linearization.matrix(unit), linearization.offset(unit)
            self.maps.append((unit, matrix @ rows.T, (offset - mean) @ rows.T))
        self.summed = list(adapter.units) if adapter.tail == "keep" else []
        self.constant = adapter.constant(self.n_units)
        if adapter.tail == "keep":
            self.constant = self.constant - adapter.bases.means.sum(dim=0)
        if adapter.others == "keep":
            self.summed += adapter.other_units(self.n_units)

    def scores(self, batch: Coordinates) -> tuple[Tensor, Tensor]:
        """Scores `(n, K)` and rest `(n, d)` of one batch."""
        like, features = batch.mean, self.linearization.features
        scores = torch.cat(
            [torch.addmm(o.to(like), features(batch, unit), m.to(like)) for unit, m, o in self.maps], dim=1
        )
        rest = self.constant.to(like).expand(len(batch), -1)
        for unit in self.summed:
            rest = rest + self.linearization.contributions(batch, [unit])[:, 0]
        if self.adapter.tail == "keep":
            rest = rest - scores @ self.directions.to(like)
        return scores, rest.contiguous()
