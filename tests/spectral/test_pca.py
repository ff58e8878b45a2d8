"""PCA against its definition, by numpy's SVD; in batches, merged, and through an affine map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residual.errors import ResidualError
from residual.spectral import IncrementalPCA, Origin, pca
from residual.spectral.pca import Moments


def _random(n, d, seed=0, mean=5.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + mean


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 40), d=st.integers(1, 12), seed=st.integers(0, 1000))
def test_equals_the_svd_of_the_centred_matrix(n, d, seed):
    x = _random(n, d, seed)
    got = pca(x)
    centred = x.numpy() - x.numpy().mean(axis=0)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    values = singular**2 / (n - 1)
    kept = len(got.eigenvalues)
    assert kept == (values > 1e-10 * values[0]).sum()
    np.testing.assert_allclose(got.eigenvalues, values[:kept], rtol=1e-5, atol=1e-9 * values[0])
    np.testing.assert_allclose(
        got.explained_variance_ratio, values[:kept] / values.sum(), rtol=1e-5, atol=1e-9
    )
    torch.testing.assert_close(got.components @ got.components.T, torch.eye(kept, dtype=torch.float64))
    np.testing.assert_allclose(got.mean, x.numpy().mean(axis=0))
    rebuilt = got.components.T @ torch.diag(got.eigenvalues) @ got.components
    np.testing.assert_allclose(rebuilt, centred.T @ centred / (n - 1), atol=1e-8 * values[0])
    if kept > 1 and values[0] > 1.1 * values[1]:
        np.testing.assert_allclose(np.abs(rows[0] @ got.components[0].numpy()), 1, rtol=1e-8)


def test_signs_are_fixed():
    x = _random(30, 6)
    for basis in (pca(x), pca(-x)):
        largest = basis.components.gather(1, basis.components.abs().argmax(1, keepdim=True))
        assert (largest > 0).all()
    torch.testing.assert_close(pca(x).components, pca(-x).components)


def test_batches_and_merging_do_not_matter():
    x = _random(50, 5, mean=1e4)
    whole = pca(x)
    for width in (None, 5):
        first = IncrementalPCA(width)
        for batch in x[:33].split(7):
            first.update(batch)
        second = IncrementalPCA(width).update(x[33:]).update(x[:0]).merge(first)
        got = (
            IncrementalPCA(width).merge(IncrementalPCA()).merge(second).merge(IncrementalPCA(width)).compute()
        )
        torch.testing.assert_close(got.mean, whole.mean)
        torch.testing.assert_close(got.eigenvalues, whole.eigenvalues, rtol=1e-9, atol=0)
        torch.testing.assert_close(got.components, whole.components, rtol=1e-7, atol=1e-7)
        assert (first.count, second.count) == (33, 50)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_given_stays_as_it_is(dtype):
    x = _random(20, 5).to(dtype)
    before = x.clone()
    pca(x, 2)
    IncrementalPCA().update(x).update(x)
    for scatter in (True, False):
        moments = Moments(1, 5, scatter=scatter)
        moments.update(x[None])
        moments.update(x[None])
        torch.testing.assert_close(moments.mean[0], before.double().mean(0))
    assert torch.equal(x, before)
    fields = {"encoder_name": "e", "fingerprint": "f", "split": "own", "datasets": ["d"], "samples": 3}
    assert Origin.of_json(fields, "a").datasets == ("d",)
    assert Origin.of_json(fields, "a").samples == 3


@pytest.mark.parametrize("width", [3, 5, 9])
def test_affine_image_without_making_it(width):
    x, matrix, offset = _random(40, 5), _random(5, width, 1, 0.0), _random(1, width, 2)[0]
    moments = IncrementalPCA().update(x)
    got, expected = moments.compute_affine(matrix, offset), pca(x @ matrix + offset)
    torch.testing.assert_close(got.mean, expected.mean)
    torch.testing.assert_close(got.eigenvalues, expected.eigenvalues, rtol=1e-8, atol=0)
    torch.testing.assert_close(got.components, expected.components, rtol=1e-6, atol=1e-6)
    assert len(moments.compute_affine(matrix, offset, k=2).eigenvalues) == 2


def test_k_keeps_the_ratio_of_all_variance():
    x = _random(40, 6)
    whole, cut = pca(x), pca(x, k=2)
    torch.testing.assert_close(cut.explained_variance_ratio, whole.explained_variance_ratio[:2])
    assert whole.explained_variance_ratio.sum().item() == pytest.approx(1)
    equal = pca(torch.cat([torch.eye(4), -torch.eye(4)]))
    assert equal.participation_ratio == pytest.approx(4)


def test_refusals():
    with pytest.raises(ResidualError, match="at least 2 samples, got 1"):
        pca(torch.zeros(1, 3))
    with pytest.raises(ResidualError, match="hold NaN or infinity"):
        pca(torch.tensor([[1.0, 2.0], [float("nan"), 1.0]]))
    with pytest.raises(ResidualError, match="at least 1, got 0"):
        pca(torch.randn(4, 3), k=0)
    with pytest.raises(ResidualError, match="at least 2 samples, got 0"):
        IncrementalPCA().compute()
    for wide in (IncrementalPCA(3), IncrementalPCA().update(torch.randn(2, 3))):
        with pytest.raises(ResidualError, match="Expected rows of width 3, got 4"):
            wide.update(torch.randn(4, 4))
        with pytest.raises(ResidualError, match="Expected rows of width 3, got 4"):
            wide.merge(IncrementalPCA(4))
