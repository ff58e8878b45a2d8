"""Experiment 1: how many dimensions the contributions of heads and MLPs have, by layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from residual.experiments.base import Experiment, Tables
from residual.experiments.plan import Work
from residual.report.figures import geometry_figure, layers_figure, panel_figure
from residual.spectral.geometry import MEASURES, GeometrySettings, unit_geometry

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Dimension(Experiment):
    """Linear and TwoNN dimension, their ratio, first explained variance ratio, participation ratio."""

    folder = "1_dimension"
    settings_of = GeometrySettings

    def measure(self, work: Work, cell: str) -> pd.DataFrame:
        """`unit_geometry` of a dataset's coordinates."""
        store = work.store(cell)
        stage = work.stage(f"measure {cell}")
        return unit_geometry(store, settings=self.settings, device=work.plan.device, progress=stage)

    @staticmethod
    def figures(tables: Tables) -> Iterable[tuple[str, Figure]]:
        """Layers by measures of each dataset, and datasets by layers of each measure; of several encoders one
        page with all of them."""
        if len(tables) > 1:
            shared = [name for name in next(iter(tables.values())) if all(name in t for t in tables.values())]
            for name in shared[:1]:  # the reference, unless an encoder lacks it
                heads = {encoder: _heads(rows[name]) for encoder, rows in tables.items()}
                yield "encoders", panel_figure(heads, f"Dimensions of heads by depth, on {name}")
        for encoder, rows in tables.items():
            for dataset, table in rows.items():
                title = f"{encoder} on {dataset}, {table['samples'].max():,} samples"
                yield f"{encoder}-{dataset}", geometry_figure(table, title)
            heads = {dataset: _heads(table) for dataset, table in rows.items()}
            for measure, label in MEASURES.items():
                values = {name: table.assign(value=table[measure]) for name, table in heads.items()}
                yield (
                    f"{encoder}-{measure}",
                    layers_figure(values, label, f"{encoder}: {label}, mean of heads"),
                )

    @staticmethod
    def summary(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, int | float]]:
        """Means over heads, and over MLPs where there are any."""
        summary = {}
        for dataset, table in tables.items():
            row: dict[str, int | float] = {"samples": int(table["samples"].max())}
            for kind, about in (("head", "heads"), ("mlp", "MLPs")):
                chosen = table[table["kind"] == kind]
                for measure, label in MEASURES.items() if len(chosen) else ():
                    row[f"{about}: {label}"] = float(chosen[measure].mean())
            summary[dataset] = row
        return summary


def _heads(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["kind"] == "head"]
