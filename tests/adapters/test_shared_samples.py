"""What is chosen by samples or fitted on them isn't tested by them; bases are of the tokens they serve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TinyImages, tiny_encoder

from residual import ResiDual, decompose, encode_dataset, fit_bases
from residual.adapters import AdaptedEncoder, FitSettings, compute_scores, evaluate, few_shot, fit
from residual.adapters.card import TrainingRecord
from residual.errors import FewSamplesWarning, OtherPoolingError, SharedSamplesError, SharedSamplesWarning
from residual.heads import ScoreboardSettings, scoreboard
from residual.heads.linear import best_linear
from residual.spectral import compare_bases
from residual.store.shared import Seen
from residual.text import ZeroShotClassifier
from residual.workflows.evaluate import evaluate_encoder
from residual.workflows.task import make_task, reference_from

QUICK = FitSettings(epochs=1, missing="ignore")
BOARD = ScoreboardSettings(shares=(0.5,), seeds=2)


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(dtype=torch.float32)


@pytest.fixture(scope="module")
def stores(encoder):
    return {
        name: encode_dataset(encoder, TinyImages(60, seed=seed))
        for seed, name in enumerate(("train", "val", "test"), 1)
    }


@pytest.fixture(scope="module")
def classifier(stores):
    of = stores["train"]
    return ZeroShotClassifier.from_class_means(of.output(), of.labels, of.class_names, None, of.fingerprint)


def part(stores, own: int, others: int):
    """So many samples of test, and so many of val."""
    whole = stores["test"]
    rows = np.r_[:own], np.r_[:others]
    both = [whole.subset(rows[0]), stores["val"].subset(rows[1])]
    joined = {name: np.concatenate([getattr(each, name) for each in both]) for name in ("labels", "digests")}
    coordinates = whole.coordinates[torch.from_numpy(np.r_[:own, :others])]
    ids = tuple(str(k) for k in range(own + others))
    return replace(both[0], coordinates=coordinates, sample_ids=ids, **joined)


def test_heads_arent_tested_on_the_samples_that_they_are_chosen_by(stores, classifier, recwarn):
    val = stores["val"]
    with pytest.raises(SharedSamplesError, match=r"All 60 samples of tiny/\w+ are also among .* heads"):
        scoreboard(val, classifier, val, BOARD)
    with pytest.raises(SharedSamplesError, match=r"20 of the 60 samples .*: that is no test\. Test on"):
        scoreboard(val, classifier, part(stores, 40, 20), BOARD)
    with pytest.warns(SharedSamplesWarning, match=r"3 of the 60 samples .* too high by up to 5 points"):
        scoreboard(val, classifier, part(stores, 57, 3), BOARD)
    recwarn.clear()
    scoreboard(val, classifier, stores["test"], BOARD)
    assert not recwarn.list
    with pytest.warns(FewSamplesWarning, match="Only 5 pictures"):
        scoreboard(val, classifier, stores["test"].subset(range(5)), BOARD)


@pytest.mark.parametrize("twice", [("train", "test"), ("val", "test")])
def test_a_task_isnt_tested_on_what_it_learns_from(encoder, stores, twice):
    images = TinyImages(60)
    given = stores | {twice[1]: stores[twice[0]]}
    with pytest.raises(SharedSamplesError, match=r"All 60 samples .* (fitted on|chosen by): that is no"):
        make_task(encoder, "tiny", {"train": images}, given, 0.0)


def test_fits_tell_of_samples_that_they_learn_from_twice(stores, classifier):
    train, val, test = stores.values()
    adapter = ResiDual(fit_bases(train))
    with pytest.warns(SharedSamplesWarning, match=r"All 60 samples .*: the epoch is chosen by what was"):
        fit(adapter, train, train, classifier, QUICK, device="cpu")
    scores = compute_scores(adapter, train, device="cpu")
    nameless = replace(scores, seen=None)
    with pytest.warns(SharedSamplesWarning, match="The same scores are given for training and validation"):
        fit(adapter, nameless, nameless, classifier, QUICK, device="cpu")
    rows = few_shot(train.labels, 3)
    fit(adapter, scores.take(rows), val, classifier, QUICK, device="cpu")
    with pytest.warns(SharedSamplesWarning, match=rf"{len(rows)} of the 60 samples .* was fitted on or"):
        evaluate(adapter, train, classifier)
    with pytest.warns(FewSamplesWarning, match="Only 4 pictures say next to nothing"):
        evaluate(adapter, test.subset(range(4)), classifier)
    own = (train.output(), train.labels)
    with pytest.warns(SharedSamplesWarning, match="the decay is chosen by what was fitted"):
        best_linear(own, own, len(classifier))


def test_an_adapter_that_was_kept_knows_its_own_pictures_by_name(encoder, stores, classifier):
    record = TrainingRecord(dataset="tiny")
    adapted = AdaptedEncoder(encoder, ResiDual(fit_bases(stores["train"])), classifier, record)
    images = TinyImages(60, seed=3)
    for split, told in (("train", "trained on"), ("val", "chosen by")):
        images.split = split
        with pytest.warns(SharedSamplesWarning, match=f"tiny/{split} is what the adapter was {told}"):
            evaluate_encoder(adapted, images)


def test_samples_without_digests_are_known_by_their_ids(stores):
    """As those of pixels in stores of 0.1."""
    old = replace(stores["val"], digests=np.zeros(60, np.uint64), dataset="a/val")
    other = replace(old, dataset="a/test")
    assert Seen.of(old).take(np.array([0, 2])).among(Seen.of(old)) == 2
    assert Seen.of(old).among(Seen.of(other)) == 0


def test_bases_of_patches_arent_those_of_the_pooled_token(encoder, stores, classifier, tmp_path):
    train = stores["train"]
    bases = fit_bases(encode_dataset(encoder, TinyImages(20, seed=1), pooling="patches"), ("mlp", "head"))
    with pytest.raises(OtherPoolingError, match=r"of pooling 'patches' \(tiny/\w+\), the store .*'own'"):
        compute_scores(ResiDual(bases), train, device="cpu")
    with pytest.raises(OtherPoolingError, match="Take bases of a store of the same pooling"):
        fit(ResiDual(bases), train, stores["val"], classifier, QUICK)
    bases.save(tmp_path / "patches.safetensors")
    with pytest.raises(OtherPoolingError, match="are of pooling 'patches', and tiny pools otherwise itself"):
        reference_from(encoder, str(tmp_path / "patches.safetensors"))
    study = compare_bases(bases, fit_bases(train, ("mlp", "head")))  # which is what poolings are compared by
    assert len(study) == len(bases)
    assert decompose(encoder, torch.zeros(1, 3, *encoder.image_size)).contributions.shape[1] == 1
