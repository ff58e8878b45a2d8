"""A dictionary that can't describe the data says so: planted ones, and attributes of digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset, load_dataset, load_encoder
from residual.errors import ResidualError
from residual.heads import DescribeSettings
from residual.heads.suits import suited
from residual.report import DescribedHeads, write_heads_page
from residual.text import TextDictionary, ZeroShotClassifier
from residual.workflows.describe import describe_store


def principal_directions(store) -> torch.Tensor:
    output = store.output().double().numpy()
    return torch.from_numpy(np.linalg.svd(output - output.mean(0))[2].copy()).float()


def test_both_shares_are_those_of_the_variance_along_planted_texts():
    store = encode_dataset(tiny_encoder(), TinyImages(40, classes=3))
    axes = principal_directions(store)
    output = store.output().double().numpy()
    parts = np.linalg.svd(output - output.mean(0))[1] ** 2
    parts /= parts.sum()
    classifier = ZeroShotClassifier(axes[:3], store.class_names)
    few = DescribeSettings(atoms=2)
    for first, kind in ((0, True), (4, False)):
        texts = TextDictionary([f"text {k}" for k in range(4)], axes[first : first + 4])
        found = suited(store, texts, classifier, few)
        assert found is not None
        assert found.by_classes == pytest.approx(parts[:2].sum(), rel=1e-4)
        assert found.told == pytest.approx(parts[first : first + 2].sum(), rel=1e-4)
        assert (found.count, found.suits) == (2, kind)
        assert found.verdict.startswith(f"The dictionary can{'' if kind else chr(39) + 't'} describe these")
        assert suited(store, texts, classifier, DescribeSettings(atoms=2, suits=0)).suits
    heads = encode_dataset(tiny_encoder(), TinyImages(40, classes=3), kinds=("head",))
    assert suited(heads, texts, classifier, few) is None
    with pytest.raises(ResidualError, match="embeddings have width 12, the classifier 5"):
        suited(store, texts, ZeroShotClassifier(torch.eye(5)[:3], store.class_names), few)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The best heads of a hundred digits, by the list of attributes."""
    path = tmp_path_factory.mktemp("digits") / "store"
    encode_dataset(load_encoder("picto", device="cpu"), load_dataset("digits", "test").sample(100), path)
    return describe_store(str(path), "attributes", None, DescribeSettings(top=3, components=1, images=2))


def test_no_digit_is_told_to_be_a_stony_texture(described, tmp_path):
    result, told = described.result, described.heads
    assert not result["dictionary"]["suited"]["suits"]
    assert "can't describe these pictures: the best 10 of its texts explain" in result["notes"][0]
    assert all(head["texts"] for head in result["heads"])  # they are told, but as no names
    assert not any(head["named"] for head in result["heads"])
    assert all(head["verdict"].endswith("no name.") for head in result["heads"])
    assert isinstance(told, DescribedHeads)
    page = write_heads_page(tmp_path / "heads.html", told).read_text(encoding="utf-8")
    shown = page.split("</nav>")[0]
    assert shown.count("no name") == 3
    assert "texture" not in shown
    assert "The dictionary can&#39;t describe these pictures" in shown
    assert 'class="near"' not in page
