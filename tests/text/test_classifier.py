"""Class embeddings by their definition; names and rows that make no classifier are refused."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import OnAGpu, tiny_clip

from residual.data.hub.catalogue import classes_of
from residual.encoders.load import wrap_encoder
from residual.errors import ResidualError, SharedNameWarning
from residual.finite import correct
from residual.heads import unit_accuracy
from residual.text import TextDictionary, ZeroShotClassifier
from residual.text.classifier import check_class_names


def _tokenizer(texts, padding, truncation, max_length, return_tensors):
    rows = [[62, *(ord(letter) % 60 for letter in text[: max_length - 2]), 63] for text in texts]
    return {"input_ids": torch.tensor([row + [63] * (max_length - len(row)) for row in rows])}


@pytest.fixture
def encoder():
    return wrap_encoder(tiny_clip(dtype=torch.float32), tokenizer=_tokenizer)


def test_prompts_are_normalised_averaged_normalised(encoder):
    templates = ("a {}", "{} of {}", "my {}.")
    got = ZeroShotClassifier.from_text(encoder, ("cat", "dog"), templates)
    for row, name in zip(got.weights, ("cat", "dog"), strict=True):
        with torch.no_grad():
            each = encoder.encode_text([template.replace("{}", name) for template in templates])
        mean = (each / each.norm(dim=1, keepdim=True)).mean(0)
        torch.testing.assert_close(row, mean / mean.norm())
    assert got.scale == pytest.approx(math.exp(encoder.logit_scale))
    assert got.fingerprint == encoder.fingerprint
    assert not got.weights.requires_grad


def test_logits_are_scaled_cosines():
    classifier = ZeroShotClassifier(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), ["x", "y"], scale=10)
    logits = classifier.logits(torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(logits, torch.tensor([[6.0, 8.0]]))
    x = torch.tensor([[3.0, 4.0], [5.0, 1.0], [1.0, 2.0]])
    assert classifier.accuracy(x, np.array([1, 1, 1])) == pytest.approx(2 / 3)
    with pytest.raises(ResidualError, match="features of width 2, got 3"):
        classifier.logits(torch.zeros(1, 3))
    with pytest.raises(ResidualError, match="as many labels in a row, and one at least"):
        classifier.accuracy(torch.zeros(0, 2), np.zeros(0, dtype=np.int64))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.usefixtures("unchecked")
def test_labels_as_they_come():
    classifier, x, twos = ZeroShotClassifier(torch.eye(2), ["x", "y"]), torch.eye(2), [0, 1]
    fixed = np.array(twos)
    fixed.setflags(write=False)
    for labels in (twos, fixed, pd.Series(twos), np.uint16(twos), torch.tensor(twos).as_subclass(OnAGpu)):
        assert classifier.accuracy(x, labels) == 1
        assert torch.equal(ZeroShotClassifier.from_class_means(x, labels, ["x", "y"]).weights, torch.eye(2))
    for labels, said in (([0, -1], "got -1 to 0"), ([0, 0.5], "whole ones; got torch.float64")):
        with pytest.raises(ResidualError, match=said):
            classifier.accuracy(x, labels)


@pytest.mark.usefixtures("unchecked")
def test_labels_that_would_be_compared_with_every_sample():
    classifier, x = ZeroShotClassifier(torch.eye(2), ["x", "y"]), torch.eye(2).repeat(2, 1)
    for labels in (np.zeros((4, 1), int), np.zeros(1, int)):
        for wrong in (
            lambda labels=labels: classifier.accuracy(x, labels),
            lambda labels=labels: ZeroShotClassifier.from_class_means(x, labels, ["x", "y"]),
            lambda labels=labels: correct(classifier.logits(x), torch.from_numpy(labels)),
        ):
            with pytest.raises(
                ResidualError, match=r"4 samples need as many labels|labels of the shape \(4,\); got"
            ):
                wrong()
    with pytest.raises(ResidualError, match=r"of the shape \(2,\) need labels of the shape \(\); got \(1,\)"):
        correct(torch.eye(2)[0], torch.zeros(1, dtype=torch.long))
    whole = np.array([0, 1, 0, 1])
    whole.setflags(write=False)  # as of a file that is mapped; torch warns of such
    assert classifier.accuracy(x, whole) == 1.0
    assert unit_accuracy(x[:, None], classifier, whole).tolist() == [1.0]
    assert len(ZeroShotClassifier.from_class_means(x, whole, ["x", "y"])) == 2
    with pytest.raises(ResidualError, match="Labels must be 0 to 1, got 7 to 7"):
        classifier.accuracy(x, np.full(4, 7))
    with pytest.raises(ResidualError, match=r"Labels are class numbers, whole ones; got torch\.float64"):
        ZeroShotClassifier.from_class_means(x, np.zeros(4), ["x", "y"])


@pytest.mark.parametrize("size", [1e-6, 1.0, 3e4])
def test_half_precision_has_no_room_for_squares(size):
    """Its own norms are infinite, or zero: all features were of class 0, and such classes refused."""
    rows = size * torch.tensor([[1.0, 0.5, 2.0], [0.5, 2.0, 1.0]])
    classifier = ZeroShotClassifier(rows.half(), ["x", "y"])
    assert classifier.weights.norm(dim=1).tolist() == pytest.approx([1, 1], rel=1e-6)
    assert classifier.accuracy(rows.half(), np.array([0, 1])) == 1
    means = ZeroShotClassifier.from_class_means(rows.half(), np.array([0, 1]), ["x", "y"])
    torch.testing.assert_close(means.weights, classifier.weights)
    with pytest.raises(ResidualError, match="Logits hold NaN or infinity for 2 of 2 samples"):
        classifier.accuracy(1e20 * rows / size, np.array([0, 1]))
    dictionary = TextDictionary(["x", "y"], rows.half())
    torch.testing.assert_close(dictionary.embeddings, classifier.weights)
    assert [near[0][0] for near in dictionary.nearest(rows.half(), 1)] == ["x", "y"]


def test_class_means():
    features = torch.tensor([[2.0, 0.0], [0.0, 1.0], [4.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    labels = np.array([0, 1, 0, 1, 1])
    got = ZeroShotClassifier.from_class_means(features, labels, ["a", "b"])
    expected = torch.stack(
        [torch.tensor([1.0, 0.0]), torch.nn.functional.normalize(torch.tensor([1.0, 4.0]), dim=0)]
    )
    torch.testing.assert_close(got.weights, expected)
    with pytest.raises(ResidualError, match="No samples of classes c, d"):
        ZeroShotClassifier.from_class_means(features, labels, ["a", "b", "c", "d"])
    with pytest.raises(ResidualError, match="Labels must be 0 to 0, got 0 to 1"):
        ZeroShotClassifier.from_class_means(features, labels, ["a"])


def test_classes_may_share_a_name(encoder):
    names = classes_of("imagenet").names  # as published
    told = r"share a name, .* apart: missile, sunglasses\."
    with pytest.warns(SharedNameWarning, match=told) as first:
        check_class_names(encoder, names, ["a {}"])
    with pytest.warns(SharedNameWarning, match=told) as again:
        got = ZeroShotClassifier.from_text(encoder, names, ["a {}"])
    place, same = ((str(each[0].message), each[0].filename, each[0].lineno) for each in (first, again))
    assert place == same  # so that Python shows it once
    first, second = (k for k, name in enumerate(names) if name == "missile")
    assert torch.equal(got.weights[first], got.weights[second])
    assert got.class_names == names
    same = got.weights[[first, second]]
    assert got.accuracy(same, np.array([first, second])) == 0.5
    apart = ZeroShotClassifier.from_class_means(torch.eye(2), np.array([0, 1]), ["crane", "crane"])
    assert apart.accuracy(torch.eye(2), np.array([0, 1])) == 1
    with pytest.raises(ResidualError, match=r"No samples of classes crane \(1\): no mean"):
        ZeroShotClassifier.from_class_means(torch.eye(2), np.array([0, 0]), ["crane", "crane"])


def test_refusals(encoder):
    rows = torch.eye(2)
    with pytest.raises(ResidualError, match="1000000 classes need as many rows, got 2"):
        ZeroShotClassifier(rows, [str(k) for k in range(10**6)])
    with pytest.raises(ResidualError, match="can't be empty"):
        ZeroShotClassifier(rows, ["a", " "])
    with pytest.raises(ResidualError, match="at least one class"):
        ZeroShotClassifier(rows, [])
    with pytest.raises(ResidualError, match="3 classes need as many rows, got 2"):
        ZeroShotClassifier(rows, ["a", "b", "c"])
    with pytest.raises(ResidualError, match="No direction for classes b"):
        ZeroShotClassifier(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), ["a", "b"])
    with pytest.raises(ResidualError, match="No direction for classes b"):
        ZeroShotClassifier(torch.tensor([[1.0, 0.0], [0.0, torch.nan]]), ["a", "b"])
    with pytest.raises(ResidualError, match="must be positive, got 0"):
        ZeroShotClassifier(rows, ["a", "b"], scale=0.0)
    with pytest.raises(ResidualError, match=r"need {} where .* isn't in \['a photo'\]"):
        ZeroShotClassifier.from_text(encoder, ["a"], ["a {}", "a photo"])
    with pytest.raises(ResidualError, match="one prompt or more"):
        ZeroShotClassifier.from_text(encoder, ["a"], [])
