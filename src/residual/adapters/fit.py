"""Train an adapter's weights on scores: an epoch is one pass over a small matrix, the encoder never runs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from residual.adapters.adapter import Adapter, Reweighted, WeightedSums
from residual.adapters.descent import AdamW, Descent, ScheduleFreeAdamW
from residual.adapters.early_stopping import EarlyStopping, Epoch, FitResult
from residual.adapters.fit_settings import FitSettings
from residual.adapters.matching import check_classes, check_match
from residual.adapters.scores import Scores, scores_of, seen_of, widest_of
from residual.adapters.steps import Steps, quick_directions
from residual.devices import find_device
from residual.errors import ResidualError, SharedSamplesWarning
from residual.finite import check_finite, hits
from residual.intervals import warn_of_few
from residual.progress import Progress
from residual.store.base import Store
from residual.store.shared import Seen, warn_of_shared
from residual.text.classifier import ZeroShotClassifier

_ROWS = 4096  # samples at a time, where all of them count at once
_LBFGS_HISTORY = 10


def fit(
    adapter: Adapter,
    train: Store | Scores,
    val: Store | Scores,
    classifier: ZeroShotClassifier,
    settings: FitSettings | None = None,
    progress: Progress | None = None,
    *,
    device: str | torch.device | None = None,
) -> FitResult:
    """Minimise the cross-entropy of the classifier's logits over the weights, in place; all else is frozen.

    After every epoch the weights (averaged, for "schedule_free") are tried on the validation samples; those
    of the epoch with the best accuracy are what the adapter holds in the end. With `or_start` the first ones
    count as epoch 0. Among equals the lowest validation loss counts: where a small validation set is all
    right soon, accuracy alone would keep the first such epoch. The same seed gives the same weights. What
    ends it early, a loss that isn't finite too, leaves the best epoch until then.

    Args:
        adapter: its weights are the start and the result.
        train: a store of training samples, or their scores (`compute_scores`), which serve many fits.
        val: likewise, of the samples that choose the epoch.
        classifier: from outputs to logits.
        settings: by default the paper's.
        progress: called with the number of epochs done and their greatest number, after every epoch.
        device: where to compute; by default the GPU if there is one, else the CPU. Scores that are elsewhere
            are brought there batch by batch.

    Raises:
        ResidualError: samples, adapter and classifier don't belong together, a class has no training sample,
            before any work; scores hold NaN; or the loss stops being finite.

    Example:
        >>> import residual
        >>> from residual.text import ZeroShotClassifier
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> splits = [residual.load_dataset("mnist", name).subset(range(24)) for name in ("train", "val")]
        >>> train, val = (residual.encode_dataset(encoder, split) for split in splits)
        >>> classifier = ZeroShotClassifier.from_text(encoder, splits[0].class_names, splits[0].templates)
        >>> adapter = residual.ResiDual(residual.fit_bases(train))
        >>> settings = residual.adapters.FitSettings(epochs=2, missing="ignore")
        >>> result = residual.fit(adapter, train, val, classifier, settings, device="cpu")
        >>> len(result.history)
        2
    """
    chosen = [settings or FitSettings()]
    return fit_many([adapter], train, val, classifier, chosen, progress, device=device)[0]


def fit_many(
    adapters: Sequence[Adapter],
    train: Store | Scores,
    val: Store | Scores,
    classifier: ZeroShotClassifier,
    settings: Sequence[FitSettings],
    progress: Progress | None = None,
    *,
    subsets: Sequence[Int[np.ndarray, " _"] | Bool[np.ndarray, " _"] | None] | None = None,
    device: str | torch.device | None = None,
) -> list[FitResult]:
    """Several fits at once along one more axis: seeds, first weights, learning rates, ranks, subsets.

    Each is what `fit` alone would give, but for rounding: it has its own order of samples and stops by
    itself.

    Args:
        adapters: of one kind and with the same bases, differing in weights and rank; each one's weights are
            its start and its result. Where ranks differ, the scores are those of the widest
            (`compute_scores(adapters, store)`).
        train, val, classifier, device: as `fit` takes them.
        settings: one a fit; only learning rates, weight decays, patience, seeds and `or_start` may differ.
        progress: called with the number of epochs done and their greatest number, after every epoch.
        subsets: positions of the training samples that a fit sees (`few_shot` draws some), a mask of them, or
            None for all; one a fit.

    Raises:
        ResidualError: as `fit`; or adapters of different components, or settings that can't be run together.
    """
    shared = _together(adapters, settings)
    subsets = [None] * len(adapters) if subsets is None else list(subsets)
    if len(subsets) != len(adapters):
        raise ResidualError(f"Every fit needs a subset or None; got {len(subsets)} of {len(adapters)} fits.")
    for adapter in adapters:
        check_match(adapter, train, classifier, "training")
        check_match(adapter, val, classifier, "validation")
    rows, labels = [_positions(subset, len(train)) for subset in subsets], train.labels
    labels = labels if isinstance(labels, Tensor) else torch.tensor(labels)
    for picked in rows:
        if shared.missing == "raise":
            check_classes(labels[picked.to(labels.device)], classifier.class_names)
    seen = _seen(seen_of(train), seen_of(val), np.unique(torch.cat(rows).numpy()), train is val)
    train, val = scores_of(adapters, train, device), scores_of(adapters, val, device)
    start, where = time.perf_counter(), find_device(device)
    # Those with the most samples come first, so that those still at work in a pass are always the first few.
    order = sorted(range(len(adapters)), key=lambda fit: -len(rows[fit]))
    work = _Work([adapters[fit] for fit in order], train, val, classifier.to(where), where)
    chosen = [settings[fit] for fit in order]
    rates = [settings[fit].rate_of(adapters[fit]) for fit in order]
    stops = [
        EarlyStopping(each.epochs, each.patience, rate) for each, rate in zip(chosen, rates, strict=True)
    ]
    best = list(work.first)
    passes = (_line_searches if shared.optimizer == "lbfgs" else _descents)(
        work, chosen, rates, [rows[fit] for fit in order]
    )
    for stopping, each, own in zip(stops, chosen, work.first, strict=True):
        if each.or_start:
            stopping.begin(*work.validated(own))
    try:
        for number in range(1, shared.epochs + 1):
            losses, weights = next(passes)
            for fit, (stopping, own, loss) in enumerate(zip(stops, weights, losses.tolist(), strict=True)):
                if not stopping.done and stopping.add(Epoch(number, loss, *work.validated(own))):
                    best[fit] = own.detach().clone()
            if progress is not None:
                progress("fit", number, shared.epochs)
            if all(stopping.done for stopping in stops):
                break
    finally:
        work.give_back(best)
        for adapter in adapters:
            adapter.seen = seen
    seconds = (time.perf_counter() - start) / len(stops)
    results = {fit: stopping.result(seconds) for fit, stopping in zip(order, stops, strict=True)}
    return [results[fit] for fit in range(len(adapters))]


def evaluate(
    adapter: Adapter,
    test: Store | Scores,
    classifier: ZeroShotClassifier,
    *,
    device: str | torch.device | None = None,
) -> float:
    """Accuracy of the adapter on these samples.

    A `SharedSamplesWarning` tells of samples that it was fitted on, or its epoch chosen by, in this process;
    a `FewSamplesWarning` of so few that accuracy says next to nothing.

    Args:
        adapter: fitted.
        test: a store or scores.
        classifier: from outputs to logits.
        device: where the scores of a store are computed.

    Raises:
        ResidualError: samples, adapter and classifier don't belong together, or outputs aren't finite.
    """
    check_match(adapter, test, classifier, "test")
    scores = scores_of(adapter, test, device)
    labels = scores.labels.to(scores.scores.device)
    right = classifier.to(labels.device).answers(adapted_output(adapter, scores)) == labels
    if adapter.seen is not None and scores.seen is not None:
        what = "the adapter was fitted on or chosen by"
        warn_of_shared(adapter.seen, scores.seen, what, "accuracy there tells nothing of others")
    warn_of_few(len(right), int(right.sum()))
    return right.double().mean().item()


def adapted_output(
    adapter: Adapter, samples: Store | Scores, *, device: str | torch.device | None = None
) -> Float[Tensor, "n d"]:
    """The adapter's output for every sample of a store, or from scores of its components or of more.

    Raises:
        ResidualError: the samples are of another encoder, the scores of other components; or NaN comes out.
    """
    scores = scores_of(adapter, samples, device)
    weights, _ = adapter.widened(adapter.weights.detach(), scores.ranks)
    weights = weights.to(scores.scores)
    with torch.no_grad():
        parts = [
            adapter.outputs(weights[None], scores.scores[part][None], scores.directions, rest[None])[0]
            for part, rest in _parts(scores)
        ]
    return check_finite(torch.cat(parts), "The adapted outputs")


def _seen(train: Seen | None, val: Seen | None, rows: Int[np.ndarray, " _"], one: bool) -> Seen | None:
    """What training and validation samples are known by; warns of those that are both.

    Args:
        train, val: of all samples, where they are known.
        rows: of the training samples that any fit sees.
        one: whether the same object is given for both.
    """
    so = "the epoch is chosen by what was fitted"
    if train is None or val is None:
        if one:
            text = f"The same scores are given for training and validation: {so}."
            warnings.warn(text, SharedSamplesWarning, stacklevel=3)
        return None
    train = train.take(rows)
    warn_of_shared(train, val, "weights are fitted on", so)
    return Seen(" and ".join(dict.fromkeys((train.where, val.where))), np.union1d(train.keys, val.keys))


def _parts(scores: Scores) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(scores), _ROWS):
        part = slice(start, start + _ROWS)
        yield part, scores.rest[part]


class _Work:
    """What all fits share, on their device: samples, classifier, and the weights that they start from.

    Where ranks differ, all weights are as wide as the widest's, and `own` tells which of them are trained.
    """

    def __init__(
        self,
        adapters: Sequence[Adapter],
        train: Scores,
        val: Scores,
        classifier: ZeroShotClassifier,
        device: torch.device,
    ):
        self.adapters, self.train, self.val = adapters, train, val
        self.classifier, self.device = classifier, device
        self.labels, self.val_labels = (each.labels.to(device, torch.long) for each in (train, val))
        self.adapter = adapters[0].at_ranks(train.ranks)
        self.directions = train.directions.to(device)
        wide = [each.widened(each.weights.detach(), train.ranks) for each in adapters]
        first = torch.stack([weights.flatten() for weights, _ in wide])
        self.first = first.to(device, train.scores.dtype)
        masks = [torch.ones_like(self.first[0]) if own is None else own.to(self.first) for _, own in wide]
        self.own = None if all(own is None for _, own in wide) else torch.stack(masks)

    def logits(
        self,
        weights: Float[Tensor, "a P"],
        scores: Tensor,
        rest: Tensor,
        directions: Tensor | WeightedSums | None = None,
    ) -> Tensor:
        """Of `a` sets of weights, each on samples `(a, b)` of its own: `(a b, c)`."""
        full = weights.view(-1, *self.adapter.weights.shape)
        directions = self.directions if directions is None else directions
        return self.classifier.logits(self.adapter.outputs(full, scores, directions, rest).flatten(0, 1))

    def validated(self, weights: Float[Tensor, " P"]) -> tuple[float, float]:
        """Accuracy and loss on the validation samples."""
        measured = []
        with torch.no_grad():
            for part, rest in _parts(self.val):
                scores, y = self.val.scores[part].to(self.device), self.val_labels[part]
                logits = self.logits(weights[None], scores[None], rest[None].to(self.device))
                losses = cross_entropy(logits, y, reduction="none").double()
                measured.append(torch.stack([hits(logits, y).double(), losses]))
        accuracy, loss = torch.cat(measured, 1).mean(1).tolist()
        return accuracy, loss

    def give_back(self, weights: Sequence[Tensor]) -> None:
        """Write each fit's weights into its adapter."""
        for number, (adapter, wide) in enumerate(zip(self.adapters, weights, strict=True)):
            mine = wide if self.own is None else wide[self.own[number] > 0]
            with torch.no_grad():
                adapter.weights.copy_(mine.view(adapter.weights.shape))


