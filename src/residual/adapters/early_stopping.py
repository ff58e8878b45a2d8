"""When a training stops and which of its epochs is kept: one rule, for fits and for fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from residual.errors import ResidualError


@dataclass(frozen=True)
class Epoch:
    """One pass over the training samples: their mean loss on the way, accuracy and loss on val after it.

    Epoch 0 are the first weights, before any pass: there is no loss on the way.
    """

    epoch: int
    train_loss: float | None
    val_accuracy: float
    val_loss: float

    @property
    def merit(self) -> tuple[float, float]:
        """By which the best is chosen: accuracy on val, and among equals the lower loss there."""
        return self.val_accuracy, -self.val_loss


_NONE = Epoch(0, None, -math.inf, math.inf)


@dataclass(frozen=True)
class FitResult:
    """How a fit went; the adapter holds the weights of `best_epoch`, counted from 1; 0 are the first weights.

    `seconds` are its share of those of all fits that ran at once; `start` is how the first weights did on
    val, where they were a candidate; `portions` are those that fine-tuning took its batches in:
    `micro_batch`, `checkpointing` and `estimated_bytes`.
    """

    best_epoch: int
    val_accuracy: float
    seconds: float
    history: tuple[Epoch, ...] = field(repr=False)
    start: Epoch | None = field(default=None, repr=False)
    portions: dict[str, int] | None = None

    @property
    def merit(self) -> tuple[float, float]:
        """That of the best epoch."""
        kept = self.history[self.best_epoch - 1] if self.best_epoch else self.start
        return (kept or _NONE).merit


class EarlyStopping:
    """The epochs of one training, the best of them, and whether it is to stop.

    The best has the highest validation accuracy, among equals the lowest validation loss: where a small
    validation set is all right soon, accuracy alone would keep the first such epoch. Training stops when the
    accuracy hasn't risen for `patience` epochs.

    Args:
        epochs: at most.
        patience: see above.
        learning_rate: for the error when the loss isn't finite.
        history: epochs that are done already.
    """

    def __init__(self, epochs: int, patience: int, learning_rate: float, history: Iterable[Epoch] = ()):
        self.epochs, self.patience, self.learning_rate = epochs, patience, learning_rate
        self.history: list[Epoch] = []
        self.start: Epoch | None = None
        self.best, self.improved = _NONE, 0
        for epoch in history:
            self.add(epoch)

    def begin(self, val_accuracy: float, val_loss: float) -> None:
        """Take the first weights as a candidate: an epoch is kept only if it is better than they are.

        Raises:
            ResidualError: what they give isn't finite.
        """
        if not math.isfinite(val_accuracy) or not math.isfinite(val_loss):
            raise ResidualError("The loss of the first weights on the validation samples isn't finite.")
        self.start = self.best = Epoch(0, None, val_accuracy, val_loss)

    def add(self, epoch: Epoch) -> bool:
        """Take an epoch; whether it is the best so far, so that its weights are to be kept.

        Raises:
            ResidualError: its losses aren't finite (nor are logits, then).
        """
        if not all(map(math.isfinite, (epoch.train_loss or 0.0, epoch.val_accuracy, epoch.val_loss))):
            raise self.diverged(epoch.epoch)
        self.history.append(epoch)
        if epoch.val_accuracy > self.best.val_accuracy:
            self.improved = epoch.epoch
        better = epoch.merit > self.best.merit
        if better:
            self.best = epoch
        return better

    def diverged(self, epoch: int) -> ResidualError:
        """What to say of an epoch whose losses aren't finite."""
        return ResidualError(
            f"The loss is no longer finite in epoch {epoch}: try a smaller learning_rate than "
            f"{self.learning_rate:g}."
        )

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train."""
        past = len(self.history)
        return past >= self.epochs or past - self.improved >= self.patience

    def result(self, seconds: float) -> FitResult:
        """How it went."""
        best = self.best
        return FitResult(best.epoch, best.val_accuracy, seconds, tuple(self.history), self.start)
