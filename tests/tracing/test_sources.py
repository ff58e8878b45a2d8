"""A head by the token attended to: sums, the definition written out, every family and pooling."""

from __future__ import annotations

import pytest
import torch
from families import CASES, SPLIT_TEXT
from tiny import random_pixels
from torch import Tensor

from residual.encoders.load import wrap_encoder
from residual.tracing.decompose import decompose
from residual.tracing.sources import source_scores

TOWERS = [(name, "image") for name in CASES] + [(name, "text") for name in SPLIT_TEXT]


def inputs(tower: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """Pixels, or texts of several lengths, the rest padding."""
    if tower == "image":
        return random_pixels(3, dtype=dtype)
    ids = torch.randint(1, 60, (3, 10), generator=torch.Generator().manual_seed(0))
    ids[torch.arange(3), torch.tensor([9, 4, 6])] = 63
    return ids


def miss(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(("name", "tower"), TOWERS)
def test_sources_sum_to_each_head(name, tower):
    encoder = wrap_encoder(CASES[name].make().double())
    for pooling in ("own", "all"):
        got = decompose(encoder, inputs(tower), pooling, tower=tower, sources=True)
        heads = got.contributions[:, :, (got.units["kind"] == "head").to_list()]
        assert got.sources.shape == (*heads.shape[:3], len(got.tokens), heads.shape[3])
        assert miss(got.sources.sum(3), heads) < 1e-10
        torch.testing.assert_close(got.attention.sum(-1), torch.ones_like(got.attention[..., 0]))
        directions = torch.randn(4, heads.shape[3], dtype=torch.float64)
        scores = source_scores(encoder, inputs(tower), directions, tower=tower, pooling=pooling)
        expected = torch.einsum("ntujd,cd->ntucj", got.sources, directions)
        assert miss(scores.values.view_as(expected), expected) < 1e-10
