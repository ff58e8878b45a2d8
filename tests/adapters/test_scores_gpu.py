"""Scores made on a GPU, with the maps to them, are those made on a CPU."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyImages, tiny_encoder

import residual
from residual.adapters import Coarse, LinearMap, ResiDual, SpectralMap, compute_scores
from residual.spectral import fit_bases
from residual.spectral.fit import fit_output

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(scope="module")
def store():
    return residual.encode_dataset(tiny_encoder(), TinyImages(90))


@pytest.mark.parametrize("kind", ["drop", "keep", "means", "coarse", "spectral", "linear"])
def test_scores_on_a_gpu_are_those_on_a_cpu(store, kind):
    bases = fit_bases(store, device="cpu")
    adapter = {
        "drop": lambda: ResiDual(bases, 0.7),
        "keep": lambda: ResiDual(bases, 2, tail="keep", mean="keep"),
        "means": lambda: ResiDual(bases, others="mean"),
        "coarse": lambda: Coarse(bases),
        "spectral": lambda: SpectralMap(fit_output(store), tail="keep", rank=3),
        "linear": lambda: LinearMap(store.linearization.output_dim),
    }[kind]()
    on_cpu, on_gpu = (compute_scores(adapter, store, device=device) for device in ("cpu", "cuda"))
    assert on_gpu.scores.is_cuda
    for name in ("scores", "directions", "rest"):
        torch.testing.assert_close(getattr(on_gpu, name).cpu(), getattr(on_cpu, name), rtol=1e-4, atol=1e-5)
