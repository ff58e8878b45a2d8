"""Train an adapter's weights on scores: an epoch is one pass over a small matrix, the encoder never runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int
from schedulefree import AdamWScheduleFree
from torch import Tensor
from torch.nn.functional import cross_entropy

from residual.adapters.residual import ResiDual
from residual.adapters.scores import Scores
from residual.errors import ResidualError
from residual.text.classifier import ZeroShotClassifier

Labels = Int[np.ndarray, " _"] | Int[Tensor, " _"]


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit; the defaults are those of Basile et al. 2025, arXiv 2411.00246.

    Args:
        learning_rate: of schedule-free AdamW (0.8 for λ there).
        batch_size: 64 there.
        epochs: at most (30 there).
        patience: epochs without a better validation accuracy before stopping (5 there).
        seed: of the order of samples.

    Raises:
        ResidualError: a setting isn't positive, or no whole number where it must be one.
    """

    learning_rate: float | int = 0.8
    batch_size: int = 64
    epochs: int = 30
    patience: int = 5
    seed: int = 0

    def __post_init__(self):
        for name in ("batch_size", "epochs", "patience", "seed"):
            if not isinstance(getattr(self, name), int):
                raise ResidualError(f"{name} must be a whole number, got {getattr(self, name)!r}.")
        for name in ("learning_rate", "batch_size", "epochs", "patience"):
            if not 0 < getattr(self, name) < math.inf:
                raise ResidualError(f"{name} must be positive, got {getattr(self, name)}.")


@dataclass(frozen=True)
class Epoch:
    """One pass over the training samples: their mean loss on the way, accuracy and loss on val after it."""

    epoch: int
    train_loss: float
    val_accuracy: float
    val_loss: float


@dataclass(frozen=True)
class FitResult:
    """How a fit went; the adapter holds the weights of `best_epoch` (counted from 1)."""

    best_epoch: int
    val_accuracy: float
    seconds: float
    history: tuple[Epoch, ...] = field(repr=False)


