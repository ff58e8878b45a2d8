"""Scores of units: by their definitions on contributions, the same from a store, and planted heads found."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from families import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import OnAGpu, TinyImages, tiny_encoder
from torch.utils._python_dispatch import TorchDispatchMode

from residual import encode_dataset, fit_bases, wrap_encoder
from residual.errors import ResidualError
from residual.heads import (
    SCORES,
    ablate,
    score_units,
    unit_accuracy,
    unit_correlation,
)
from residual.heads.accuracy import correct_by_unit
from residual.heads.contributions import ranks, span_of
from residual.heads.scores import OutputCorrelations
from residual.text import TextDictionary, ZeroShotClassifier, somp
from residual.tracing.units import Units


def plain_ranks(x: np.ndarray) -> np.ndarray:
    return np.array([np.mean([1 + j for j, value in enumerate(sorted(x)) if value == each]) for each in x])


def plain_correlation(
    c: np.ndarray, directions: np.ndarray | None = None, method: str = "pearson"
) -> list[float]:
    """The definition, a unit and a coordinate at a time."""
    if directions is not None:
        c = c @ np.linalg.qr(directions.T)[0]
    total, found = c.sum(1), []
    for unit in range(c.shape[1]):
        values = []
        for k in range(c.shape[2]):
            a, b = c[:, unit, k], total[:, k]
            if method == "spearman":
                a, b = plain_ranks(a), plain_ranks(b)
            a, b = a - a.mean(), b - b.mean()
            scale = math.sqrt((a @ a) * (b @ b))
            values.append(a @ b / scale if scale > 1e-20 else 0.0)
        found.append(float(np.mean(values)))
    return found


def random_contributions(n: int, u: int, d: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, 1, d))
    return torch.from_numpy(common * rng.uniform(-1, 1, (u, 1)) + rng.standard_normal((n, u, d)) + 2.0)


SIZES = {
    "n": st.integers(3, 20),
    "u": st.integers(1, 5),
    "d": st.integers(1, 6),
    "seed": st.integers(0, 10_000),
}


@settings(deadline=None)
@given(**SIZES, c=st.integers(0, 8), method=st.sampled_from(["pearson", "spearman"]))
def test_correlation_is_its_definition(n, u, d, seed, c, method):
    contributions = random_contributions(n, u, d, seed)
    directions = np.random.default_rng(seed).standard_normal((c, d)) if c else None
    got = unit_correlation(contributions, None if c == 0 else torch.from_numpy(directions), method)
    np.testing.assert_allclose(got, plain_correlation(contributions.numpy(), directions, method), atol=1e-9)


@settings(deadline=None)
@given(values=st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_tied_ranks_are_shared(values):
    got = ranks(torch.tensor(values, dtype=torch.float64)[:, None])[:, 0]
    np.testing.assert_allclose(got, plain_ranks(np.array(values, float)))


def test_a_unit_that_is_the_whole_output_correlates_fully():
    contributions = random_contributions(30, 3, 5, 0)
    contributions[:, [0, 2]] = 0.7  # constant
    assert unit_correlation(contributions).tolist() == pytest.approx([0, 1, 0])
    contributions[:, 2] = -3 * contributions[:, 1]
    assert unit_correlation(contributions).tolist() == pytest.approx([0, -1, 1])
    assert unit_correlation(contributions.exp(), method="spearman").abs().max() <= 1


def test_directions_that_depend_on_others_add_nothing():
    contributions, directions = random_contributions(30, 3, 6, 1), torch.randn(2, 6).double()
    more = torch.cat([directions, directions[:1] - 2 * directions[1:]])
    torch.testing.assert_close(
        unit_correlation(contributions, more), unit_correlation(contributions, directions)
    )


@settings(deadline=None)
@given(**SIZES, c=st.integers(2, 5), mode=st.sampled_from(["zero", "mean"]))
def test_accuracy_and_ablation_are_their_definitions(n, u, d, seed, c, mode):
    rng = np.random.default_rng(seed)
    contributions = random_contributions(n, u, d, seed)
    weights, labels = rng.standard_normal((c, d)), rng.integers(0, c, n)
    classifier = ZeroShotClassifier(torch.from_numpy(weights), [f"class {k}" for k in range(c)])
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    got = unit_accuracy(contributions, classifier, labels)
    wanted = [(np.argmax(contributions[:, k].numpy() @ unit.T, 1) == labels).mean() for k in range(u)]
    np.testing.assert_allclose(got, wanted)
    keep = rng.random(u) < 0.5
    plain = contributions.numpy().copy()
    plain[:, ~keep] = 0 if mode == "zero" else plain[:, ~keep].mean(0)
    for how in (keep, np.flatnonzero(keep), torch.from_numpy(keep), np.flatnonzero(keep).tolist()):
        np.testing.assert_allclose(ablate(contributions, how, mode), plain.sum(1), atol=1e-12)


# Stores


def random_classifier(store, seed: int = 3) -> ZeroShotClassifier:
    rows = torch.randn(len(store.class_names), store.linearization.output_dim, generator=_seeded(seed))
    return ZeroShotClassifier(rows, store.class_names)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=["tiny", "open_clip", "timm attention pool", "siglip"])
def store(request):
    """Of encoders with a class token, and of those that attend to tokens at the end."""
    name = next((case for case in CASES if case.startswith(request.param)), None)
    if request.param == "tiny":
        return encode_dataset(tiny_encoder(), TinyImages(40, seed=2))
    if name is None:
        pytest.fail(f"there is no case {request.param}")
    encoder = wrap_encoder(CASES[name].make())
    return encode_dataset(encoder, TinyImages(40, seed=2, size=encoder.image_size[0]))


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_scores_of_a_store_are_those_of_its_contributions(store, method):
    classifier = random_classifier(store)
    kinds = ("mlp", "head")
    found = score_units(store, classifier, kinds=kinds, method=method)
    assert set(found["kind"]) == set(kinds)
    contributions = store.contributions()
    chosen = found["unit"].tolist()
    for name, directions in (("correlation", None), ("span", classifier.weights)):
        wanted = unit_correlation(contributions, directions, method)[chosen]
        np.testing.assert_allclose(found[name], wanted, atol=2e-4)
    wanted = unit_accuracy(contributions, classifier, store.labels)[chosen]
    np.testing.assert_allclose(found["accuracy"], wanted, atol=1 / 39)


class Reads(TorchDispatchMode):
    """Counts numbers that are read off a tensor, for which one waits for its device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_more_is_read_off_the_device_for_more_units():
    store = encode_dataset(tiny_encoder(), TinyImages(12))
    classifier, contributions, found = random_classifier(store), store.contributions(), set()
    for units in (1, 12):
        with Reads() as reads:
            alone = correct_by_unit(store, classifier, range(units))
            unit_accuracy(contributions[:, :units], classifier, store.labels)
        found.add(reads.count)
    assert len(found) == 1
    assert alone.shape == (12, 12)


