"""Relative similarities as published, against their definition on contributions."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset
from residual.errors import ResidualError
from residual.spectral.published import published_similarity


def plain(x: np.ndarray, y: np.ndarray, anchors: np.ndarray) -> tuple[float, float]:
    """Each sample's products with each anchor, averaged over samples: cosine and correlation of the two."""

    def rows(z: np.ndarray) -> list[np.ndarray]:
        return [(row - z.mean(0)) / np.linalg.norm(row - z.mean(0)) for row in z]

    cosines = [[np.mean([row @ each for row in rows(z)]) for each in rows(anchors)] for z in (x, y)]
    raw = [[np.mean([row @ each for row in z]) for each in anchors] for z in (x, y)]
    a, b = map(np.array, cosines)
    return abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b), abs(np.corrcoef(*raw)[0, 1])


def test_those_of_stores_are_those_of_their_contributions():
    a, b = (encode_dataset(tiny_encoder(), TinyImages(n, seed=n)) for n in (30, 24))
    units = a.units["unit"][a.units["kind"] == "head"].tolist()
    found = published_similarity(a, b, units, anchors=8, seed=3, device="cpu")
    chosen = np.sort(np.random.default_rng(3).permutation(30)[:8])
    assert found["unit"].tolist() == units
    for row in found.to_dict("records")[::3]:
        parts = [
            store.contributions(samples, [row["unit"]])[:, 0].double().numpy()
            for store, samples in ((a, None), (b, None), (a, chosen))
        ]
        cosine, correlation = plain(*parts)
        assert row["published_relative_cosine"] == pytest.approx(cosine, abs=1e-3)
        assert row["published_relative_correlation"] == pytest.approx(correlation, abs=1e-3)
    same = published_similarity(a, a, units[:2], anchors=8)
    np.testing.assert_allclose(same.drop(columns="unit"), 1, atol=1e-9)


def test_several_tokens_are_refused():
    store = encode_dataset(tiny_encoder(), TinyImages(6), pooling="patches", kinds=("head",))
    with pytest.raises(ResidualError, match="several tokens an image"):
        published_similarity(store, store, [4])