def fit(
    adapter: ResiDual,
    train: Scores,
    train_labels: Labels,
    val: Scores,
    val_labels: Labels,
    classifier: ZeroShotClassifier,
    settings: FitSettings | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> FitResult:
    """Minimise the cross-entropy of the classifier's logits over λ, in place; the classifier stays frozen.

    Schedule-free AdamW (Defazio et al. 2024, arXiv 2405.15682) without weight decay. After every epoch the
    averaged weights are tried on the validation samples; those of the epoch with the best accuracy are what
    the adapter holds in the end. Among equals the lowest validation loss counts: where a small validation set
    is all right soon, accuracy alone would keep the first such epoch. The same seed gives the same weights.

    Args:
        adapter: its λ is the start and the result.
        train: scores of the training samples.
        train_labels: class numbers.
        val: scores of the validation samples.
        val_labels: class numbers.
        classifier: from scores' output to logits.
        settings: by default the paper's.
        progress: called with the number of epochs done and their greatest number, after every epoch.

    Raises:
        ResidualError: scores, labels, adapter and classifier don't belong together, or hold NaN; before any
            work. Or the loss stops being finite.
    """
    settings = settings or FitSettings()
    y = check_match(adapter, train, train_labels, classifier, "training")
    y_val = check_match(adapter, val, val_labels, classifier, "validation")
    start = time.perf_counter()
    lambdas = adapter.lambdas.detach().to(train.scores).clone().requires_grad_()
    optimizer = AdamWScheduleFree([lambdas], lr=settings.learning_rate)
    order = torch.Generator().manual_seed(settings.seed)
    history: list[Epoch] = []
    best, best_lambdas, improved = None, lambdas.detach().clone(), 0
    for number in range(1, settings.epochs + 1):
        optimizer.train()
        loss = _train_epoch(adapter, lambdas, optimizer, train, y, classifier, settings.batch_size, order)
        if not np.isfinite(loss):
            raise ResidualError(
                f"The loss is no longer finite in epoch {number}: try a smaller learning_rate than "
                f"{settings.learning_rate}."
            )
        optimizer.eval()
        with torch.no_grad():
            logits = classifier.logits(val.output(adapter.expand(lambdas)))
            accuracy = (logits.argmax(dim=1) == y_val).double().mean().item()
            val_loss = cross_entropy(logits, y_val).item()
        history.append(Epoch(number, loss, accuracy, val_loss))
        if best is None or accuracy > best.val_accuracy:
            improved = number
        if best is None or (accuracy, -val_loss) > (best.val_accuracy, -best.val_loss):
            best, best_lambdas = history[-1], lambdas.detach().clone()
        if progress is not None:
            progress(number, settings.epochs)
        if number - improved >= settings.patience:
            break
    if best is None:
        raise ResidualError("No epoch was run.")
    with torch.no_grad():
        adapter.lambdas.copy_(best_lambdas)
    return FitResult(best.epoch, best.val_accuracy, time.perf_counter() - start, tuple(history))


def evaluate(adapter: ResiDual, scores: Scores, labels: Labels, classifier: ZeroShotClassifier) -> float:
    """Accuracy of the adapter on these samples.

    Raises:
        ResidualError: scores, labels, adapter and classifier don't belong together.
    """
    y = check_match(adapter, scores, labels, classifier, "test")
    with torch.no_grad():
        return classifier.accuracy(scores.output(adapter.expand(adapter.lambdas).to(scores.scores)), y)


def check_match(
    adapter: ResiDual, scores: Scores, labels: Labels, classifier: ZeroShotClassifier, what: str
) -> Int[Tensor, " n"]:
    """The labels as a tensor, once everything belongs together.

    Raises:
        ResidualError: says what doesn't, by name.
    """
    if len(scores) == 0:
        raise ResidualError(f"There are no {what} samples.")
    if len(scores) != len(labels):
        raise ResidualError(f"There are {len(scores)} {what} samples, but {len(labels)} labels.")
    if scores.scores.shape[1] != sum(adapter.ranks):
        raise ResidualError(
            f"The {what} scores are on {scores.scores.shape[1]} components, the adapter has "
            f"{sum(adapter.ranks)}: compute them with this adapter."
        )
    if scores.directions.shape[1] != classifier.dim:
        raise ResidualError(
            f"The {what} scores have width {scores.directions.shape[1]}, the classifier {classifier.dim}."
        )
    origin = adapter.bases.origin
    prints = {"bases": None if origin is None else origin.fingerprint, "classifier": classifier.fingerprint}
    for name, fingerprint in prints.items():
        if fingerprint not in (None, scores.fingerprint):
            raise ResidualError(
                f"The {what} scores are of another encoder (weights {scores.fingerprint[:8]}) than the "
                f"{name} ({fingerprint[:8]})."
            )
    y = torch.as_tensor(labels).to(scores.scores.device, torch.long)
    if int(y.min()) < 0 or int(y.max()) >= len(classifier):
        raise ResidualError(
            f"The {what} labels go from {int(y.min())} to {int(y.max())}, the classifier has "
            f"{len(classifier)} classes."
        )
    if not (scores.scores.sum().isfinite() and scores.rest.sum().isfinite()):
        raise ResidualError(f"The {what} scores hold NaN or infinity.")
    return y


def _train_epoch(
    adapter: ResiDual,
    lambdas: Tensor,
    optimizer: AdamWScheduleFree,
    train: Scores,
    labels: Tensor,
    classifier: ZeroShotClassifier,
    batch_size: int,
    order: torch.Generator,
) -> float:
    """One pass in random order; the mean loss."""
    total = 0.0
    for picked in torch.randperm(len(train), generator=order).split(batch_size):
        batch = Scores(train.scores[picked], train.directions, train.rest[picked], train.fingerprint)
        loss = cross_entropy(classifier.logits(batch.output(adapter.expand(lambdas))), labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(picked)
    return total / len(train)
