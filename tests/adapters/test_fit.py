"""The fit finds planted structure, repeats itself for a seed, keeps the best epoch, refuses mismatches."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schedulefree import AdamWScheduleFree
from tiny import OnAGpu, TinyImages, tiny_encoder
from torch.nn.functional import cross_entropy

from residual.adapters import (
    Coarse,
    FitSettings,
    LinearMap,
    ResiDual,
    Scores,
    SpectralMap,
    evaluate,
    fit,
)
from residual.adapters.early_stopping import EarlyStopping, Epoch
from residual.errors import ResidualError
from residual.spectral import SpectralBases, fit_bases, pca
from residual.store.encode import encode_dataset
from residual.text import ZeroShotClassifier


def planted(n=400, seed=0):
    """Units 0 and 1 of width 8: unit 0's first four components carry the class, all else is louder noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (n,), generator=generator)
    contributions = 3 * torch.randn(n, 2, 8, generator=generator)
    contributions[:, 0, :4] = torch.nn.functional.one_hot(labels, 4) + 0.1 * torch.randn(
        n, 4, generator=generator
    )
    return contributions, labels


def planted_scores(adapter, contributions, labels):
    centred, rest = contributions - adapter.means.float(), torch.zeros(len(contributions), 8)
    return Scores(centred.flatten(1), adapter.directions.float(), rest, labels, "planted", (8, 8))


@pytest.fixture
def setting():
    """An adapter on the planted units, scores of both splits, and a classifier by the first four axes."""
    train, val = planted(), planted(200, 1)
    bases = SpectralBases([0, 1], train[0].mean(0), [torch.eye(8)] * 2, [torch.ones(8)] * 2)
    adapter = ResiDual(bases)
    classifier = ZeroShotClassifier(torch.eye(8)[:4] - 0.25 * torch.ones(8), list("abcd"))
    return adapter, planted_scores(adapter, *train), planted_scores(adapter, *val), classifier


def test_planted_structure_is_found(setting):
    adapter, _, val, classifier = setting
    before = evaluate(adapter, val, classifier)
    seen = []
    result = fit(*setting, progress=lambda _, done, total: seen.append((done, total)))
    assert before < 0.6
    assert result.val_accuracy > 0.97
    useful, harmful = adapter.lambdas[:4], adapter.lambdas[8:12]  # the classes' axes: of unit 0, of the noise
    assert useful.min() > 5 * harmful.abs().max()
    assert evaluate(adapter, val, classifier) == result.val_accuracy
    assert result.val_accuracy == max(epoch.val_accuracy for epoch in result.history)
    assert result.history[result.best_epoch - 1].val_accuracy == result.val_accuracy
    assert seen == [(number, 30) for number in range(1, len(result.history) + 1)]


def test_labels_of_scores_on_a_gpu_stay_there(setting):
    adapter, train, val, classifier = setting
    there = [replace(scores, labels=scores.labels.as_subclass(OnAGpu)) for scores in (train, val)]
    found = fit(adapter, *there, classifier, FitSettings(epochs=1), device="cpu")
    assert found.val_accuracy == evaluate(adapter, there[1], classifier)


