"""Score space is exact: loss and gradient are those of full contributions; many at once are those alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import OnAGpu, TinyImages, tiny_encoder
from torch.nn.functional import cross_entropy

from residual import encode_dataset, fit_bases
from residual.adapters import (
    Coarse,
    FitSettings,
    ResiDual,
    adapted_output,
    compute_scores,
    evaluate,
    few_shot,
    fit,
    fit_many,
)
from residual.errors import ResidualError
from residual.heads import DescribeSettings, describe_heads
from residual.text import TextDictionary, ZeroShotClassifier


def test_loss_and_gradient_are_those_of_full_contributions():
    @given(
        rank=st.sampled_from([None, 1, 0.7]),
        others=st.sampled_from(["keep", "mean", "zero"]),
        tail=st.sampled_from(["drop", "keep"]),
        mean=st.sampled_from(["drop", "keep"]),
        init=st.sampled_from(["randn", "eigenvalues"]),
        centering=st.sampled_from(["shared", "own"]),
        kinds=st.sampled_from([("head",), ("mlp", "head"), ("emb", "head")]),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        coarse=st.booleans(),
    )
    @settings(deadline=None, max_examples=40)
    def check(rank, others, tail, mean, init, centering, kinds, dtype, coarse):
        store = encode_dataset(tiny_encoder(centering=centering, dtype=dtype, layers=2), TinyImages(25))
        bases = fit_bases(store, kinds)
        adapter = Coarse(bases) if coarse else ResiDual(bases, rank, others, tail, init, mean=mean)
        classifier = ZeroShotClassifier.from_class_means(store.output(), store.labels, store.class_names)
        y, scores = torch.from_numpy(store.labels), compute_scores(adapter, store)
        loss = cross_entropy(classifier.logits(adapter(store.contributions())), y)
        (wanted,) = torch.autograd.grad(loss, adapter.lambdas)
        outputs = adapter.outputs(
            adapter.lambdas[None].to(scores.scores), scores.scores[None], scores.directions, scores.rest[None]
        )
        ours = cross_entropy(classifier.logits(outputs[0]), y)
        (gradient,) = torch.autograd.grad(ours, adapter.lambdas)
        close = {"atol": 1e-4, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 1e-6, "rtol": 1e-6}
        torch.testing.assert_close(ours, loss, **close)
        scale = wanted.abs().max()
        torch.testing.assert_close(gradient / scale, wanted / scale, **close)

    check()


@pytest.fixture(scope="module")
def task():
    train, val = (encode_dataset(tiny_encoder(), TinyImages(n, seed=n)) for n in (90, 50))
    classifier = ZeroShotClassifier.from_class_means(train.output(), train.labels, train.class_names)
    return train, val, fit_bases(train), classifier


def test_scores_in_a_mapped_file_give_the_same_fit(task, tmp_path):
    train, val, bases, classifier = task
    held, mapped = ResiDual(bases), ResiDual(bases)
    usual = [compute_scores(held, store) for store in (train, val)]
    filed = [compute_scores(mapped, store, 16, file=tmp_path / f"{len(store)}.npy") for store in (train, val)]
    assert np.load(tmp_path / "90.npy").shape == (90, len(held.lambdas))
    for one, other in zip(usual, filed, strict=True):
        torch.testing.assert_close(one.scores, other.scores)
    for adapter, (first, second) in ((held, usual), (mapped, filed)):
        fit(adapter, first, second, classifier, FitSettings(epochs=4))
    torch.testing.assert_close(held.lambdas, mapped.lambdas, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tail", ["drop", "keep"])
@pytest.mark.parametrize("optimizer", ["schedule_free", "adamw", "lbfgs"])
def test_ranks_at_once_are_what_each_would_be_alone(task, tail, optimizer):
    train, val, bases, classifier = task
    ranks = [1, 0.6, None, [1 + place % 3 for place in range(len(bases))]]
    together, alone = (
        [ResiDual(bases, rank, tail=tail, seed=k) for k, rank in enumerate(ranks)] for _ in range(2)
    )
    settings = [
        FitSettings(
            seed=k, epochs=3, batch_size=32, optimizer=optimizer, learning_rate=0.5, decay_towards="start",
            weight_decay=0 if optimizer == "lbfgs" else 0.2 * k, or_start=k < 2,
        )
        for k in range(len(ranks))
    ]  # fmt: skip
    wide = [compute_scores(together, store) for store in (train, val)]
    assert wide[0].scores.shape[1] == sum(bases.ranks)
    found = fit_many(together, train, val, classifier, settings)
    for adapter, single, setting, result in zip(together, alone, settings, found, strict=True):
        own = [compute_scores(single, store) for store in (train, val)]
        wanted = fit(single, *own, classifier, setting)
        torch.testing.assert_close(adapter.lambdas, single.lambdas, atol=1e-4, rtol=1e-3)
        assert result.best_epoch == wanted.best_epoch
        assert evaluate(adapter, wide[1], classifier) == result.val_accuracy
        torch.testing.assert_close(
            adapted_output(adapter, wide[1]), adapted_output(adapter, own[1]), atol=1e-6, rtol=1e-6
        )


def test_subsets_at_once_are_what_each_would_be_alone(task):
    train, val, bases, classifier = task
    shots = [1, 4, None, 2, 16]
    subsets = [None if k is None else few_shot(train.labels, k, seed=k) for k in shots]
    together, alone = ([ResiDual(bases, seed=k) for k in range(5)] for _ in range(2))
    settings = [FitSettings(seed=k, epochs=4, batch_size=24) for k in range(5)]
    scores, val_scores = (compute_scores(together[0], store) for store in (train, val))
    fit_many(together, scores, val_scores, classifier, settings, subsets=subsets)
    for adapter, single, setting, subset in zip(together, alone, settings, subsets, strict=True):
        picked = np.arange(len(train)) if subset is None else subset
        parts = {name: getattr(scores, name)[picked] for name in ("scores", "rest", "labels")}
        fit(single, replace(scores, **parts), val_scores, classifier, setting)
        torch.testing.assert_close(adapter.lambdas, single.lambdas, atol=1e-4, rtol=1e-3)


@pytest.mark.usefixtures("unchecked")
def test_masks_are_no_positions_and_shapes_fit(task):
    """As numbers a mask is of the first two samples, or units, alone."""
    train, val, bases, classifier = task
    masks = train.labels > 0, np.isin(np.arange(len(train.units)), bases.units[1:3])
    chosen = [np.flatnonzero(mask) for mask in masks]
    scores, val_scores = (compute_scores(ResiDual(bases), store) for store in (train, val))
    by_mask, by_position = (ResiDual(bases) for _ in range(2))
    settings = FitSettings(epochs=1, missing="ignore")
    given_both = ([by_mask, by_position], scores, val_scores, classifier, [settings] * 2)
    fit_many(*given_both, subsets=[masks[0], chosen[0]])
    torch.testing.assert_close(by_mask.lambdas, by_position.lambdas)
    assert bases.select(masks[1]).units == bases.units[1:3]
    contributions = train.contributions(units=chosen[1])
    assert torch.equal(train.contributions(units=masks[1]), contributions)
    with pytest.raises(ResidualError, match="A subset holds positions of 0 to"):
        fit_many([by_mask], *given_both[1:4], [settings], subsets=[np.array([0.5])])
    one = TextDictionary(["a"], torch.ones(1, bases.dim)), bases
    of_bases = np.arange(len(bases)) == 1
    for wrong in (
        lambda: bases.select([0.7]),
        lambda: bases.select(of_bases),
        lambda: train.contributions(units=[0.7]),
        lambda: describe_heads(train, None, *one, of_bases, DescribeSettings(atoms=1)),
    ):
        with pytest.raises(ResidualError, match=r"whole numbers in a row, or a mask of \d+ booleans"):
            wrong()
    halves = scores.labels / 2
    for part in ({"rest": scores.rest[:2]}, {"directions": scores.rest[:2]}, {"labels": halves}):
        with pytest.raises(ResidualError, match=r"go with a rest \(n, d\), directions \(K, d\) and whole"):
            replace(scores, **part)
    with pytest.raises(ResidualError, match=r"rank is None, an int, a float in \(0, 1\), or"):
        ResiDual(bases, rank=[1.7] * len(bases))
    there = torch.ones(len(bases), dtype=torch.long).as_subclass(OnAGpu)
    assert ResiDual(bases, rank=there).ranks == (1,) * len(bases)
    assert ResiDual(bases, rank=np.float32(0.5)).ranks == ResiDual(bases, rank=0.5).ranks


def test_penalties_of_their_own_at_once(task):
    train, val, bases, classifier = task
    penalties = [0.0, 0.3, 3.0]
    together, alone = ([Coarse(bases, "ones", l1=l1) for l1 in penalties] for _ in range(2))
    scores, val_scores = (compute_scores(together[0], store) for store in (train, val))
    given_val = (scores, val_scores, classifier)
    for optimizer in ("schedule_free", "lbfgs"):
        settings = FitSettings(epochs=6, patience=6, optimizer=optimizer)
        fit_many(together, *given_val, [settings] * 3)
        for adapter, single in zip(together, alone, strict=True):
            fit(single, *given_val, settings)
            torch.testing.assert_close(adapter.lambdas, single.lambdas, atol=1e-4, rtol=1e-3)
    sums = [adapter.lambdas.abs().sum().item() for adapter in together]
    assert sums[0] > sums[1] > sums[2]


@pytest.mark.parametrize("optimizer", ["schedule_free", "adamw", "lbfgs"])
def test_the_weights_that_labels_were_drawn_with_are_found(task, optimizer):
    """They are known up to their length, which a cosine doesn't see, and as far as they move the output."""
    store, bases = encode_dataset(tiny_encoder(), TinyImages(3000, seed=8)), task[2]
    generator = torch.Generator().manual_seed(3)
    bases = bases.select(bases.units[:1])
    planted = torch.rand(sum(bases.ranks), generator=generator) + 0.5
    truth = ResiDual(bases, others="zero", init=planted)
    rows = torch.randn(8, 12, generator=generator, dtype=torch.float64)
    classifier = ZeroShotClassifier(rows, [f"class {k}" for k in range(8)], scale=20.0)
    scores = compute_scores(truth, store)
    odds = classifier.logits(adapted_output(truth, scores)).softmax(1)
    labels = torch.multinomial(odds, 1, generator=generator)[:, 0]
    adapter = ResiDual(bases, others="zero", init="ones")
    moves = bases.eigenvalues[0].sqrt()
    start = torch.cosine_similarity(adapter.lambdas.detach() * moves, planted * moves, dim=0)
    settings = FitSettings(
        learning_rate=1.0 if optimizer == "lbfgs" else 0.02, epochs=30, patience=30, optimizer=optimizer
    )
    scores = replace(scores, labels=labels)
    fit(adapter, scores, scores, classifier, settings)
    found = torch.cosine_similarity(adapter.lambdas.detach() * moves, planted * moves, dim=0)
    assert start < 0.99
    assert found > 0.9995
    losses = [
        cross_entropy(classifier.logits(adapted_output(each, scores)), labels) for each in (adapter, truth)
    ]
    assert losses[0] < losses[1] + 0.002  # hardly any weights are likelier than those found


