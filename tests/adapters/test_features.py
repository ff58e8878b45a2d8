"""Features without an encoder: fitted as the library's own are, and as scikit-learn's estimators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from tiny import TinyImages, tiny_encoder
from torch.nn.functional import cross_entropy, normalize

import residual
from residual.adapters import FitSettings, LinearMap, SpectralMap
from residual.adapters.estimators import ClassMeansClassifier, LinearMapClassifier, SpectralMapClassifier
from residual.errors import ResidualError, SharedSamplesError, SharedSamplesWarning
from residual.spectral import pca
from residual.text import ZeroShotClassifier

ESTIMATORS = (ClassMeansClassifier(), LinearMapClassifier(epochs=3), SpectralMapClassifier(epochs=3))
QUICK = {"epochs": 3}


def noisy(n=90, d=6, classes=3, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = np.random.default_rng(9).normal(size=(classes, d))
    return (centres[labels] + rng.normal(size=(n, d))).astype(dtype), labels


def test_the_same_fit_as_of_stores():
    encoder = tiny_encoder(layers=1, heads=2)
    parts = [residual.encode_dataset(encoder, TinyImages(24, 3, seed=seed)) for seed in range(3)]
    train, val, test = parts
    output = train.output()
    classifier = ZeroShotClassifier.from_class_means(output, train.labels, train.class_names)
    given = [(part.output(), part.labels) for part in parts]
    found = residual.fit_features(
        *given[0], val=given[1], test=given[2], recipe="paper", seeds=[0, 1], settings=QUICK, device="cpu"
    )
    how = FitSettings(epochs=3, seed=1)
    for made in (LinearMap(12), SpectralMap(pca(output), seed=1)):
        adapter = made.double()
        residual.fit(adapter, train, val, classifier, how, device="cpu")
        torch.testing.assert_close(found[adapter.method].adapters[1].weights, adapter.weights)
        expected = residual.adapters.evaluate(adapter, test, classifier)
        assert found[adapter.method].per_seed[1] == expected
    assert found["class_means"].accuracy == classifier.accuracy(*given[2])
    assert (found.n_train, found.n_val, found.n_test) == (24, 24, 24)


def test_the_lowest_loss_is_that_of_the_definition():
    """`min over M of mean cross-entropy of s · cos(x M, w)`, in float64 and by another way down."""
    x, y = (torch.tensor(each) for each in noisy(60, 4))
    found = residual.fit_features(
        x, y, val=(x, y), test=(x + 1, y), methods=["linear"], seeds=[0], recipe="paper", scale=5.0,
        device="cpu", settings={"optimizer": "adamw", "learning_rate": 0.05, "epochs": 200, "patience": 200},
    )["linear"]  # fmt: skip
    means = torch.stack([x[y == label].mean(0) for label in range(3)])
    matrix = torch.eye(4, dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        return cross_entropy(5 * normalize(x @ matrix, dim=1) @ normalize(means, dim=1).T, y)

    begun = loss().item()
    steps = torch.optim.Adam([matrix], lr=0.05)
    for _ in range(400):
        steps.zero_grad()
        loss().backward()
        steps.step()
    lowest = min(epoch.val_loss for epoch in found.results[0].history)
    assert lowest == pytest.approx(loss().item(), abs=4e-3)
    assert lowest < begun - 0.07
    assert found.adapters[0].weights.dtype == torch.float64


def test_a_spectral_map_of_all_components_with_weights_of_one_is_the_identity():
    x, y = noisy()
    model = SpectralMapClassifier(epochs=1, learning_rate=1e-300).fit(x, y)
    np.testing.assert_allclose(x @ model.map_ + model.offset_, x - x.mean(0), atol=1e-12)
    wide = residual.fit_features(
        *noisy(30, 50), methods=["spectral"], seeds=[0], settings=QUICK, device="cpu"
    )
    assert wide["spectral"].weights == 17  # of 18 samples, of which the mean is taken


def test_a_map_that_is_fitted_helps_and_its_interval_is_told():
    rng = np.random.default_rng(0)
    x, y = noisy(300, 4)
    loud = np.hstack([x, 6 * rng.normal(size=(300, 2))])
    found = residual.fit_features(loud, y, seeds=[0, 1], settings={"learning_rate": 0.05}, device="cpu")
    means, spectral = found["class_means"], found["spectral"]
    assert spectral.accuracy > means.accuracy + 0.05
    low, high = spectral.over_pictures
    assert 0 < low < spectral.accuracy < high < 1
    assert found.predict(loud, "spectral").shape == (300,)
    shown = str(found)
    assert "3 classes: trained on 180 samples, chosen on 60, tested on 60" in shown
    assert f"{100 * low:.1f} to {100 * high:.1f}" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    "labels", [["b", "a"] * 20, np.array(["x y", "é"] * 20), [7, 3] * 20, [-1.0, 2.5] * 20]
)
def test_labels_come_back_as_they_were_given(labels):
    x, _ = noisy(40, 5, 2, dtype=np.float32)
    found = residual.fit_features(x, labels, seeds=[0], settings=QUICK, device="cpu")
    assert found.classes.tolist() == sorted(set(np.asarray(labels).tolist()))
    assert set(found.predict(x, "linear").tolist()) <= set(np.asarray(labels).tolist())
    assert found["linear"].adapters[0].weights.dtype == torch.float32


def test_embeddings_of_texts_classify_and_shots_are_drawn_for_each_seed():
    x, y = noisy(120, 5)
    rows = np.stack([x[y == label].mean(0) for label in (2, 0, 1)])
    names = np.array(["c", "a", "b"])
    found = residual.fit_features(
        x, np.array(["a", "b", "c"])[y], class_embeddings=rows, class_names=names.tolist(), shots=[None, 2],
        seeds=[0, 1], settings=QUICK | {"optimizer": "adamw"}, methods=["linear"], device="cpu",
    )  # fmt: skip
    assert [(each.method, each.shots) for each in found.fits] == [
        ("zero_shot", None), ("linear", None), ("linear", 2),
    ]  # fmt: skip
    assert found["zero_shot"].accuracy > 0.6
    first, second = found.fits[2].adapters
    assert not torch.equal(first.weights, second.weights)
    alone = residual.fit_features(
        x, y, shots=2, seeds=[0, 1], settings=QUICK, methods=["linear"], device="cpu"
    )
    one, two = alone["linear"].classifiers
    assert not torch.equal(one.weights, two.weights)  # of the few samples alone
    again = residual.fit_features(x, y, shots=2, seeds=[1], settings=QUICK, methods=["linear"], device="cpu")
    torch.testing.assert_close(again["linear"].adapters[0].weights, alone["linear"].adapters[1].weights)


X, Y = noisy(30, 3)


@pytest.mark.parametrize(("val", "test"), [(X[18:24], X[10:]), (X[12:24], X[20:])])
def test_what_is_trained_on_or_chosen_by_is_no_test(val, test):
    val, test = ((rows, np.arange(len(rows)) % 3) for rows in (val, test))
    with pytest.raises(SharedSamplesError, match=r"of the \d+ samples of your own features are also among"):
        residual.fit_features(X[:18], Y[:18], val=val, test=test, methods="linear", device="cpu")


def test_a_validation_that_is_the_training_is_told():
    with pytest.warns(SharedSamplesWarning, match="24 of the 30 .* epoch is chosen by what was fitted"):
        residual.fit_features(
            X, Y, val=(X, Y), methods="linear", seeds=[0], settings={"epochs": 1}, device="cpu"
        )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "more", "says"),
    [
        ((X, Y[:-1]), {}, "30 rows of training features have 29 labels"),
        ((X, Y * 0), {}, r"All labels are of one class \(0\)"),
        ((np.where(X > 1, np.nan, X), Y), {}, r"Training features hold NaN or infinity: \d+ of 90"),
        ((X[:, 0], Y), {}, r"numbers \(n, d\), got the shape \(30,\)\. One row .*reshape"),
        ((X[:, :0], Y), {}, r"got the shape \(30, 0\)"),
        ((X.astype(str), Y), {}, "Training features are numbers"),
        ((X, np.eye(30)), {}, "label of sample 0 is a row of 30.*argmax"),
        ((X, [None] * 30), {}, "label of sample 0 is missing"),
        ((X, ["a", 1] * 15), {}, "all texts or all numbers, got both"),
        ((X, Y), {"methods": ["liner"]}, "Unknown method for features 'liner'. Did you mean 'linear'"),
        ((X, Y), {"seeds": []}, r"one at least: \[0, 1, 2\]; got \[\]"),
        ((X, Y), {"settings": {"epoch": 3}}, "Unknown setting 'epoch'. Did you mean 'epochs'"),
        ((X, Y), {"test": (X, Y + 1)}, "test label 3 is none of the 3 classes: 0, 1, 2"),
        ((X, Y), {"val": (X[:, :2], Y)}, "width 3 and 2"),
        ((X, Y), {"class_embeddings": X[:2]}, "none of the 2 classes"),
        ((X, Y), {"class_embeddings": X[:3, :2]}, "class_embeddings have width 2, features 3"),
        ((X, [*"abc"] * 10), {"class_embeddings": X[:3]}, "need class_names in their order"),
        ((X[:2], Y[:2]), {}, "2 samples are too few to be split: none is left for the"),
        ((X, Y), {"shots": 50}, "has 6 samples, fewer than 50 shots"),
        ((X * 0 + 1, Y), {"methods": ["spectral"]}, "of all samples are the same"),
    ],
)
def test_what_cannot_be_fitted_is_told(given, more, says):
    with pytest.raises(ResidualError, match=says):
        residual.fit_features(*given, device="cpu", **more)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda each: type(each).__name__)
def test_scikit_learn_s_checks(estimator):
    """Only those are left out that scikit-learn skips by itself, where SCIPY_ARRAY_API isn't set."""
    found = check_estimator(estimator, on_skip=None)
    assert {each["check_name"] for each in found if each["status"] != "passed"} <= {"check_array_api_input"}


def test_in_a_pipeline_and_a_search():
    x, y = noisy(60, 4)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), SpectralMapClassifier(epochs=2)),
        {"spectralmapclassifier__rank": [1, 4]}, cv=2,
    ).fit(x, y)  # fmt: skip
    assert search.best_score_ > 0.5
    rows = np.stack([x[y == label].mean(0) for label in range(3)])
    texts = ClassMeansClassifier(rows).fit(x, y)
    np.testing.assert_array_equal(texts.offset_, 0)
    with pytest.raises(ValueError, match="center is True, False or 'auto', got 'yes'"):
        ClassMeansClassifier(center="yes").fit(x, y)
    model = LinearMapClassifier(random_state=np.random.RandomState(0), epochs=1).fit(x, y)
    assert len(model.result_.history) == 1
    with pytest.raises(ValueError, match="'x' cannot be used to seed"):
        LinearMapClassifier(random_state="x").fit(x, y)
