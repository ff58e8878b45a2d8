from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any library that reads it is imported
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread each, in what they start, too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import jaxtyping
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # so that tests share `tiny`
torch.manual_seed(0)


def pytest_configure(config):
    """Tiny stores are few samples, often the same to fit, choose and test."""
    for kind in ("FewSamplesWarning", "SharedSamplesWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::residual.errors.{kind}")


@pytest.fixture
def unchecked():
    """As users call it, also in `make typed`: shapes and types are checked only by what is called."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