@pytest.mark.usefixtures("unchecked")
def test_few_shots_are_so_many_of_each_class():
    labels = np.repeat(np.arange(4), [5, 9, 30, 7])
    for shots in (1, 5):
        chosen = few_shot(labels, shots, seed=2)
        assert np.bincount(labels[chosen]).tolist() == [shots] * 4
        assert np.array_equal(chosen, few_shot(labels, shots, seed=2))
        assert not np.array_equal(chosen, few_shot(labels, shots, seed=3))
        shuffled = np.random.default_rng(2).permutation(51)
        plainly = [shuffled[labels[shuffled] == label][:shots] for label in range(4)]
        assert np.array_equal(chosen, np.sort(np.concatenate(plainly)))
    with pytest.raises(ResidualError, match="Class 0 has 5 samples, fewer than 6 shots"):
        few_shot(labels, 6)
    with pytest.raises(ResidualError, match="shots is 1 or more, of labels in a row"):
        few_shot(labels, 0)
    with pytest.raises(ResidualError, match=r"got 1 of the shape \(51, 1\)"):
        few_shot(labels[:, None], 1)


def test_a_class_without_training_samples_is_refused_by_name(task):
    train, val, bases, classifier = task
    scores, val_scores = (compute_scores(ResiDual(bases), store) for store in (train, val))
    labels = torch.where(scores.labels == 2, 1, scores.labels)
    given_all = (replace(scores, labels=labels), val_scores, classifier)
    with pytest.raises(ResidualError, match=r"No training samples of class 2\. Add some"):
        fit(ResiDual(bases), *given_all)
    fit(ResiDual(bases), *given_all, FitSettings(epochs=1, missing="ignore"))
    with pytest.raises(ResidualError, match="No training samples of class 0, class 1, class 3"):
        fit_many(
            [ResiDual(bases)], scores, val_scores, classifier, [FitSettings()],
            subsets=[np.flatnonzero(train.labels == 2)],
        )  # fmt: skip


