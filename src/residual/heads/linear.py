"""A linear classifier of features, trained: what an encoder's output holds of a task, beside zero-shot."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from residual.errors import ResidualError, SharedSamplesWarning
from residual.finite import check_finite, correct
from residual.text.classifier import checked_labels

DECAYS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_STEPS, _FLAT = 300, 1e-8  # iterations at most, and the largest slope of a solution


@dataclass(frozen=True)
class LinearClassifier:
    """`logits = x/‖x‖ Wᵀ + b`.

    Args:
        weights: one row a class.
        bias: one number a class.
        decay: `λ` that it was trained with.
    """

    weights: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    decay: float | int

    def logits(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Of features, one row each."""
        return normalize(x.to(self.weights), dim=1) @ self.weights.T + self.bias

    def accuracy(self, x: Float[Tensor, "n d"], labels: Int[np.ndarray, " n"] | Int[Tensor, " n"]) -> float:
        """Part of the features whose class with the largest logit is the labelled one."""
        return correct(self.logits(x), torch.as_tensor(labels).to(self.bias.device)).double().mean().item()


def fit_linear(
    x: Float[Tensor, "n d"],
    labels: Int[np.ndarray, " n"] | Int[Tensor, " n"],
    classes: int,
    decay: float | int = 1e-4,
    start: LinearClassifier | None = None,
) -> LinearClassifier:
    """Logistic regression of features at length 1: the least of `mean_n −log p(y_n | x_n) + λ/2 ‖W‖²`.

    The bias isn't decayed; of classes without samples, logits just fall. In float64 by L-BFGS, on the device
    of the features.

    Args:
        x: features.
        labels: 0 to `classes − 1`.
        classes: how many.
        decay: `λ`, above 0.
        start: another solution to begin at.

    Raises:
        ResidualError: labels that don't fit, features that aren't finite, or a decay that isn't above 0.

    Example:
        >>> import torch
        >>> from residual.heads.linear import fit_linear
        >>> x = torch.tensor([[1.0, 0.2], [1.0, -0.2], [0.1, 1.0]])
        >>> fit_linear(x, torch.tensor([0, 0, 1]), 2).accuracy(x, torch.tensor([0, 0, 1]))
        1.0
    """
    if not decay > 0:
        raise ResidualError(f"The decay must be above 0, got {decay}.")
    truth = checked_labels(labels, len(x), classes).to(x.device)
    x = normalize(check_finite(x.detach().double(), "The features"), dim=1)
    zero = x.new_zeros(classes, x.shape[1]), x.new_zeros(classes)
    before = zero if start is None else (start.weights, start.bias)
    weights, bias = (each.detach().clone().requires_grad_() for each in before)
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=_STEPS, tolerance_grad=_FLAT, tolerance_change=0, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(x @ weights.T + bias, truth) + decay / 2 * weights.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return LinearClassifier(weights.detach(), bias.detach(), decay)


def best_linear(
    train: tuple[Float[Tensor, "n d"], np.ndarray],
    val: tuple[Float[Tensor, "m d"], np.ndarray],
    classes: int,
    decays: Sequence[float | int] = DECAYS,
) -> LinearClassifier:
    """The one of several decays that is the most accurate on val; of equal ones, the strongest decay.

    Args:
        train, val: features and labels.
        classes: how many.
        decays: of `fit_linear`.

    Raises:
        ResidualError: see `fit_linear`.
    """
    if train[0].shape == val[0].shape and torch.equal(train[0], val[0]):
        text = "Validation samples are the training samples: the decay is chosen by what was fitted."
        warnings.warn(text, SharedSamplesWarning, stacklevel=2)
    best, most, found = None, -1.0, None
    for decay in sorted(decays, reverse=True):
        found = fit_linear(*train, classes, decay, found)
        accuracy = found.accuracy(*val)
        if accuracy > most:
            best, most = found, accuracy
    if best is None:
        raise ResidualError("A linear classifier needs at least one decay.")
    return best
