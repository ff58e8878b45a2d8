"""Which heads keep their spectrum on another dataset (experiment 2), and from the class token to patches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from residual.encoders.pooling import TokenPool
from residual.errors import ResidualError
from residual.experiments.base import Experiment, Page, Tables
from residual.experiments.plan import Plan, Work
from residual.report import blocks_figure, grid_figure, layers_figure
from residual.spectral.bases import SpectralBases
from residual.spectral.fit import fit_bases, fit_halves, stream_moments
from residual.spectral.published import PUBLISHED, published_similarity
from residual.spectral.similarity import SIMILARITIES, SimilaritySettings, anchors_of, compare_bases

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("head",)
_DRAWN = ("spectral_cosine", "mean_cosine")
_SHOWN = SIMILARITIES["spectral_cosine"]


class Similarity(Experiment):
    """Similarity of each head's basis on the reference with that on every other dataset.

    The reference's own row compares the bases of two random halves of it: what falls short of 1 there is
    chance, not data.
    """

    folder = "2_similarity"
    settings_of = SimilaritySettings
    later = ("published_anchors",)

    def depends_on(self, plan: Plan, cell: str) -> tuple[tuple[str, str], ...]:
        """The reference, and the other dataset."""
        return tuple((name, plan.split) for name in dict.fromkeys((plan.reference, cell)))

    def measure(self, work: Work, cell: str) -> pd.DataFrame:
        """`compare_bases` of the reference and a dataset."""
        reference, store = work.store(work.plan.reference), work.store(cell)
        anchors = work.once("anchors", self._anchors, work)
        if cell == work.plan.reference:
            a, b = fit_halves(reference, KINDS, seed=self.settings.seed, device=work.plan.device)
        else:
            a, b = (
                work.once("reference", self._reference, work),
                fit_bases(store, KINDS, device=work.plan.device),
            )
        table = reference.units.merge(compare_bases(a, b, self.settings.explained, anchors), on="unit")
        if self.settings.published_anchors:
            how = self.settings.published_anchors, self.settings.seed, work.plan.device
            table = table.merge(
                published_similarity(reference, store, table["unit"].tolist(), *how), on="unit"
            )
        return table.assign(halves=cell == work.plan.reference)

    def _reference(self, work: Work) -> SpectralBases:
        return fit_bases(work.store(work.plan.reference), KINDS, device=work.plan.device)

    def _anchors(self, work: Work) -> Tensor:
        return anchors_of(work.store(work.plan.reference), self.settings.anchors, self.settings.seed)

    @staticmethod
    def figures(tables: Tables) -> Iterable[tuple[str, Figure]]:
        """Heads by layer, one row a dataset; and means by layer."""
        for encoder, rows in tables.items():
            named = _halves_named(rows)
            halved = [name for name, other in zip(rows, named, strict=True) if name != other]
            for measure in _DRAWN:
                label, what = SIMILARITIES[measure], f"with {(halved or ['the reference'])[0]}"
                values = {name: table.assign(value=table[measure]) for name, table in named.items()}
                title = f"{encoder}: {label} of heads {what}"
                yield f"{encoder}-{measure}", blocks_figure(values, label, title)
                yield f"{encoder}-{measure}-layers", layers_figure(values, label, f"{title}, mean of heads")

    @staticmethod
    def summary(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, int | float]]:
        """Means over heads, and the heads that change least and most."""
        return _means_of_heads(_halves_named(tables))

    @staticmethod
    def more(tables: Tables) -> dict[str, list[Page]]:
        """`across.md`: how alike the encoders find the datasets, where there are several of both."""
        found = across_encoders(tables)
        if len(found) < 2:
            return {}
        names, values = list(tables), found.to_numpy(float)
        lines = [[name, *map(_number, row)] for name, row in zip(names, values.tolist(), strict=True)]
        pairs = pd.Series(values[np.triu_indices(len(names), 1)])
        title = f"Correlation of encoders over datasets: mean {_SHOWN} of heads with the reference"
        lines.append(["mean of pairs", _number(float(pairs.mean())), *[""] * (len(names) - 1)])
        return {"across": [Page(title, ["encoder", *names], lines)]}


class ClassToken(Experiment):
    """Similarity of each head's basis at the class token with that over all patches of the same images.

    Raises:
        ResidualError: a setting other than `explained` isn't as it is by default: nothing here is relative.
    """

    folder = "class_token"
    settings_of = SimilaritySettings
    later = ("published_anchors",)
    unused = ("anchors", "published_anchors", "seed")

    def __init__(self, settings: SimilaritySettings):
        super().__init__(settings)
        if unused := [
            name for name in self.unused if getattr(settings, name) != getattr(self.settings_of, name)
        ]:
            raise ResidualError(
                f"This experiment has no relative measures, so that {' and '.join(unused)} of "
                "SimilaritySettings would change nothing in it: leave that out."
            )

    def stores(self, work: Work, cell: str) -> tuple[tuple[str, str, str], ...]:
        """Of the class token, which may not be what the encoder pools."""
        pooled_by_class_token = isinstance(work.encoder.parts.pool, TokenPool)
        return ((cell, "own" if pooled_by_class_token else "cls", work.plan.split),)

    def measure(self, work: Work, cell: str) -> pd.DataFrame:
        """`compare_bases` of the two; patches are never stored, their moments are taken on the way."""
        (of,) = self.stores(work, cell)
        store = work.store(*of)
        encoding, stage = work.encoding("patches", KINDS), work.stage(f"encode patches of {cell}")
        patches = stream_moments(work.encoder, work.dataset(cell), encoding, progress=stage).compute()
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
        return _means_of_heads(tables)


def across_encoders(tables: Tables) -> pd.DataFrame:
    """Pearson correlation of every two encoders over the datasets that both have: of the mean over heads of
    the spectral cosine with the reference. NaN where they share fewer than three datasets.

    Args:
        tables: of experiment 2, as `read_results` gives them; the reference's own row isn't counted.
    """
    means = {
        encoder: {
            name: rows[name]["spectral_cosine"].mean()
            for name, called in zip(rows, _halves_named(rows), strict=True)
            if name == called
        }
        for encoder, rows in tables.items()
    }
    return pd.DataFrame(means).corr(min_periods=3)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _means_of_heads(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, int | float]]:
    """Of every dataset's `compare_bases`, means over heads, and the lowest and highest spectral cosine."""
    means = {}
    for dataset, table in tables.items():
        cosines = table["spectral_cosine"]
        means[dataset] = {
            **{
                label: float(table[name].mean())
                for name, label in (SIMILARITIES | PUBLISHED).items()
                if name in table
            },
            "lowest spectral cosine": float(cosines.min()),
            "highest spectral cosine": float(cosines.max()),
        }
    return means


def _halves_named(rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The reference's row by what it compares; tables of 0.1 don't tell which it is: the first."""
    first = next(iter(rows))
    halved = {
        name: bool(table["halves"].any()) if "halves" in table else name == first
        for name, table in rows.items()
    }
    return {f"{name}, halves" if halved[name] else name: table for name, table in rows.items()}
