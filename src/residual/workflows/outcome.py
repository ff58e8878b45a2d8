"""What fits came to on the test pictures, beside each other and beside the encoder alone: for JSON.

Every accuracy has two intervals, which say different things (`residual.intervals`): `interval` is over fits,
`over_pictures` over the choice of test pictures. Differences are paired: of the same pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from residual.intervals import mean_and_interval, paired_difference, wilson
from residual.report.changes import Changes
from residual.workflows.task import Task

ZERO_SHOT = "zero_shot"


@runtime_checkable
class Fit(Protocol):
    """One fit that was tested."""

    @property
    def seed(self) -> int:
        """That tells it from others of its method."""

    @property
    def accuracy(self) -> float:
        """On the test pictures."""

    @property
    def answers(self) -> np.ndarray:
        """The class that it gives each of them, `(n,)`."""


def outcome(task: Task, fits: Mapping[str, Sequence[Fit]]) -> dict[str, Any]:
    """Accuracies of each method and of "zero_shot", with all that is known of how far they hold.

    Returns:
        `accuracy` (of several fits their mean); `interval`, half the width of its 95 % interval over fits by
        Student's t, None for one; and `compared`, see there.
    """
    labels = task.stores["test"].labels
    right = {ZERO_SHOT: (task.answers == labels).astype(np.float64)}
    right |= {method: np.mean([each.answers == labels for each in own], 0) for method, own in fits.items()}
    over_fits = {method: mean_and_interval([each.accuracy for each in own]) for method, own in fits.items()}
    return {
        "accuracy": {ZERO_SHOT: task.zero_shot} | {method: mean for method, (mean, _) in over_fits.items()},
        "interval": {method: half for method, (_, half) in over_fits.items()},
        **compared(right),
    }


def compared(right: Mapping[str, Float[np.ndarray, " n"]]) -> dict[str, Any]:
    """Methods beside each other on the same pictures.

    Args:
        right: of each method and each picture, the share of fits that get it right; the method of the fewest
            weights first, which is the best among equals.

    Returns:
        `over_pictures`, of each method the ends of Wilson's 95 % interval; and `best`, `{"method",
        "above": {other: [difference, low, high]}}` with Newcombe's 95 % interval over pictures.
    """
    best = max(right, key=lambda method: round(float(right[method].mean()), 12))
    return {
        "over_pictures": {
            method: list(wilson(float(each.sum()), len(each))[1:]) for method, each in right.items()
        },
        "best": {
            "method": best,
            "above": {
                method: list(paired_difference(each, right[best]))
                for method, each in right.items()
                if method != best
            },
        },
    }


def changes_of(task: Task, fit: Fit, method: str) -> Changes:
    """Which test pictures one fit gets right that the encoder alone doesn't, and the other way round."""
    test = task.stores["test"]
    return Changes(
        method, fit.seed, test.sample_ids, test.class_names, test.labels, task.answers, fit.answers
    )
