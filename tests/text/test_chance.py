"""What texts explain by chance, against plain draws one by one; what was planted gets its name."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from residual.errors import ResidualError
from residual.text import Chance, TextDictionary, omp, somp, text_span
from residual.text.chance import FLOOR, Range, chances, compact

WIDTH, ENTRIES, COUNT = 48, 150, 4


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def texts():
    """With much in common, as texts have."""
    embeddings = drawn(ENTRIES, WIDTH, seed=1) + 2 * drawn(WIDTH, seed=2)
    return TextDictionary([f"text {k}" for k in range(ENTRIES)], embeddings)


def random_head(seed: int) -> torch.Tensor:
    amounts = drawn(300, 12, seed=seed) * torch.linspace(2, 0.2, 12)
    return amounts @ drawn(12, WIDTH, seed=seed + 1)


def test_a_head_of_three_texts_is_named_with_them_and_a_random_one_is_not(texts):
    amounts = drawn(300, 3, seed=5) * torch.tensor([3.0, 2.0, 1.5])
    planted = amounts @ texts.embeddings[[7, 70, 101]] + 0.2 * drawn(300, WIDTH, seed=6)
    for found in (somp(planted, texts, COUNT, chance=True), text_span(planted, texts, COUNT, chance=True)):
        assert found.named
        assert {"text 7", "text 70", "text 101"} <= set(found.texts)
    wrong = [somp(random_head(seed), texts, COUNT, chance=True).named for seed in range(10, 40, 2)]
    assert sum(wrong) <= 1
    one = omp(texts.embeddings[:1], texts, 1, chance=True)
    assert one.named
    assert somp(planted, texts, COUNT).named is None


def test_both_lines_are_those_of_plain_draws(texts):
    """Random directions as a dictionary of their own; texts drawn and fitted by least squares."""
    rows = random_head(3)
    rows = rows - rows.mean(0)
    (chance,) = chances([compact(rows)], texts.embeddings, COUNT)
    best, least = [], []
    for seed in range(30):
        directions = normalize(drawn(ENTRIES, WIDTH, seed=100 + seed), dim=1)
        best.append(somp(rows, directions, COUNT, "std").explained_variance[-1].item())
        order = torch.randperm(ENTRIES, generator=torch.Generator().manual_seed(seed))
        chosen = texts.embeddings[order[:COUNT]]
        left = rows.T - chosen.T @ torch.linalg.lstsq(chosen.T, rows.T).solution
        least.append(1 - (left.square().sum() / rows.square().sum()).item())
    for line, plain in ((chance.directions, best), (chance.texts, least)):
        assert line.mean == pytest.approx(np.mean(plain), abs=3 * np.std(plain) / 5)
        assert np.mean([line.low <= share <= line.high for share in plain]) >= 0.8


def test_heads_together_are_each_alone_and_a_seed_is_kept(texts):
    heads = [random_head(seed) for seed in (1, 3)]
    both = chances(heads, texts.embeddings, COUNT)
    assert [*both] == [chances([head], texts.embeddings, COUNT)[0] for head in heads]
    assert both != chances(heads, texts.embeddings, COUNT, seed=1)


@pytest.mark.parametrize(
    ("share", "named", "said"),
    [
        (0.04, False, r"explain 4 % of this head, no more than 8 texts at random \(3 to 6 %\): no name"),
        (0.07, False, r"no more than the best 8 of as many random directions \(6 to 8 %\): no name"),
        (0.09, False, r"more than 8 texts at random \(3 to 6 %\), but under 10 %: no name"),
        (0.31, True, r"explain 31 % of this head; 8 texts at random 3 to 6 %, the best 8 of as many random"),
    ],
)
def test_the_verdict(share, named, said):
    chance = Chance(8, Range(0.05, 0.03, 0.06), Range(0.07, 0.06, 0.08), 0.3)
    assert chance.bound == FLOOR
    assert chance.names(share) is named
    assert re.search(said, chance.verdict(share))


@pytest.mark.usefixtures("unchecked")
def test_what_there_is_nothing_to_tell_of(texts):
    assert chances([], texts.embeddings, COUNT) == []
    with pytest.raises(ResidualError, match="all zero: there is nothing for texts to explain"):
        chances([torch.zeros(3, WIDTH)], texts.embeddings, COUNT)
    with pytest.raises(ResidualError, match=r"Samples are rows \(n, 48\), got \(3, 5\)"):
        chances([torch.ones(3, 5)], texts.embeddings, COUNT)
