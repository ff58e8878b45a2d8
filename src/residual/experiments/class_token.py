"""Extra study: whether a head writes the same directions into the class token and into the patches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from residual.encoders.pooling import TokenPool
from residual.experiments.base import Experiment, Tables
from residual.experiments.plan import Work
from residual.experiments.similarity import KINDS, means_of_heads
from residual.report.figures import blocks_figure, grid_figure
from residual.spectral.fit import fit_bases, stream_moments
from residual.spectral.similarity import SIMILARITIES, SimilaritySettings, compare_bases

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ClassToken(Experiment):
    """Similarity of each head's basis at the class token with that over all patches of the same images."""

    folder = "class_token"
    settings_of = SimilaritySettings

    def measure(self, work: Work, cell: str) -> pd.DataFrame:
        """`compare_bases` of the two; patches are never stored, their moments are taken on the way."""
        pooled_by_class_token = isinstance(work.encoder.parts.pool, TokenPool)
        store = work.store(cell, "own" if pooled_by_class_token else "cls")
        encoding, told = work.encoding("patches", KINDS), work.stage(f"encode patches of {cell}")
        patches = stream_moments(work.encoder, work.dataset(cell), encoding, progress=told).compute()
        tokens = fit_bases(store, KINDS, device=work.plan.device)
        return store.units.merge(compare_bases(tokens, patches, self.settings.explained), on="unit")

    @staticmethod
    def figures(tables: Tables) -> Iterable[tuple[str, Figure]]:
        """Heads by layer: one row a dataset, and the first dataset by itself."""
        label = SIMILARITIES["spectral_cosine"]
        for encoder, rows in tables.items():
            values = {name: table.assign(value=table["spectral_cosine"]) for name, table in rows.items()}
            title = f"{encoder}: {label} of class token and patches"
            yield f"{encoder}-spectral_cosine", blocks_figure(values, label, title)
            first = next(iter(values))
            yield f"{encoder}-{first}", grid_figure(values[first], label, f"{title}, {first}")

    @staticmethod
    def summary(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, int | float]]:
        """Means over heads, and the heads that differ most and least."""
        return means_of_heads(tables)
