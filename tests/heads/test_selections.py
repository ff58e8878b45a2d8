"""Selections of units: which stay, how alike two are, and how many samples each gets right."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from families import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset, wrap_encoder
from residual.errors import ResidualError
from residual.heads import (
    SHARES,
    ablate,
    ablations,
    accuracy,
    correct_by_selection,
    correct_by_unit,
    count_of,
    jaccard,
    jaccard_table,
    kept_layers,
    mean_contributions,
    random_share,
    top_share,
    unit_accuracy,
)
from residual.text import ZeroShotClassifier
from residual.tracing.units import Units


@given(
    scores=st.lists(st.floats(-3, 3), min_size=1, max_size=60),
    share=st.floats(0.001, 1),
)
def test_the_best_share(scores, share):
    chosen = top_share(scores, share)
    assert len(chosen) == max(1, math.floor(share * len(scores) + 0.5))
    assert chosen == sorted(set(chosen))
    left = [scores[unit] for unit in range(len(scores)) if unit not in chosen]
    assert not left or min(scores[unit] for unit in chosen) >= max(left)


def test_ties_go_to_the_first_and_positions_are_kept():
    assert top_share([1.0, 2.0, 2.0, 2.0], 0.5) == [1, 2]
    assert top_share(torch.tensor([5.0, 1.0, 9.0]), 0.67, [30, 41, 52]) == [30, 52]
    assert top_share([1.0] * 48, SHARES[0]) == [0]


@given(seed=st.integers(0, 1000), share=st.sampled_from(SHARES))
def test_random_heads_are_as_many_and_follow_the_seed(seed, share):
    units = list(range(9, 57))
    chosen = random_share(units, share, seed)
    assert chosen == random_share(units, share, seed)
    assert len(chosen) == len(top_share([0.0] * 48, share))
    assert set(chosen) <= set(units)


def test_different_seeds_choose_differently():
    assert len({tuple(random_share(list(range(48)), 0.25, seed)) for seed in range(20)}) == 20


def test_shares_are_counted_as_published():
    """Rounded down, at least two heads at 1 %; of a ViT-L/14 and of a ViT-B/16."""
    for units, wanted in ((384, (3, 19, 38, 96, 192, 288)), (144, (2, 7, 14, 36, 72, 108)), (1, (1,) * 6)):
        assert tuple(count_of(share, units, "published") for share in SHARES) == wanted
    with pytest.raises(ResidualError, match="counting is 'rounded' or 'published', got 'up'"):
        count_of(0.5, 10, "up")


@settings(deadline=None)
@given(layers=st.integers(1, 4), heads=st.integers(1, 3), pool=st.booleans())
def test_layers_that_are_kept_are_what_they_say(layers, heads, pool):
    units = Units(layers, heads, pool).table
    kept = kept_layers(units)
    assert len(kept) == 2 + 3 * layers
    for name, chosen in kept.items():
        *_, last = name.split()
        for row in units.to_dict("records"):
            head, layer = row["kind"] == "head", -1 if pd.isna(row["layer"]) else row["layer"]
            stays = {
                "only heads": head,
                "all but heads": not head,
                f"only heads of layer {last}": head and str(layer) == last,
                f"only heads up to layer {last}": head and last.isdigit() and layer <= int(last),
                f"only layers up to {last}": last.isdigit() and layer <= int(last),
            }[name]
            assert (row["unit"] in chosen) == stays, name


@settings(deadline=None)
@given(layers=st.integers(1, 4), heads=st.integers(1, 3), pool=st.booleans())
def test_ablations_leave_out_what_they_say(layers, heads, pool):
    units = Units(layers, heads, pool).table
    found = ablations(units)
    everything = set(units["unit"])
    rows = [(row.unit, row.kind, row.layer) for row in units.itertuples()]
    assert everything - set(found["no heads"]) == {unit for unit, kind, _ in rows if kind == "head"}
    assert everything - set(found["no emb"]) == {0}
    for layer in range(layers):
        for about, inside in (
            ("of", lambda its, layer=layer: its == layer),
            ("up to", lambda its, layer=layer: its <= layer),
            ("from", lambda its, layer=layer: its >= layer),
        ):
            for kind, name in (("head", "heads"), ("mlp", "mlps")):
                out = {unit for unit, its, where in rows if its == kind and inside(where)}
                assert everything - set(found[f"no {name} {about} layer {layer}"]) == out
    assert found[f"no heads up to layer {layers - 1}"] == found["no heads"] == found["no heads from layer 0"]


def test_jaccard():
    assert jaccard([1, 2, 3], np.array([3, 2, 9])) == 0.5
    units = Units(layers=2, heads=3)
    assert jaccard(["1.0", "mlp.0"], [6, 5], units) == 1 / 3
    assert jaccard(["emb"], [True, *[False] * 8], units) == 1.0
    assert (jaccard([], []), jaccard([1], []), jaccard([4, 4], [4])) == (1.0, 0.0, 1.0)
    table = jaccard_table({"a": [1, 2], "b": [2], "c": [5]})
    wanted = pd.DataFrame(
        [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]], index=list("abc"), columns=list("abc"), dtype=float
    )
    pd.testing.assert_frame_equal(table, wanted)


def test_bad_shares():
    for share in (0.0, -0.1, 1.1, math.nan):
        with pytest.raises(ResidualError, match=r"share of units lies in \(0, 1\]"):
            top_share([1.0, 2.0], share)
    with pytest.raises(ResidualError, match="3 units need as many scores, and one at least; got 2"):
        top_share([1.0, 2.0], 0.5, [1, 2, 3])
    with pytest.raises(ResidualError, match="one at least; got 0"):
        top_share([], 0.5)


# What they get right


@pytest.fixture(scope="module", params=["tiny", "timm attention pool"])
def stores(request):
    if request.param == "tiny":
        encoder, size = tiny_encoder(), 32
    else:
        encoder = wrap_encoder(CASES[request.param].make())
        size = encoder.image_size[0]
    return [encode_dataset(encoder, TinyImages(60, seed=seed, size=size)) for seed in (1, 2)]


def classifier_of(store) -> ZeroShotClassifier:
    """Class means, so that there is something to get right."""
    return ZeroShotClassifier.from_class_means(store.output(), store.labels, store.class_names)


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_hits_of_selections_are_those_of_ablated_outputs(stores, mode):
    store, classifier = stores[0], classifier_of(stores[1])
    count = len(store.units)
    selections = {
        "all": np.ones(count, bool),
        "none but one": [count - 1],
        "some": torch.arange(count) % 3 == 0,
        **ablations(store.units),
    }
    found = correct_by_selection(store, classifier, selections, mode)
    contributions = store.contributions()
    for place, keep in enumerate(selections.values()):
        logits = classifier.logits(ablate(contributions, keep, mode).double())
        best = logits.topk(2, 1).values
        sure = best[:, 0] - best[:, 1] > 1e-4 * best.abs().amax(1)  # no tie that rounding decides
        wanted = logits.argmax(1) == torch.from_numpy(store.labels)
        assert sure.double().mean() > 0.8
        assert torch.equal(found[sure, place], wanted[sure])
    assert found[:, 0].double().mean() > 0.4


def test_the_rest_can_be_put_at_the_means_of_other_samples(stores):
    store, other = stores
    classifier, means = classifier_of(other), mean_contributions(other)
    torch.testing.assert_close(means, other.contributions().double().mean(0), atol=1e-4, rtol=1e-3)
    keep = list(range(5))
    found = correct_by_selection(store, classifier, {"few": keep}, "mean", means)[:, 0]
    output = ablate(store.contributions(), keep) + means[5:].sum(0)
    wanted = classifier.logits(output.double()).argmax(1) == torch.from_numpy(store.labels)
    assert (found == wanted).double().mean() > 0.95


def test_many_samples_go_through_in_parts(stores, monkeypatch):
    store, classifier = stores[0], classifier_of(stores[1])
    whole = correct_by_selection(store, classifier, {"a": [1, 2, 3]})
    monkeypatch.setattr(accuracy, "_LOGITS", 7 * len(store.units) * len(classifier))
    told = []
    parts = correct_by_selection(
        store, classifier, {"a": [1, 2, 3]}, progress=lambda _, done, total: told.append((done, total))
    )
    assert torch.equal(whole, parts)
    assert told[0] == (7, 60)
    assert told[-1] == (60, 60)


def test_units_alone(stores):
    store, classifier = stores[0], classifier_of(stores[1])
    units = [len(store.units) - 1, 0, 2]
    found = correct_by_unit(store, classifier, units)
    wanted = unit_accuracy(store.contributions(units=units), classifier, store.labels)
    np.testing.assert_allclose(found.double().mean(0), wanted, atol=1 / 59)


def test_what_the_store_does_not_keep_is_refused():
    store = encode_dataset(tiny_encoder(), TinyImages(6), kinds=("head",))
    classifier = ZeroShotClassifier(torch.randn(4, store.linearization.output_dim), store.class_names)
    assert correct_by_selection(store, classifier, {"heads": [4, 5]}).shape == (6, 1)
    with pytest.raises(ResidualError, match=r"doesn't keep units \[0, 2\], only head"):
        correct_by_selection(store, classifier, {"more": [0, 2, 5]})


def test_a_mask_alone_tells_no_units():
    """It may be of all units, of heads alone, or of those that are scored."""
    mask = np.array([True, False, True])
    for wrong in (lambda: jaccard(mask, [0, 2]), lambda: top_share([1.0, 2.0], 0.5, mask)):
        with pytest.raises(ResidualError, match=r"Units are whole numbers in a row; got array\(\[ True"):
            wrong()