@pytest.mark.parametrize("subset", [np.array([0, 90]), np.array([-1]), np.array([], np.int64)])
def test_subsets_that_cannot_be(task, subset):
    train, val, bases, classifier = task
    adapter = ResiDual(bases)
    given_all = (train, val, classifier, [FitSettings()])
    with pytest.raises(ResidualError, match="A subset holds positions of 0 to 89, at least one"):
        fit_many([adapter], *given_all, subsets=[subset])
    with pytest.raises(ResidualError, match="Every fit needs a subset or None; got 2 of 1 fits"):
        fit_many([adapter], *given_all, subsets=[None, None])
    with pytest.raises(ResidualError, match="At least one adapter is needed"):
        compute_scores([], train)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer takes 'schedule_free', 'adamw' or 'lbfgs'; got 'sgd'"),
        ({"warmup": 1.0}, "warmup takes a number, at least 0 and below 1; got 1.0"),
        ({"weight_decay": -1}, "weight_decay takes a number, at least 0, or None; got -1"),
        ({"optimizer": "lbfgs", "weight_decay": 0.1}, "lbfgs takes no weight_decay, got 0.1"),
        ({"decay_towards": "one"}, "decay_towards takes 'zero' or 'start'; got 'one'"),
        ({"missing": "skip"}, "missing takes 'raise' or 'ignore'; got 'skip'"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(ResidualError, match=message):
        FitSettings(**change)
