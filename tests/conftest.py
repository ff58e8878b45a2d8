from __future__ import annotations

import copy
import gc
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any library that reads it is imported
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread each, in what they start, too
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    gc.disable()  # until all tests are collected: what they import stays

import jaxtyping
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # so that tests share `tiny`
torch.manual_seed(0)


def pytest_configure(config):
    """Tiny stores are few samples, often the same to fit, choose and test."""
    for kind in ("FewSamplesWarning", "SharedSamplesWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::residual.errors.{kind}")


def pytest_collection_finish():
    """What was imported stays: the search for what nobody holds any more needn't look at it each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


_READ = {}


@pytest.fixture(scope="module")
def picto_once():
    """The embedded encoder is read once, and who loads it gets a copy: reading is most of a short command."""
    from residual.encoders import load

    read = load._load

    def copied(name, spec, *how):
        if spec not in load.EMBEDDED:
            return read(name, spec, *how)
        if (spec, *how) not in _READ:
            _READ[spec, *how] = read(name, spec, *how)
        kept = _READ[spec, *how]
        return replace(kept, module=copy.deepcopy(kept.module))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "_load", copied)
        yield


@pytest.fixture
def unchecked():
    """As users call it, also in `make typed`: shapes and types are checked only by what is called."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