def test_parts_of_the_samples_add_up(store):
    parts = np.arange(len(store)) % 4
    units = store.units["unit"].tolist()
    whole, dealt = OutputCorrelations(store, units), OutputCorrelations(store, units, parts)
    torch.testing.assert_close(whole.values(), dealt.values(), atol=1e-6, rtol=1e-5)
    few = unit_correlation(store.contributions(samples=np.flatnonzero(np.isin(parts, [1, 3]))))
    torch.testing.assert_close(dealt.values(parts=[3, 1]), few, atol=2e-4, rtol=1e-3)


def test_the_variance_that_texts_explain(store):
    bases = fit_bases(store, ("head",))
    texts = TextDictionary([f"text {k}" for k in range(20)], torch.randn(20, bases.dim, generator=_seeded(1)))
    found = score_units(store, random_classifier(store), ("pursuit",), bases=bases, dictionary=texts, atoms=4)
    for unit, value in zip(found["unit"], found["pursuit"], strict=True):
        rows = store.contributions(units=[unit])[:, 0].double()
        wanted = somp(rows, texts, 4, "std").explained_variance[-1]
        assert value == pytest.approx(float(wanted), abs=2e-3)


def test_a_planted_head_is_first_by_every_informed_score():
    """Class embeddings are written by one head; the others write noise, and nothing into their span."""
    rng = _seeded(0)
    n, u, d, c, planted = 400, 12, 32, 4, 7
    classifier = ZeroShotClassifier(torch.eye(d)[:c], [f"class {k}" for k in range(c)])
    labels = torch.randint(0, c, (n,), generator=rng)
    contributions = 0.3 * torch.randn(n, u, d, generator=rng)
    contributions[..., :c] *= 0.2
    contributions[:, planted] += 2 * classifier.weights[labels]
    assert unit_correlation(contributions).argmax() == planted
    assert unit_correlation(contributions, classifier.weights).argmax() == planted
    assert unit_accuracy(contributions, classifier, labels).argmax() == planted
    alone = classifier.accuracy(ablate(contributions, [planted]), labels)
    assert alone == classifier.accuracy(contributions[:, planted], labels) > 0.95
    texts = TextDictionary([f"class {k}" for k in range(c)], classifier.weights)
    explained = [somp(contributions[:, k], texts, 3, "std").explained_variance[-1] for k in range(u)]
    assert int(np.argmax(explained)) == planted


# What doesn't fit


