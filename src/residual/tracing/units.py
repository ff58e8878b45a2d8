"""The units of the residual stream and their order: the embedding, the MLPs, the heads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from residual.errors import ResidualError

KINDS = ("emb", "mlp", "head")


def units_table(layers: int, heads: int) -> pd.DataFrame:
    """One row a unit: the embedding, the MLPs by layer, the heads by layer and then head.

    Columns: `unit` (its position in that order), `kind`, `layer`, `head` (NA where there is none).
    """
    layer = np.arange(layers)
    return pd.DataFrame(
        {
            "unit": np.arange(1 + layers + layers * heads),
            "kind": ["emb"] + ["mlp"] * layers + ["head"] * (layers * heads),
            "layer": pd.array([pd.NA, *layer, *layer.repeat(heads)], dtype="Int64"),
            "head": pd.array([pd.NA] * (1 + layers) + list(np.tile(np.arange(heads), layers)), dtype="Int64"),
        }
    )


def units_of(units: pd.DataFrame, kinds: Iterable[str]) -> list[int]:
    """Positions of the units of these kinds, in the table's order.

    Raises:
        ResidualError: a kind isn't known, or none is given.
    """
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ResidualError(
            f"Unknown kinds of unit: {', '.join(map(repr, unknown))}. Known: {', '.join(KINDS)}."
        )
    if not kinds:
        raise ResidualError(f"No kind of unit was given. Known: {', '.join(KINDS)}.")
    return units["unit"][units["kind"].isin(kinds)].tolist()
