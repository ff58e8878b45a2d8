"""What fitted weights say: how much each unit is turned up or down, and which components matter most."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.adapters.adapter import Adapter
from residual.errors import ResidualError
from residual.text.classifier import ZeroShotClassifier

_NO_PUSH = 1e-9  # of a class's row: rounding


@dataclass(frozen=True)
class Component:
    """One re-weighted component.

    Args:
        unit: position of its unit among all units.
        index: which component of the unit, from 0.
        position: in the adapter's λ, and in a row of scores.
        weight: `λ`.
        strength: `|λ| √e`, the spread that it gives the output; `e` is its eigenvalue. Where a component is
            written along something else (`ResiDual`, `write_back`), times the length of that.
        explained: its part of its unit's variance.
        direction: `(d,)`, what a score is written along; of unit length if that is the component itself.
    """

    unit: int
    index: int
    position: int
    weight: float
    strength: float
    explained: float
    direction: Float[Tensor, " d"]

    def classes(self, classifier: ZeroShotClassifier, k: int = 3) -> tuple[list[str], list[str]]:
        """The classes that a negative score and a positive score push the output towards; see `towards`."""
        return self.towards(classifier, -1, k), self.towards(classifier, 1, k)

    def towards(self, classifier: ZeroShotClassifier, score: float | int, k: int = 3) -> list[str]:
        """The classes that a score pushes the output towards, once weighted: of `λ s ⟨w_c − w̄, ψ⟩`, the
        largest first, with `w_c` a class's row, `w̄` the mean of all and `ψ` what the score is written along.

        At most `k`, none of which is pushed less than half as much as the first; none where nothing is.
        """
        weights = classifier.weights.detach().cpu().double()
        pushed = (weights - weights.mean(0)) @ self.direction * (self.weight * score)
        order = pushed.argsort(descending=True, stable=True)[:k].tolist()
        least = max(pushed.max().item() / 2, _NO_PUSH * weights.abs().max().item())
        return [classifier.class_names[place] for place in order if pushed[place] > least]


def unit_gains(adapter: Adapter, units: pd.DataFrame) -> pd.DataFrame:
    """The rows of `units` that the adapter weights, with three columns more.

    `gain = √(Σ λ² e ‖ψ‖² / Σ e)` over the unit's kept components, with `ψ` what a component is written along,
    by default itself: how its spread in the output changes.
    `relative`: the same over the gain of all units together; since a classifier looks at the output's
    direction only, this is what counts: 1 is as the average, 0 is silenced. `weights`: how many there are.
    """
    gains, before, after = [], 0.0, 0.0
    of_units = adapter.unit_weights()
    for of in of_units:
        kept = of.eigenvalues[: len(of.weights)]
        lengths = of.directions[: len(of.weights)].norm(dim=1)
        total, weighted = kept.sum().item(), ((of.weights * lengths) ** 2 * kept).sum().item()
        before, after = before + total, after + weighted
        gains.append((weighted / total) ** 0.5 if total else 0.0)
    table = units.set_index("unit", drop=False).loc[[of.unit for of in of_units]].reset_index(drop=True)
    overall = (after / before) ** 0.5 if before and after else 1.0
    counts = [len(of.weights) for of in of_units]
    return table.assign(gain=gains, relative=[gain / overall for gain in gains], weights=counts)


def strongest_components(adapter: Adapter, count: int = 5) -> list[Component]:
    """The components that move the output most, strongest first.

    Raises:
        ResidualError: the adapter has no weight for each component.
    """
    if not adapter.of_components:
        raise ResidualError(f"{adapter.label} has no weights of components: {adapter.about}.")
    every = [each for components in components_by_unit(adapter, count).values() for each in components]
    return sorted(every, key=lambda component: -component.strength)[:count]


def components_by_unit(adapter: Adapter, count: int, changed: bool = False) -> dict[int, list[Component]]:
    """For each unit the components that move the output most, or whose weight changes it most.

    Args:
        adapter: one that weights components of units.
        count: so many of each, the first the strongest.
        changed: by `|λ − 1| √e` instead of `|λ| √e`: what is turned round or removed comes first.
    """
    found, start = {}, 0
    for of in adapter.unit_weights():
        values, weights = of.eigenvalues, of.weights
        spreads = values[: len(weights)].sqrt() * of.directions[: len(weights)].norm(dim=1)
        strengths = weights.abs() * spreads
        order = (weights - 1).abs() * spreads if changed else strengths
        found[of.unit] = [
            Component(
                unit=of.unit,
                index=index,
                position=start + index,
                weight=weights[index].item(),
                strength=strengths[index].item(),
                explained=(values[index] / values.sum()).item(),
                direction=of.directions[index],
            )
            for index in torch.topk(order, min(count, len(order))).indices.tolist()
        ]
        start += len(weights)
    return found
