"""What is known of how an adapter was trained: it goes into its config and onto its model card."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from residual.errors import ResidualError


@dataclass(frozen=True)
class TrainingRecord:
    """What was done and what came of it.

    Args:
        dataset: whose train split it was fitted on, and whose test split measured it.
        accuracy: of each method, a part in [0, 1]; "zero_shot" is the encoder without adapter.
        interval: half the width of the 95 % interval of some of them.
        n_train, n_test: how many pictures, if known.
        seeds: of the fits that the accuracies are means of.
        settings: of the fit, as JSON has them.

    Raises:
        ResidualError: an accuracy outside [0, 1], an interval that isn't positive or of no accuracy, or
            settings that JSON doesn't hold.
    """

    dataset: str = ""
    accuracy: Mapping[str, float | int] = field(default_factory=dict)
    interval: Mapping[str, float | int | None] = field(default_factory=dict)
    n_train: int | None = None
    n_test: int | None = None
    seeds: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if wrong := [name for name, value in self.accuracy.items() if not 0 <= value <= 1]:
            raise ResidualError(f"Accuracies are parts from 0 to 1; {', '.join(wrong)} isn't.")
        for name, half in self.interval.items():
            if name not in self.accuracy or not (half is None or 0 <= half < math.inf):
                raise ResidualError(
                    f"The interval of {name!r} must be of one of the accuracies, and half its width: {half}."
                )
        try:
            json.dumps(asdict(self), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ResidualError(f"A training record must be plain JSON: {error}.") from error

    def trained_by(self, method: str) -> str:
        """The method among `METHODS`: that a ResiDual is of heads alone is known from its training."""
        star = method == "residual" and set(self.accuracy) == {"zero_shot", "residual_star"}
        return "residual_star" if star else method

    @classmethod
    def of_json(cls, held: Mapping[str, Any]) -> TrainingRecord:
        """Read what `dataclasses.asdict` made, by way of a file."""
        seeds = tuple(held.get("seeds", ()))
        return cls(seeds=seeds, **{name: value for name, value in held.items() if name != "seeds"})
