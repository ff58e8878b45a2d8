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
from residual.tracing.units import Units, UnitsLike, unit_positions

# The shares of heads that the paper keeps.
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75)
COUNTINGS = ("rounded", "published")


def are_shares(shares: Sequence[float]) -> bool:
    """Whether these are shares of units, one at least."""
    return bool(shares) and all(0 < share <= 1 for share in shares)


def count_of(share: float, units: int, counting: str = "rounded") -> int:
    """How many of some units a share of them is.

    Args:
        share: in (0, 1].
        units: how many there are.
        counting: "rounded" to the nearest, one at least; or "published", as the published code counts:
            rounded down, two at least at 1 %, one at least at any other.

    Raises:
        ResidualError: a share outside (0, 1], no unit, or an unknown way to count.

    Example:
        >>> count_of(0.05, 48), count_of(0.01, 48), count_of(0.25, 50)
        (2, 1, 13)
        >>> count_of(0.05, 48, "published"), count_of(0.01, 48, "published"), count_of(0.25, 50, "published")
        (2, 2, 12)
    """
    if not 0 < share <= 1:
        raise ResidualError(f"A share of units lies in (0, 1], got {share}.")
    if units < 1:
        raise ResidualError("A share is of one unit at least.")
    if counting not in COUNTINGS:
        raise ResidualError(f"counting is {' or '.join(map(repr, COUNTINGS))}, got {counting!r}.")
    if counting == "published":
        return min(units, max(2 if share == 0.01 else 1, int(units * share)))
    return max(1, math.floor(share * units + 0.5))


def top_share(
    scores: Float[Tensor, " u"] | Sequence[float] | pd.Series,
    share: float,
    units: UnitsLike | None = None,
    counting: str = "rounded",
) -> list[int]:
    """The units with the highest scores, in the order of their positions.

    Args:
        scores: one a unit; of equal ones the first is taken.
        share, counting: how many of them, see `count_of`.
        units: the scored ones, by position or as rows of a units table; by default 0, 1, ….

    Raises:
        ResidualError: a share outside (0, 1], another number of units than of scores, or NaN among these.
    """
    return top_units(scores, count_of(share, max(1, len(scores)), counting), units)


def top_units(
    scores: Float[Tensor, " u"] | Sequence[float] | pd.Series,
    count: int,
    units: UnitsLike | None = None,
) -> list[int]:
    """The same by their number.

    Raises:
        ResidualError: another number of units than of scores, or NaN among these.
    """
    scores = torch.as_tensor(scores if isinstance(scores, Tensor) else list(scores), dtype=torch.float64)
    positions = list(range(len(scores))) if units is None else unit_positions(units)
    if len(positions) != len(scores) or not positions:
        raise ResidualError(
            f"{len(positions)} units need as many scores, and one at least; got {len(scores)}."
        )
    order = check_finite(scores, "Scores of units").argsort(descending=True, stable=True)[:count]
    return sorted(positions[place] for place in order.tolist())


def random_share(units: Sequence[int], share: float, seed: int) -> list[int]:
    """As many units as `top_share` takes, at random."""
    return random_units(units, count_of(share, max(1, len(units))), seed)


def random_units(units: Sequence[int], count: int, seed: int) -> list[int]:
    """So many of some units, at random."""
    return top_units(np.random.default_rng(seed).random(len(units)).tolist(), count, units)


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


def kept_layers(units: pd.DataFrame) -> dict[str, list[int]]:
    """What stays where only some heads do: all of them, those of one layer, those up to a layer.

    Args:
        units: the table of units.

    Returns:
        Units that stay, for "only heads", "all but heads"; for every layer "only heads of layer 3" and "only
        heads up to layer 3", and "only layers up to 3", with the embedding and MLPs.
    """
    heads, number = (units["kind"] == "head").to_numpy(bool), units["unit"].to_numpy(int)
    layers = units["layer"].fillna(-1).to_numpy(int)  # the embedding comes before all
    kept = {"only heads": number[heads], "all but heads": number[~heads]}
    for layer in sorted(set(layers[heads].tolist())):
        kept[f"only heads of layer {layer}"] = number[heads & (layers == layer)]
        kept[f"only heads up to layer {layer}"] = number[heads & (layers <= layer)]
        kept[f"only layers up to {layer}"] = number[layers <= layer]
    return {name: chosen.tolist() for name, chosen in kept.items()}


def jaccard(a: UnitsLike, b: UnitsLike, units: Units | None = None) -> float:
    """Units in both choices over units in either; 1 for two empty ones.

    Args:
        a, b: positions of units, or rows of a units table.
        units: their encoder's (`Linearization.units`), where they are given by name or by a mask.

    Raises:
        ResidualError: some aren't units, or can't be told without `units`.
    """
    first, second = set(unit_positions(a, of=units)), set(unit_positions(b, of=units))
    return len(first & second) / len(first | second) if first | second else 1.0


def jaccard_table(selections: Mapping[str, UnitsLike], units: Units | None = None) -> pd.DataFrame:
    """`jaccard` of every two selections, by name."""
    names = list(selections)
    values = [[jaccard(selections[a], selections[b], units) for b in names] for a in names]
    return pd.DataFrame(values, index=names, columns=names)
