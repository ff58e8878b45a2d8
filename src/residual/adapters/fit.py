"""Train an adapter's weights on scores: an epoch is one pass over a small matrix, the encoder never runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
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
    """How a fit went; the adapter holds the weights of `best_epoch` (counted from 1).

    `seconds` are its share of those of all fits that ran at once.
    """

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
    return fit_many([adapter], train, train_labels, val, val_labels, classifier, [settings], progress)[0]


def fit_many(
    adapters: Sequence[ResiDual],
    train: Scores,
    train_labels: Labels,
    val: Scores,
    val_labels: Labels,
    classifier: ZeroShotClassifier,
    settings: Sequence[FitSettings],
    progress: Callable[[int, int], object] | None = None,
) -> list[FitResult]:
    """Several fits on the same samples at once: seeds, first λ and learning rates, along one more axis.

    Each is what `fit` alone would give, but for rounding: it has its own order of samples and stops by
    itself.

    Args:
        adapters: with the same components; each one's λ is its start and its result.
        train, train_labels, val, val_labels, classifier: as `fit` takes them.
        settings: one a fit; batch sizes and numbers of epochs are the same in all.
        progress: called with the number of epochs done and their greatest number, after every epoch.

    Raises:
        ResidualError: as `fit`; or adapters of different components, or settings that can't be run together.
    """
    batch_size, epochs = _together(adapters, settings)
    for adapter in adapters:
        y = check_match(adapter, train, train_labels, classifier, "training")
        y_val = check_match(adapter, val, val_labels, classifier, "validation")
    start, adapter = time.perf_counter(), adapters[0]
    rates = [each.learning_rate for each in settings]
    first = torch.stack([each.lambdas.detach() for each in adapters]).to(train.scores)  # (f, P)
    groups = {rate: [fit for fit, own in enumerate(rates) if own == rate] for rate in dict.fromkeys(rates)}
    lambdas = [first[fits].clone().requires_grad_() for fits in groups.values()]
    place = torch.tensor([fit for fits in groups.values() for fit in fits], device=y.device).argsort()
    optimizer = AdamWScheduleFree(
        [{"params": [own], "lr": rate} for own, rate in zip(lambdas, groups, strict=True)]
    )
    orders = [torch.Generator().manual_seed(each.seed) for each in settings]
    runs = [_Run(each.patience, own) for each, own in zip(settings, first, strict=True)]
    for number in range(1, epochs + 1):
        optimizer.train()
        picked = torch.stack([torch.randperm(len(train), generator=order) for order in orders])  # (f, n)
        picked, total = picked.to(y.device), torch.zeros(len(runs), dtype=torch.float64, device=y.device)
        for batch in picked.split(batch_size, 1):
            weights = adapter.expand(torch.cat(lambdas)[place])  # (f, K)
            output = (train.scores[batch] * weights[:, None]) @ train.directions + train.rest[batch]
            losses = cross_entropy(
                classifier.logits(output.flatten(0, 1)), y[batch].flatten(), reduction="none"
            ).view(batch.shape)
            optimizer.zero_grad()
            losses.mean(1).sum().backward()
            optimizer.step()
            total += losses.detach().double().sum(1)
        optimizer.eval()
        with torch.no_grad():
            now = torch.cat(lambdas)[place]
            for run, own, loss, rate in zip(runs, now, (total / len(train)).tolist(), rates, strict=True):
                if run.done:
                    continue
                if not math.isfinite(loss):
                    raise ResidualError(
                        f"The loss is no longer finite in epoch {number}: try a smaller learning_rate than "
                        f"{rate}."
                    )
                logits = classifier.logits(val.output(adapter.expand(own)))
                accuracy = (logits.argmax(dim=1) == y_val).double().mean().item()
                run.add(Epoch(number, loss, accuracy, cross_entropy(logits, y_val).item()), own)
        if progress is not None:
            progress(number, epochs)
        if all(run.done for run in runs):
            break
    seconds = (time.perf_counter() - start) / len(runs)
    for adapter, run in zip(adapters, runs, strict=True):
        with torch.no_grad():
            adapter.lambdas.copy_(run.lambdas)
    return [FitResult(run.best.epoch, run.best.val_accuracy, seconds, tuple(run.history)) for run in runs]


class _Run:
    """One fit: its epochs, the best of them, and whether it has stopped."""

    def __init__(self, patience: int, lambdas: Tensor):
        self.patience, self.lambdas, self.improved, self.done = patience, lambdas, 0, False
        self.history: list[Epoch] = []
        self.best = Epoch(0, math.inf, -math.inf, math.inf)

    def add(self, epoch: Epoch, lambdas: Tensor) -> None:
        self.history.append(epoch)
        if epoch.val_accuracy > self.best.val_accuracy:
            self.improved = epoch.epoch
        if (epoch.val_accuracy, -epoch.val_loss) > (self.best.val_accuracy, -self.best.val_loss):
            self.best, self.lambdas = epoch, lambdas.detach().clone()
        self.done = epoch.epoch - self.improved >= self.patience


def _together(adapters: Sequence[ResiDual], settings: Sequence[FitSettings]) -> tuple[int, int]:
    """The batch size and the number of epochs that all fits have."""
    if not adapters or len(adapters) != len(settings):
        raise ResidualError(
            f"Every fit needs an adapter and settings; got {len(adapters)} adapters and {len(settings)} "
            "settings."
        )
    kinds = {(type(each), tuple(each.units), tuple(each.ranks)) for each in adapters}
    if len(kinds) > 1 or any(not torch.equal(each.directions, adapters[0].directions) for each in adapters):
        raise ResidualError("Fits at once need adapters with the same components.")
    shared = {(each.batch_size, each.epochs) for each in settings}
    if len(shared) > 1:
        raise ResidualError("Fits at once need the same batch_size and epochs in all settings.")
    return shared.pop()


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
    adapter.widened(adapter.weights.detach(), scores.ranks)
    if scores.directions.shape[1] != classifier.dim:
        raise ResidualError(
            f"The {what} scores have width {scores.directions.shape[1]}, the classifier {classifier.dim}."
        )
    origin = adapter.origin
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