def test_one_seed_gives_one_result(setting):
    adapter, *rest = setting
    start = adapter.lambdas.detach().clone()
    results, weights = [], []
    for seed in (0, 0, 1):
        adapter.lambdas.data.copy_(start)
        results.append(fit(adapter, *rest, settings=FitSettings(seed=seed, epochs=3)))
        weights.append(adapter.lambdas.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert results[0].history == results[1].history
    assert not torch.equal(weights[0], weights[2])


def test_stops_after_patience_and_keeps_the_best(setting):
    adapter, train, val, classifier = setting
    order = torch.randperm(len(val), generator=torch.Generator().manual_seed(0))
    shuffled = replace(val, labels=val.labels[order])
    result = fit(adapter, train, shuffled, classifier, FitSettings(patience=2))
    first = [epoch.val_accuracy for epoch in result.history].index(result.val_accuracy) + 1
    assert len(result.history) == first + 2
    assert evaluate(adapter, shuffled, classifier) == result.val_accuracy


def test_among_epochs_of_equal_accuracy_the_lowest_validation_loss_is_kept(setting):
    adapter, train, val, classifier = setting
    # One sample: accuracy is 0 or 1, the loss tells epochs apart.
    one = replace(val, scores=val.scores[:1], rest=val.rest[:1], labels=val.labels[:1])
    label = classifier.logits(one.output(torch.zeros_like(adapter.lambdas).to(one.scores))).argmax(dim=1)
    one = replace(one, labels=label)
    result = fit(adapter, train, one, classifier, FitSettings(epochs=8, patience=8))
    best = max(result.history, key=lambda epoch: (epoch.val_accuracy, -epoch.val_loss))
    assert result.best_epoch == best.epoch
    weights = adapter.lambdas.detach().to(one.scores)
    loss = cross_entropy(classifier.logits(one.output(weights)), label)
    assert loss.item() == pytest.approx(best.val_loss, rel=1e-4)


def test_same_steps_as_the_adapter_on_full_contributions():
    """One step in score space is one step of the same optimiser through `ResiDual.forward`."""
    store = encode_dataset(tiny_encoder(), TinyImages(n=60))
    adapter = ResiDual(fit_bases(store, ("mlp", "head")))
    classifier = ZeroShotClassifier.from_class_means(store.output(), store.labels, store.class_names)
    full = ResiDual(adapter.bases)
    full.lambdas = torch.nn.Parameter(full.lambdas.double())
    optimizer = AdamWScheduleFree(full.parameters(), lr=0.8)
    order = torch.Generator().manual_seed(7)
    optimizer.train()
    for picked in torch.randperm(60, generator=order).split(16):
        logits = classifier.logits(full(store.contributions(picked.numpy())))
        optimizer.zero_grad()
        cross_entropy(logits, torch.as_tensor(store.labels)[picked]).backward()
        optimizer.step()
    optimizer.eval()
    settings = FitSettings(epochs=1, batch_size=16, seed=7)
    fit(adapter, store, store, classifier, settings)
    torch.testing.assert_close(adapter.lambdas.double(), full.lambdas.detach(), rtol=1e-5, atol=1e-6)


def plain_loop(weights, output, train, val, classifier, settings, penalty):
    """The weights of the best epoch, by an optimiser of its library in a loop of a few lines."""
    order, home = torch.Generator().manual_seed(settings.seed), torch.zeros_like(weights)
    decay = settings.weight_decay
    if settings.decay_towards == "start":  # then it is zero that the way from there decays to
        home, decay = weights.detach().clone(), decay * 1000 / len(train)
    weights = (weights.detach() - home).requires_grad_()
    how = {"lr": settings.learning_rate, "weight_decay": decay}
    free = settings.optimizer == "schedule_free"
    optimizer = AdamWScheduleFree([weights], **how) if free else torch.optim.AdamW([weights], **how)
    total, step, epochs = settings.epochs * -(-len(train) // settings.batch_size), 0, []
    rising = math.floor(total * settings.warmup)
    for _ in range(settings.epochs):
        if free:
            optimizer.train()
        for picked in torch.randperm(len(train), generator=order).split(settings.batch_size):
            falling = (1 + math.cos(math.pi * (step - rising) / (total - rising))) / 2
            if not free:
                part = (step + 1) / rising if step < rising else falling
                optimizer.param_groups[0]["lr"] = settings.learning_rate * part
            optimizer.zero_grad()
            logits = classifier.logits(output(home + weights, train)[picked])
            (cross_entropy(logits, train.labels[picked]) + penalty(home + weights)).backward()
            optimizer.step()
            step += 1
        if free:
            optimizer.eval()
        with torch.no_grad():
            logits = classifier.logits(output(home + weights, val))
            hits = (logits.argmax(1) == val.labels).double().mean().item()
            loss = cross_entropy(logits, val.labels).item()
        epochs.append(((hits, -loss), home + weights.detach()))
    merits = [merit for merit, _ in epochs]
    return epochs[merits.index(max(merits))][1], merits.index(max(merits)) + 1


def test_every_kind_of_adapter_is_fitted_as_by_a_plain_loop(setting):
    adapter, *splits, classifier = setting
    bases = adapter.bases
    outputs = []
    for scores in splits:
        output = scores.output(torch.ones(16))
        outputs.append(Scores(output, torch.eye(8), torch.zeros_like(output), scores.labels, "planted"))
    spectral = SpectralMap(pca(outputs[0].scores.double()))
    turned = [replace(each, directions=spectral.directions.float()) for each in outputs]
    own = torch.tensor([1.0] * 3 + [0] * 5 + [1] * 5 + [0] * 3) > 0

    def whole(weights, scores):
        return scores.output(weights)

    def widened(weights, scores):
        return scores.output(torch.zeros(16).masked_scatter(own, weights))

    kinds = {
        "residual": (lambda: ResiDual(bases), splits, whole),
        "narrow": (lambda: ResiDual(bases, rank=[3, 5]), splits, widened),
        "coarse": (
            lambda: Coarse(bases, l1=0.01),
            splits,
            lambda weights, scores: whole(weights.repeat_interleave(8), scores),
        ),
        "spectral": (lambda: SpectralMap(pca(outputs[0].scores.double()), seed=1), turned, whole),
        "linear": (lambda: LinearMap(8), outputs, lambda weights, scores: scores.scores @ weights),
    }
    for optimizer, towards in product(("schedule_free", "adamw"), ("zero", "start")):
        for kind, (make, (train, val), output) in kinds.items():
            fitted, l1 = make(), 0.01 if kind == "coarse" else 0.0
            settings = FitSettings(
                0.01 if kind == "linear" else 0.1, epochs=4, seed=3, optimizer=optimizer,
                weight_decay=0.02 if towards == "zero" else 0.05, decay_towards=towards,
            )  # fmt: skip
            wanted, best = plain_loop(
                fitted.weights, output, train, val, classifier, settings, lambda w, l1=l1: l1 * w.abs().sum()
            )
            result = fit(fitted, train, val, classifier, settings, device="cpu")
            torch.testing.assert_close(fitted.weights.detach(), wanted, rtol=2e-4, atol=2e-5)
            assert result.best_epoch == best


def test_the_first_weights_are_kept_unless_an_epoch_is_better(setting):
    adapter, train, val, classifier = setting
    for good in (True, False):  # the start is all right, or all wrong
        adapter.lambdas.data = torch.tensor([float(good)] * 4 + [0.0] * 12)
        first = adapter.lambdas.detach().clone()
        settings = FitSettings(5.0 if good else 0.001, epochs=4, patience=2, or_start=True)
        result = fit(adapter, train, val, classifier, settings)
        assert (result.best_epoch == 0) is good
        assert torch.equal(adapter.lambdas, first) is good
        assert result.start.epoch == 0
        assert result.start.train_loss is None
        assert result.merit == max(each.merit for each in (result.start, *result.history))
        assert result.val_accuracy == evaluate(adapter, val, classifier)
        assert not good or len(result.history) == settings.patience
    with pytest.raises(ResidualError, match="The loss of the first weights on the validation samples isn't"):
        EarlyStopping(3, 1, 0.1).begin(0.5, math.inf)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
@hypothesis_settings(deadline=None, max_examples=50)
def test_one_rule_of_which_epoch_is_kept_and_when_to_stop(measured, patience, start):
    stopping, kept = EarlyStopping(12, patience, 0.1), 0
    if start:
        stopping.begin(start[0] / 3, float(start[1]))
    for number, (accuracy, loss) in enumerate(measured, 1):
        if stopping.done:
            break
        if stopping.add(Epoch(number, 1.0, accuracy / 3, float(loss))):
            kept = number
    seen = measured[: len(stopping.history)]
    every = [start or (-1, 0), *seen]  # the earliest of equals
    assert kept == stopping.best.epoch == every.index(max(every, key=lambda each: (each[0], -each[1])))
    accuracies = [accuracy for accuracy, _ in every]
    waited = len(seen) - accuracies.index(max(accuracies))
    assert stopping.done == (waited >= patience or len(seen) == 12)
    assert stopping.result(1.0).merit == stopping.best.merit
    if not start:
        again = EarlyStopping(12, patience, 0.1, stopping.history)
        assert (again.best, again.done) == (stopping.best, stopping.done)


def test_settings_are_checked_where_they_are_made():
    for name in ("learning_rate", "batch_size", "epochs", "patience"):
        with pytest.raises(ResidualError, match=rf"{name} takes a .* got 0\."):
            FitSettings(**{name: 0})
    assert FitSettings() == FitSettings(None, 64, 30, 5, 0)


def test_mismatches_are_refused_before_any_work(setting):
    adapter, train, val, classifier = setting
    start = adapter.lambdas.detach().clone()

    def refused(message, **change):
        whole = {"train": train, "val": val, "classifier": classifier}
        with pytest.raises(ResidualError, match=message):
            fit(adapter, **{**whole, **change})

    refused("There are no validation samples", val=planted_scores(adapter, *planted(0)))
    refused("go from 0 to 7, the classifier has 4", val=replace(val, labels=torch.arange(200) % 8))
    refused("go from -1 to", train=replace(train, labels=train.labels - 1))
    wide = ZeroShotClassifier(torch.eye(9), list("abcdefghi"))
    refused("samples have width 8, the classifier 9", classifier=wide)
    cut = replace(train, scores=train.scores[:, :5], directions=train.directions[:5], ranks=(5,))
    refused("on 5 components, the adapter has 16", train=cut)
    other = ZeroShotClassifier(classifier.weights, classifier.class_names, fingerprint="f" * 64)
    refused(r"another encoder \(weights planted\) than the classifier \(ffffffff\)", classifier=other)
    broken = val.scores.clone()
    broken[3, 3] = torch.nan
    with pytest.raises(ResidualError, match="The scores hold NaN or infinity"):
        replace(val, scores=broken)
    assert torch.equal(adapter.lambdas, start)
    with pytest.raises(ResidualError, match=r"200 samples need as many labels in a row; .* \(3,\)"):
        replace(val, labels=val.labels[:3])


def test_a_loss_that_is_not_finite_is_said(setting):
    adapter, *rest = setting
    with pytest.raises(
        ResidualError, match="no longer finite in epoch 1: try a smaller learning_rate than 1e"
    ):
        fit(adapter, *rest, settings=FitSettings(learning_rate=1e38))


def test_a_real_size_learns():
    """n = 3,000, K = 2,000, d = 128."""
    generator = torch.Generator().manual_seed(0)
    d, count = 128, 16
    components = [torch.linalg.qr(torch.randn(d, d, generator=generator))[0].T for _ in range(count)]
    bases = SpectralBases(range(count), torch.zeros(count, d), components, [torch.ones(d)] * count)
    adapter = ResiDual(bases)
    scores = Scores(
        torch.randn(3000, d * count, generator=generator), adapter.directions.float(), torch.zeros(3000, d),
        torch.zeros(3000, dtype=torch.long), "x", adapter.ranks,
    )  # fmt: skip
    classifier = ZeroShotClassifier(torch.randn(10, d, generator=generator), list("abcdefghij"))
    planted = 1 + 3 * torch.randn(d * count, generator=generator)
    scores = replace(scores, labels=classifier.logits(scores.output(planted)).argmax(1))
    before = evaluate(adapter, scores, classifier)
    result = fit(adapter, scores, scores, classifier, FitSettings(epochs=5))
    assert len(result.history) == 5
    assert evaluate(adapter, scores, classifier) > before + 0.2
