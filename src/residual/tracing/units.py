"""The units of the residual stream and their order: the embedding, the MLPs, the heads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from residual.errors import ResidualError

KINDS = ("emb", "mlp", "head")


def units_table(layers: int, heads: int, pool_mlp: bool = False) -> pd.DataFrame:
    """One row a unit: the embedding, the MLPs by layer, the heads by layer and then head.

    The MLP of an attention pool, where there is one, follows the last layer's: its layer is `layers`.

    Columns: `unit` (its position in that order), `kind`, `layer`, `head` (NA where there is none).
    """
    layer, mlps = np.arange(layers), np.arange(layers + pool_mlp)
    heads_of_none = [pd.NA] * (1 + len(mlps))
    return pd.DataFrame(
        {
            "unit": np.arange(1 + len(mlps) + layers * heads),
            "kind": ["emb"] + ["mlp"] * len(mlps) + ["head"] * (layers * heads),
            "layer": pd.array([pd.NA, *mlps, *layer.repeat(heads)], dtype="Int64"),
            "head": pd.array(heads_of_none + list(np.tile(np.arange(heads), layers)), dtype="Int64"),
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
