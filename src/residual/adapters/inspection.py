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
        """The classes that a low score and a high score speak for, after the weight's sign; `k` each."""
        weights = classifier.weights.detach().cpu().double()
        toward = (weights - weights.mean(0)) @ self.direction * (1 if self.weight >= 0 else -1)
        order = toward.argsort().tolist()
        k = min(k, len(order) // 2)
        names = classifier.class_names
        return [names[i] for i in order[:k]], [names[i] for i in order[len(order) - k :][::-1]]


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
    components, start = [], 0
    for of in adapter.unit_weights():
        values, weights = of.eigenvalues, of.weights
        lengths = of.directions[: len(weights)].norm(dim=1)
        strengths = weights.abs() * values[: len(weights)].sqrt() * lengths
        for index in torch.topk(strengths, min(count, len(strengths))).indices.tolist():
            components.append(
                Component(
                    unit=of.unit,
                    index=index,
                    position=start + index,
                    weight=weights[index].item(),
                    strength=strengths[index].item(),
                    explained=(values[index] / values.sum()).item(),
                    direction=of.directions[index],
                )
            )
        start += len(weights)
    return sorted(components, key=lambda component: -component.strength)[:count]
