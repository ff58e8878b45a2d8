"""Which units stay: the best by a score, all but a kind or a layer; and how alike two choices are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.errors import ResidualError
from residual.finite import check_finite
from residual.tracing.units import unit_positions

# The shares of heads that the paper keeps.
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75)


def top_share(
    scores: Float[Tensor, " u"] | Sequence[float] | pd.Series,
    share: float,
    units: Sequence[int] | np.ndarray | pd.Series | None = None,
) -> list[int]:
    """The units with the highest scores, in the order of their positions.

    Args:
        scores: one a unit; of equal ones the first is taken.
        share: how many of them, in (0, 1]; rounded, one at least.
        units: positions of the scored units, by default 0, 1, ….

    Raises:
        ResidualError: a share outside (0, 1], another number of units than of scores, or NaN among these.
    """
    if not 0 < share <= 1:
        raise ResidualError(f"A share of units lies in (0, 1], got {share}.")
    scores = torch.as_tensor(scores if isinstance(scores, Tensor) else list(scores), dtype=torch.float64)
    positions = list(range(len(scores))) if units is None else unit_positions(units)
    if len(positions) != len(scores) or not positions:
        raise ResidualError(
            f"{len(positions)} units need as many scores, and one at least; got {len(scores)}."
        )
    count = max(1, math.floor(share * len(scores) + 0.5))
    order = check_finite(scores, "Scores of units").argsort(descending=True, stable=True)[:count]
    return sorted(positions[place] for place in order.tolist())


def random_share(units: Sequence[int], share: float, seed: int) -> list[int]:
    """As many units as `top_share` takes, at random."""
    return top_share(np.random.default_rng(seed).random(len(units)).tolist(), share, units)


def ablations(units: pd.DataFrame) -> dict[str, list[int]]:
    """What stays when a kind, a layer or all layers up to one are left out.

    Args:
        units: the table of units.

    Returns:
        Units that stay, for "no heads", "no mlps", "no emb"; for every layer of heads or MLPs
        "no heads of layer 3"; and "no heads up to layer 3", "no heads from layer 3".
    """
    names = {"emb": "emb", "mlp": "mlps", "head": "heads"}
    kept = {
        f"no {name}": units["unit"][units["kind"] != kind].tolist()
        for kind, name in names.items()
        if (units["kind"] == kind).any()
    }
    for kind in ("head", "mlp"):
        of_kind = (units["kind"] == kind).to_numpy(bool)
        layers = units["layer"].fillna(-1).to_numpy(int)
        for layer in sorted(set(layers[of_kind].tolist())):
            for about, out in (
                ("of", layers == layer),
                ("up to", layers <= layer),
                ("from", layers >= layer),
            ):
                kept[f"no {names[kind]} {about} layer {layer}"] = units["unit"][~(of_kind & out)].tolist()
    return kept


def jaccard(a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray) -> float:
    """Units in both choices over units in either; 1 for two empty ones.

    Args:
        a, b: positions of units.

    Raises:
        ResidualError: some aren't whole numbers; masks don't tell what they are of.
    """
    first, second = set(unit_positions(a)), set(unit_positions(b))
    return len(first & second) / len(first | second) if first | second else 1.0


def jaccard_table(selections: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """`jaccard` of every two selections, by name."""
    names = list(selections)
    values = [[jaccard(selections[a], selections[b]) for b in names] for a in names]
    return pd.DataFrame(values, index=names, columns=names)