@pytest.mark.usefixtures("unchecked")
def test_bad_contributions():
    block = random_contributions(5, 3, 4, 0)
    classifier = ZeroShotClassifier(torch.eye(4)[:2], ["a", "b"])
    with pytest.raises(ResidualError, match="at least 2 samples, got 1"):
        unit_correlation(block[:1])
    with pytest.raises(ResidualError, match=r"Unknown method 'kendall'\. Known: pearson, spearman"):
        unit_correlation(block, method="kendall")
    with pytest.raises(ResidualError, match="directions have width 5, the contributions 4"):
        unit_correlation(block, torch.ones(1, 5))
    with pytest.raises(ResidualError, match=r"5 samples need as many labels in a row.*shape \(4,\)"):
        unit_accuracy(block, classifier, np.zeros(4, int))
    with pytest.raises(ResidualError, match="Labels must be 0 to 1, got 0 to 2"):
        unit_accuracy(block, classifier, np.array([0, 1, 2, 0, 0]))
    with pytest.raises(ResidualError, match=r"Units are 0 to 2, got \[3\]"):
        ablate(block, [0, 3])
    with pytest.raises(ResidualError, match=r"or a mask of 3 booleans; got \[True, False\]"):
        ablate(block, [True, False])
    with pytest.raises(ResidualError, match=r"Unknown mode 'median'\. Known: zero, mean"):
        ablate(block, [0], "median")


def test_bad_requests_of_a_store(store):
    classifier = random_classifier(store)
    with pytest.raises(ResidualError, match=r"Unknown scores: best\. Known: correlation, span"):
        score_units(store, classifier, ("best",))
    with pytest.raises(ResidualError, match="These scores need a classifier: span, accuracy"):
        score_units(store, None)
    alone, beside = (score_units(store, given, ("correlation",)) for given in (None, classifier))
    assert alone.equals(beside)
    with pytest.raises(ResidualError, match="needs bases of the units and a dictionary"):
        score_units(store, classifier, ("pursuit",))
    wide = ZeroShotClassifier(torch.eye(99)[: len(classifier)], classifier.class_names)
    with pytest.raises(ResidualError, match="takes features of width 99"):
        score_units(store, wide, ("accuracy",))
    few = ZeroShotClassifier(classifier.weights[:1], classifier.class_names[:1])
    with pytest.raises(ResidualError, match="Labels must be 0 to 0"):
        score_units(store, few, ("accuracy",))


def test_stores_of_some_kinds_or_of_several_tokens_are_refused():
    encoder, images = tiny_encoder(), TinyImages(6)
    heads = encode_dataset(encoder, images, kinds=("head",))
    with pytest.raises(ResidualError, match="without units of kind emb, mlp"):
        score_units(heads, random_classifier(heads))
    assert "accuracy" in score_units(heads, random_classifier(heads), ("accuracy",))
    patches = encode_dataset(encoder, images, pooling="patches")
    with pytest.raises(ResidualError, match="several tokens an image"):
        score_units(patches, random_classifier(patches), ("accuracy",))


def test_every_score_has_a_name():
    assert list(SCORES) == ["correlation", "span", "accuracy", "pursuit"]


def test_a_class_with_two_names_takes_nothing_of_the_others():
    """A direction that depends on those before it adds none, and those after it keep all of theirs."""
    rows = torch.randn(4, 6, dtype=torch.float64)
    twice = rows[[0, 0, 1, 2, 1, 3]]
    span = span_of(twice, 6)
    assert span.shape == (6, 4)
    torch.testing.assert_close(span.T @ span, torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(span @ (span.T @ rows.T), rows.T)
    torch.testing.assert_close(span_of(rows, 6) @ (span_of(rows, 6).T @ rows.T), rows.T)
    contributions = torch.randn(20, 3, 6, dtype=torch.float64)
    torch.testing.assert_close(unit_correlation(contributions, twice), unit_correlation(contributions, rows))
    with pytest.raises(ResidualError, match="The 2 directions are all zero: they span nothing"):
        unit_correlation(contributions, torch.zeros(2, 6))


@pytest.mark.usefixtures("unchecked")
def test_units_are_whole_numbers_or_a_mask_of_all():
    units = Units(layers=1, heads=2)
    positions = [torch.tensor([1, 3]).as_subclass(OnAGpu), pd.Series([1.0, 3.0]), iter([1, np.int16(3)])]
    masks = [[False, True, False, True], torch.tensor([0, 1, 0, 1]).bool().as_subclass(OnAGpu)]
    for right in (*positions, *masks, np.array(masks[0])):
        assert units.checked(right) == [1, 3]
    for wrong in ([0.7], [math.nan], [[1, 2], [3]], [[1, 2]], [1, True], masks[0][1:]):
        with pytest.raises(ResidualError, match="numbers in a row, or a mask of 4 booleans; got "):
            units.checked(wrong)
        with pytest.raises(ResidualError, match="numbers in a row, or a mask of 4 booleans; got "):
            ablate(torch.randn(2, 4, 4), wrong)
