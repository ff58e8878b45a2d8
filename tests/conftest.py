from __future__ import annotations

import os
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any library that reads it is imported
sys.path.insert(0, str(Path(__file__).parent))  # so that tests share `tiny`
torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """As users call it: shapes and types are checked only by what is called."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
