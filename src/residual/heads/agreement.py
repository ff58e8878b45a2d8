"""How units go along with the output, from one pass over a store in coordinates.

Correlations of a unit's contribution with the output follow from the covariances of its few features with
each other and with the output; the `(n, u, d)` block is never made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from residual.devices import find_device
from residual.errors import ResidualError
from residual.heads.contributions import mean_ratio
from residual.heads.passes import batches_of, exact_features
from residual.progress import Progress
from residual.store.base import Store
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization


@dataclass(frozen=True)
class Agreement:
    """Moments of some units' features and of the output, in disjoint parts of the samples.

    Args:
        linearization: of the encoder.
        units: their positions.
        counts: samples of each of `p` parts.
        sums: for each unit, of its features less `origin`.
        squares: for each unit, of products of those with each other.
        products: for each unit, of products of those with the output less `output_origin`.
        output: sums of that.
        output_squares: sums of products of that with itself.
        origin: for each unit its first features, so that little is lost to rounding.
        output_origin: the first output.
    """

    linearization: Linearization
    units: tuple[int, ...]
    counts: Int[Tensor, " p"]
    sums: list[Float[Tensor, "p _"]]
    squares: list[Float[Tensor, "p _ _"]]
    products: list[Float[Tensor, "p _ d"]]
    output: Float[Tensor, "p d"]
    output_squares: Float[Tensor, "p d d"]
    origin: list[Float[Tensor, " _"]]
    output_origin: Float[Tensor, " d"]

    def correlation(
        self, span: Float[Tensor, "d r"] | None = None, parts: Sequence[int] | None = None
    ) -> Float[Tensor, " u"]:
        """`unit_correlation` with the output, of the samples of some parts, by default of all.

        Args:
            span: orthonormal columns (`span_of`); None for the output's own coordinates.
            parts: which.
        """
        chosen = list(range(len(self.counts)) if parts is None else parts)
        n = int(self.counts[chosen].sum())
        if n < 2:
            raise ResidualError(f"A correlation needs at least 2 samples, got {n}.")

        def seen(rows: Tensor) -> Tensor:
            return rows if span is None else rows @ span.to(rows)

        total = self.output[chosen].sum(0) / n
        spread = self.output_squares[chosen].sum(0) / n - torch.outer(total, total)
        along = seen(seen(spread).T).diagonal()
        mean_along = seen(total + self.output_origin)
        found = []
        for place, unit in enumerate(self.units):
            matrix, offset = (
                part.to(total) for part in (self.linearization.matrix(unit), self.linearization.offset(unit))
            )
            matrix, mean = seen(matrix), self.sums[place][chosen].sum(0) / n  # (f, r), (f,)
            own = self.squares[place][chosen].sum(0) / n - torch.outer(mean, mean)
            both = seen(self.products[place][chosen].sum(0) / n - torch.outer(mean, total))
            variances = ((own @ matrix) * matrix).sum(0)
            means = (mean + self.origin[place]) @ matrix + seen(offset)
            found.append(mean_ratio((matrix * both).sum(0), (variances, along), (means, mean_along)))
        return torch.stack(found).cpu()


def agreement_of(
    store: Store,
    units: Sequence[int],
    parts: Int[np.ndarray, " n"] | None = None,
    *,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Agreement:
    """The moments from which correlations of units with the output follow.

    Args:
        store: with all kinds of unit, as their sum is the output.
        units: which to score.
        parts: which part each sample is in; by default all are in one.
        device: where to compute; by default the GPU if there is one, else the CPU.
        progress: called with the number of samples done and their total.
    """
    linearization, where = store.linearization, find_device(device)
    count = 1 if parts is None else int(parts.max()) + 1
    side = torch.zeros(len(store), dtype=torch.long) if parts is None else torch.from_numpy(parts)
    made: Agreement | None = None
    for rows, batch in batches_of(store, where, progress):
        output = linearization.output(batch.to(dtype=torch.float32)).double()
        here = side[rows].to(where)
        if made is None:
            made = _nothing_yet(linearization, units, count, batch, output)
        members = [(part, (here == part).nonzero()[:, 0]) for part in here.unique().tolist()]
        output = output - made.output_origin
        for part, who in members:
            own = output[who]
            made.counts[part] += len(who)
            made.output[part] += own.sum(0)
            made.output_squares[part].addmm_(own.T, own)
        for place, unit in enumerate(units):
            features = exact_features(linearization, batch, unit) - made.origin[place]
            for part, who in members:
                mine = features if len(members) == 1 else features[who]
                made.sums[place][part] += mine.sum(0)
                made.squares[place][part].addmm_(mine.T, mine)
                made.products[place][part].addmm_(mine.T, output if len(members) == 1 else output[who])
    if made is None:
        raise ResidualError("The store is empty: there is nothing to score units by.")
    return made


def mean_contributions(
    store: Store, *, device: str | torch.device | None = None, progress: Progress | None = None
) -> Float[Tensor, "u d"]:
    """Mean contribution of every unit that the store keeps; zero for the others. Float64, on the CPU."""
    linearization, where = store.linearization, find_device(device)
    held = [unit for unit, kind in enumerate(store.units["kind"]) if kind in store.kinds]
    sums: dict[int, Tensor] = {}
    for _, batch in batches_of(store, where, progress):
        for unit in held:
            own = exact_features(linearization, batch, unit).sum(0)
            sums[unit] = sums[unit] + own if unit in sums else own
    means = torch.zeros(len(store.units), linearization.output_dim, dtype=torch.float64)
    for unit, total in sums.items():
        means[unit] = total.cpu() / len(store) @ linearization.matrix(unit) + linearization.offset(unit)
    return means


def _nothing_yet(
    linearization: Linearization, units: Sequence[int], parts: int, batch: Coordinates, output: Tensor
) -> Agreement:
    origin = [exact_features(linearization, batch[:1], unit)[0] for unit in units]
    d = output.shape[1]

    def zeros(*shape: int) -> Tensor:
        return output.new_zeros(parts, *shape)

    return Agreement(
        linearization=linearization,
        units=tuple(units),
        counts=torch.zeros(parts, dtype=torch.long),
        sums=[zeros(len(own)) for own in origin],
        squares=[zeros(len(own), len(own)) for own in origin],
        products=[zeros(len(own), d) for own in origin],
        output=zeros(d),
        output_squares=zeros(d, d),
        origin=origin,
        output_origin=output[0].clone(),
    )
