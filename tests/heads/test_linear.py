"""The linear classifier is the least of its loss, and the best decay is the one that val says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from residual.errors import ResidualError
from residual.heads.linear import best_linear, fit_linear


def features(n: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return torch.from_numpy(np.eye(5)[labels] + 0.8 * rng.standard_normal((n, 5)) + 1), labels


def plain_gradient(x: np.ndarray, y: np.ndarray, w: np.ndarray, b: np.ndarray, decay: float) -> np.ndarray:
    """Of mean −log p + decay/2 ‖W‖², a sample at a time."""
    gradient = np.zeros((len(b), x.shape[1] + 1))
    for row, label in zip(x / np.linalg.norm(x, axis=1, keepdims=True), y, strict=True):
        logits = w @ row + b
        p = np.exp(logits - logits.max())
        p /= p.sum()
        gradient += np.outer(p - np.eye(len(b))[label], np.append(row, 1)) / len(x)
    gradient[:, :-1] += decay * w
    return gradient


@pytest.mark.parametrize("decay", [1e-3, 0.1])
def test_it_is_the_least_of_its_loss(decay):
    x, labels = features(40, 0)
    found = fit_linear(x, labels, 4, decay)  # nothing is of the last class
    gradient = plain_gradient(x.numpy(), labels, found.weights.numpy(), found.bias.numpy(), decay)
    assert np.abs(gradient).max() < 1e-3
    three = fit_linear(x, labels, 3, decay)
    gradient = plain_gradient(x.numpy(), labels, three.weights.numpy(), three.bias.numpy(), decay)
    assert np.abs(gradient).max() < 1e-6
    assert three.accuracy(100 * x, labels) == three.accuracy(x, labels) > 0.6


def test_the_decay_is_chosen_on_val():
    train, val = features(24, 1), features(300, 2)
    found = best_linear(train, val, 3, (1e-6, 1e-2, 1.0))
    each = {decay: fit_linear(*train, 3, decay).accuracy(*val) for decay in (1.0, 1e-2, 1e-6)}
    assert found.decay == max(each, key=each.get)
    assert found.accuracy(*val) == max(each.values())


def test_bad_input():
    x, labels = features(6, 0)
    with pytest.raises(ResidualError, match="must be above 0, got 0"):
        fit_linear(x, labels, 3, 0)
    with pytest.raises(ResidualError, match="Labels must be 0 to 1"):
        fit_linear(x, labels, 2)
    with pytest.raises(ResidualError, match="NaN"):
        fit_linear(x * float("nan"), labels, 3)
    with pytest.raises(ResidualError, match="at least one decay"):
        best_linear((x, labels), (x, labels), 3, ())
