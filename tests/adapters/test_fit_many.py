"""Several fits at once are those fits one after the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset, fit_bases
from residual.adapters import Coarse, FitSettings, ResiDual, compute_scores, evaluate, fit, fit_many
from residual.errors import ResidualError
from residual.text import ZeroShotClassifier

SETTINGS = [
    FitSettings(learning_rate=rate, batch_size=16, epochs=12, patience=patience, seed=seed)
    for seed, (rate, patience) in enumerate([(0.8, 5), (0.05, 2), (0.8, 1), (0.3, 5)])
]


@pytest.fixture(scope="module")
def task():
    train, val = (encode_dataset(tiny_encoder(), TinyImages(n, seed=n)) for n in (90, 50))
    classifier = ZeroShotClassifier.from_class_means(train.output(), train.labels, train.class_names)
    return train, val, fit_bases(train), classifier


@pytest.mark.parametrize("kind", [ResiDual, Coarse])
def test_each_is_what_it_would_be_alone(task, kind):
    train, val, bases, classifier = task
    together, alone = ([kind(bases, seed=k) for k in range(4)] for _ in range(2))
    given = (*(compute_scores(together[0], store) for store in (train, val)), classifier)
    told = []
    found = fit_many(together, *given, SETTINGS, lambda _, *done: told.append(done))
    for adapter, single, setting, result in zip(together, alone, SETTINGS, found, strict=True):
        wanted = fit(single, *given, setting)
        torch.testing.assert_close(adapter.lambdas, single.lambdas, atol=1e-4, rtol=1e-3)
        assert result.best_epoch == wanted.best_epoch
        assert len(result.history) == len(wanted.history)
        assert result.val_accuracy == wanted.val_accuracy
        for ours, theirs in zip(result.history, wanted.history, strict=True):
            assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
        assert evaluate(adapter, *given[1:]) == result.val_accuracy
    lengths = {len(result.history) for result in found}
    assert len(lengths) > 1
    assert told[-1] == (max(lengths), 12)


def test_one_that_goes_wrong_is_told_by_its_learning_rate(task):
    encoder, classifier = tiny_encoder(dtype=torch.float32), task[3]
    store = encode_dataset(encoder, TinyImages(40))
    bases = fit_bases(store)
    adapters = [ResiDual(bases, seed=k) for k in range(2)]
    settings = [SETTINGS[0], replace(SETTINGS[0], learning_rate=1e38)]
    before = [adapter.lambdas.detach().clone() for adapter in adapters]
    classifier = ZeroShotClassifier(classifier.weights, classifier.class_names)
    with pytest.raises(ResidualError, match=r"smaller learning_rate than 1e\+38"):
        fit_many(adapters, store, store, classifier, settings)
    assert torch.equal(adapters[1].lambdas, before[1])  # no epoch of it was good
    assert adapters[0].lambdas.isfinite().all()


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (lambda bases: [], [], "Every fit needs an adapter and settings; got 0"),
        (lambda bases: [ResiDual(bases)], SETTINGS[:2], "got 1 adapters and 2 settings"),
        (lambda bases: [ResiDual(bases), Coarse(bases)], SETTINGS[:2], "adapters of one kind"),
        (lambda bases: [ResiDual(bases), ResiDual(bases, tail="keep")], SETTINGS[:2], "adapters of one kind"),
        (
            lambda bases: [ResiDual(bases), ResiDual(bases)],
            [SETTINGS[0], replace(SETTINGS[0], batch_size=8)],
            "the same batch_size in all",
        ),
    ],
)
def test_what_cannot_be_fitted_together(task, make, settings, message):
    train, val, bases, classifier = task
    with pytest.raises(ResidualError, match=message):
        fit_many(make(bases), train, val, classifier, settings)
