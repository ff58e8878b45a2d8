"""Weighted sums on tensor cores are those of float32: interpreted on a CPU, and compiled for a Hopper GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from residual.adapters import steps
from residual.adapters.steps import has_hopper, quick_directions


@pytest.fixture(scope="module", params=["interpreted", "compiled"])
def found(request):
    """From a process: triton reads once, when it is imported, whether it is to interpret."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("there is no triton")
    device, environment = "cpu", {**os.environ, "TRITON_INTERPRET": "1"}
    if request.param == "compiled":
        if not (torch.cuda.is_available() and has_hopper(torch.device("cuda"))):
            pytest.skip("there is no Hopper GPU")
        device, environment = "cuda", dict(os.environ)
    script = Path(__file__).with_name("weighted_sums.py")
    done = subprocess.run(
        [sys.executable, script, device], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_sums_and_gradients_are_exact_to_the_rounding_of_float32(found):
    for errors in found["errors"]:
        for way in ("forward", "backward"):
            assert errors[way] < max(1e-6, 2 * errors[f"{way} of torch"])


def test_fits_find_the_same_weights(found):
    for by_kernels, usual in found["weights"]:
        torch.testing.assert_close(torch.tensor(by_kernels), torch.tensor(usual), rtol=1e-3, atol=1e-4)
        assert by_kernels != usual  # they took another way


def test_products_are_those_of_torch_elsewhere_and_where_nothing_can_be_compiled(monkeypatch, unchecked):
    pytest.importorskip("triton")
    directions = torch.randn(7, 5)
    assert quick_directions(directions, 2, 4, 10**18) is directions
    monkeypatch.setattr(steps, "has_hopper", lambda device: True)
    assert quick_directions(directions, 2, 4, 100) is directions  # too little to do
    with pytest.warns(UserWarning, match="Kernels for this GPU can't be compiled, so the fit is slower: "):
        assert quick_directions(directions, 2, 4, 10**18) is directions