Passes = Iterator[tuple[Tensor, Tensor]]


def _descents(
    work: _Work, settings: Sequence[FitSettings], rates: Sequence[float], rows: Sequence[Tensor]
) -> Passes:
    """Passes over mini-batches: mean losses `(f,)` on the way, and weights `(f, P)` after it."""
    shared = settings[0]
    pulls = [each.pull_of(work.adapter, len(own)) for each, own in zip(settings, rows, strict=True)]
    decay = pulls, work.own, shared.decay_towards
    descent: Descent
    if shared.optimizer == "schedule_free":
        descent = ScheduleFreeAdamW(work.first, rates, *decay)
    else:
        total = [-(-len(own) // shared.batch_size) * shared.epochs for own in rows]
        descent = AdamW(work.first, rates, *decay, total=total, warmup=shared.warmup)
    directions: Tensor | WeightedSums = work.directions
    if isinstance(work.adapter, Reweighted):
        sizes = [len(own) for own in rows]
        batch, samples = min(shared.batch_size, max(sizes)), sum(sizes) * shared.epochs
        directions = quick_directions(directions, len(rows), batch, samples)
    steps = Steps(
        work.adapters, partial(work.logits, directions=directions), work.train, work.labels, descent, rows,
        shared.batch_size, [each.seed for each in settings],
    )  # fmt: skip
    while True:
        yield steps.epoch(), descent.weights()


def _line_searches(
    work: _Work, settings: Sequence[FitSettings], rates: Sequence[float], rows: Sequence[Tensor]
) -> Passes:
    """Iterations of L-BFGS over all samples at once, one fit after the other."""
    fits = [work.first[place].clone().requires_grad_() for place in range(len(rows))]
    optimizers = [
        torch.optim.LBFGS(
            [weights], lr=rate, max_iter=1, history_size=_LBFGS_HISTORY,
            line_search_fn="strong_wolfe",
        )
        for weights, rate in zip(fits, rates, strict=True)
    ]  # fmt: skip
    while True:
        losses = [
            float(optimizer.step(lambda place=place: _whole_loss(work, fits[place], place, rows[place])))
            for place, optimizer in enumerate(optimizers)
        ]
        yield torch.tensor(losses), torch.stack([weights.detach() for weights in fits])


def _whole_loss(work: _Work, weights: Tensor, place: int, rows: Tensor) -> float:
    """Mean loss over all samples of a fit, with its penalty; its gradient is put into `weights.grad`."""
    weights.grad, total = None, 0.0
    for part in rows.split(_ROWS):
        picked = part.to(work.train.scores.device)
        scores, rest = (each[picked].to(work.device) for each in (work.train.scores, work.train.rest))
        logits = work.logits(weights[None], scores[None], rest[None])
        loss = cross_entropy(logits, work.labels[part.to(work.device)], reduction="sum") / len(rows)
        loss.backward()
        total += loss.item()
    penalty = work.adapters[place].penalty(weights[None])
    if isinstance(penalty, Tensor):
        penalty.sum().backward()
        total += penalty.sum().item()
    if work.own is not None and weights.grad is not None:
        weights.grad *= work.own[place]
    return total


def _together(adapters: Sequence[Adapter], settings: Sequence[FitSettings]) -> FitSettings:
    """The settings, of which only those of `fit_many`'s docstring may differ."""
    if not adapters or len(adapters) != len(settings):
        raise ResidualError(
            f"Every fit needs an adapter and settings; got {len(adapters)} adapters and {len(settings)} "
            "settings."
        )
    widest_of(adapters)
    for name in ("batch_size", "epochs", "optimizer", "warmup", "decay_towards", "missing"):
        if len({getattr(each, name) for each in settings}) > 1:
            raise ResidualError(f"Fits at once need the same {name} in all settings.")
    return settings[0]


def _positions(subset: Int[np.ndarray, " _"] | Bool[np.ndarray, " _"] | None, n: int) -> Tensor:
    if subset is None:
        return torch.arange(n)
    chosen = np.asarray(subset)
    if chosen.dtype == bool and chosen.shape == (n,):
        chosen = np.flatnonzero(chosen)
    if chosen.dtype.kind not in "iu" or not len(chosen) or chosen.min() < 0 or chosen.max() >= n:
        raise ResidualError(
            f"A subset holds positions of 0 to {n - 1}, at least one, or is a mask of all; got {subset}."
        )
    return torch.from_numpy(chosen.astype(np.int64))
