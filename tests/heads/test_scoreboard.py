"""The scoreboard: its accuracies are those of ablated outputs, its intervals hold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset, fit_bases
from residual.errors import ResidualError
from residual.heads import (
    Scoreboard,
    ScoreboardSettings,
    ablate,
    random_share,
    score_units,
    scoreboard,
    top_share,
    unit_correlation,
)
from residual.text import TextDictionary, ZeroShotClassifier

SETTINGS = ScoreboardSettings(shares=(0.1, 0.5), seeds=6)


@pytest.fixture(scope="module")
def stores():
    return [encode_dataset(tiny_encoder(), TinyImages(160, seed=seed)) for seed in (1, 2)]


@pytest.fixture(scope="module")
def classifier(stores):
    return ZeroShotClassifier.from_class_means(stores[0].output(), stores[0].labels, stores[0].class_names)


def cell(board: Scoreboard, way: str, share: float = math.nan) -> pd.Series:
    rows = board.rows[board.rows["way"] == way]
    return rows[rows["share"].isna() if math.isnan(share) else rows["share"] == share].iloc[0]


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_accuracies_are_those_of_the_best_units_on_other_samples(stores, classifier, mode):
    store, test = stores
    board = scoreboard(store, classifier, test, replace(SETTINGS, mode=mode))
    scores = score_units(store, classifier)
    units, means = scores["unit"].tolist(), store.contributions().double().mean(0)
    everything = test.contributions()

    def accuracy(keep):
        output = ablate(everything, keep)
        if mode == "mean":
            output = output + means[[unit for unit in range(len(means)) if unit not in keep]].sum(0)
        return classifier.accuracy(output.double(), test.labels)

    for share in SETTINGS.shares:
        for way in ("accuracy", "span", "correlation"):
            keep = top_share(scores[way].tolist(), share, units)
            assert board.selections[f"{way} {share:g}"] == keep
            assert cell(board, way, share)["accuracy"] == pytest.approx(accuracy(keep), abs=1 / 159)
            assert cell(board, way, share)["heads"] == len(keep)
        drawn = [accuracy(random_share(units, share, seed)) for seed in range(SETTINGS.seeds)]
        assert cell(board, "random", share)["accuracy"] == pytest.approx(np.mean(drawn), abs=1 / 159)
        over = cell(board, "span", share)
        random = cell(board, "random", share)["accuracy"]
        assert over["over_random"] == pytest.approx(over["accuracy"] - random)
        full = cell(board, "all units")["accuracy"]
        assert over["over_full"] == pytest.approx(over["accuracy"] - full)
    whole = list(range(len(store.units)))
    assert cell(board, "all units")["accuracy"] == pytest.approx(accuracy(whole), abs=1 / 159)
    assert cell(board, "all heads")["accuracy"] == pytest.approx(accuracy(units), abs=1 / 159)
    for name in ("correlation", "span", "accuracy"):
        np.testing.assert_allclose(board.scores[name], scores[name], atol=1e-4)


def test_intervals_are_about_as_wide_as_binomial_ones(stores, classifier):
    """All units are no choice: what is left is the sampling of the tested images."""
    store, test = stores
    board = scoreboard(store, classifier, test, replace(SETTINGS, seeds=60))
    row = cell(board, "all heads")
    share = row["accuracy"]
    wanted = 1.96 * math.sqrt(share * (1 - share) / len(test))
    assert row["accuracy_high"] - share == pytest.approx(wanted, rel=0.4)


def test_the_interval_is_t_times_the_deviation_over_seeds(stores, classifier):
    """Of two tested samples one is right, and each seed tests on one: k of n seeds see 1, the others 0."""
    store, test = stores
    right = classifier.logits(test.output().double()).argmax(1).numpy() == test.labels
    two = test.subset([int(right.argmax()), int(right.argmin())])
    for seeds, quantile in ((2, 12.706), (3, 4.303)):
        widths = set()
        for seed in range(8):
            how = replace(SETTINGS, seeds=seeds, seed=seed)
            row = cell(scoreboard(store, classifier, two, how), "all units")
            assert row["accuracy"] == 0.5
            widths.add(round(row["accuracy_high"] - 0.5, 6))
        # the variance is k (n - k) / (n (n - 1)), which is 1 / n where k is 1 or n - 1
        assert widths == {0, round(quantile / math.sqrt(seeds), 6)}


def test_the_same_seed_gives_the_same_and_another_another(stores, classifier):
    first, again, other = (
        scoreboard(*stores[:1], classifier, stores[1], replace(SETTINGS, seed=seed)) for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first.rows, again.rows)
    assert not first.rows.equals(other.rows)


def test_one_store_is_halved(stores, classifier):
    board = scoreboard(stores[1], classifier, settings=SETTINGS)
    assert board.rows["accuracy"].between(0, 1).all()
    assert (board.rows["accuracy_low"] <= board.rows["accuracy"]).all()
    assert set(board.rows["way"]) == {"all units", "all heads", "accuracy", "span", "correlation", "random"}


def test_without_a_test_store_heads_are_tested_on_the_other_half(stores, classifier):
    """Where labels are random, the best head of one half is like any other on the other half."""
    labels = np.random.default_rng(0).integers(0, 4, 32)
    store = replace(stores[1].subset(range(32)), labels=labels)
    board = scoreboard(store, classifier, settings=ScoreboardSettings(shares=(0.01,), seeds=20))
    alone, chosen = board.scores["accuracy"], cell(board, "accuracy", 0.01)["accuracy"]
    assert chosen < alone.max() - 0.05  # on the half itself it would be above


def test_groups_have_a_worst_one(stores, classifier):
    store, test = stores
    grouped = replace(test, groups=np.arange(len(test)) % 3, group_names=("a", "b", "c"))
    board = scoreboard(store, classifier, grouped, SETTINGS)
    hits = classifier.logits(test.output().double()).argmax(1).numpy() == test.labels
    worst = min(hits[np.arange(len(test)) % 3 == group].mean() for group in range(3))
    assert cell(board, "all units")["worst_group"] == pytest.approx(worst, abs=1 / 50)
    assert (board.rows["worst_group"] <= board.rows["accuracy"] + 1e-9).all()
    assert "worst_group" not in scoreboard(store, classifier, test, SETTINGS).rows


def test_trained_weights_and_texts_are_ways_too(stores, classifier):
    store, test = stores
    units = store.units["unit"][store.units["kind"] == "head"].tolist()
    weights = torch.linspace(-3, 1, len(units))
    texts = TextDictionary([f"text {k}" for k in range(9)], torch.randn(9, classifier.dim))
    board = scoreboard(
        store, classifier, test, SETTINGS, trained=weights, bases=fit_bases(store), dictionary=texts
    )
    assert board.selections["trained 0.1"] == units[: len(board.selections["trained 0.1"])]
    assert {"trained", "effect", "pursuit"} <= set(board.rows["way"])
    deviations = store.contributions(units=units).double().std(0).square().sum(1).sqrt()
    np.testing.assert_allclose(board.scores["effect"], weights.abs() * deviations, rtol=1e-3)


def test_what_does_not_belong_together_is_refused(stores, classifier):
    store, test = stores
    with pytest.raises(ResidualError, match="don't belong together: class_names"):
        scoreboard(store, classifier, replace(test, class_names=("a", "b", "c", "d")))
    with pytest.raises(ResidualError, match="don't belong together: fingerprint"):
        scoreboard(store, classifier, replace(test, fingerprint="other"))
    with pytest.raises(ResidualError, match="12 units need as many trained weights, got 2"):
        scoreboard(store, classifier, test, trained=torch.ones(2))
    for few in (1, 3):
        with pytest.raises(ResidualError, match=f"needs 4 at least, and tiny/train has {few}: encode more"):
            scoreboard(store.subset(range(few)), classifier, test)
    assert len(scoreboard(store.subset(range(8)), classifier, settings=SETTINGS).rows) == 2 + 2 * 4


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"shares": ()}, "shares takes a list of numbers, each above 0 and at most 1"),
        ({"shares": (0.5, 2.0)}, "shares takes a list of numbers, each above 0 and at most 1"),
        ({"seeds": 1}, "seeds takes a whole number from 2 to 1,000"),
        ({"counting": "up"}, "counting takes 'rounded' or 'published'"),
        ({"mode": "none"}, "mode takes 'zero' or 'mean'; got 'none'"),
        ({"atoms": 0}, "atoms takes a whole number, at least 1"),
    ],
)
def test_bad_settings(how, message):
    with pytest.raises(ResidualError, match=message):
        ScoreboardSettings(**how)


def test_heads_alone_and_shares_as_published(stores, classifier):
    store, test = stores
    settings = ScoreboardSettings((0.01, 0.5), seeds=3, alone=True, counting="published")
    board = scoreboard(store, classifier, test, settings)
    heads = board.scores["unit"].tolist()
    contributions = store.contributions()[:, heads].double()
    for way, directions in (("head_correlation", None), ("head_span", classifier.weights)):
        wanted = unit_correlation(contributions, directions)
        np.testing.assert_allclose(board.scores[way], wanted, atol=1e-4)
        best = wanted.argsort(descending=True).tolist()
        for share, count in ((0, 1), (0.01, 2), (0.5, 6)):  # of 12 heads
            assert board.selections[f"{way} {share:g}"] == sorted(heads[place] for place in best[:count])
            assert cell(board, way, share)["heads"] == count
    assert cell(board, "random", 0.01)["heads"] == 2


@pytest.mark.parametrize("few", [4, 5, 7])
def test_few_samples_are_halved_all_the_same(stores, classifier, few):
    store, test = stores
    board = scoreboard(store.subset(range(few)), classifier, test, SETTINGS)
    assert board.rows["accuracy"].between(0, 1).all()
