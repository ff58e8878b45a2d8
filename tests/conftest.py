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

HERE = Path(__file__).parent
# Files of more than fifteen seconds, see `pytest --durations=0`.
LONGEST = (
    "experiments/test_adapters_experiment", "store/test_kills", "tracing/test_real_size",
    "executors/test_cluster", "store/test_object_store", "adapters/test_adapted_encoder",
    "experiments/test_experiments", "safety/test_fuzz", "cli/test_train_command", "executors/test_executors",
    "adapters/test_fine_tuning", "experiments/test_notebooks", "cli/test_run_command",
    "adapters/test_sharing", "house/test_wheel", "experiments/test_on_executors", "report/test_accuracies",
    "store/test_residual_store", "tracing/test_pooling", "cli/test_analyze_command",
)  # fmt: skip
sys.path.insert(0, str(HERE))  # so that tests share `tiny`
torch.manual_seed(0)


def pytest_configure(config):
    """Tiny stores are few samples, often the same to fit, choose and test."""
    for kind in ("FewSamplesWarning", "SharedSamplesWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::residual.errors.{kind}")


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more process than cores: tests wait, too, for servers, other processes and clusters."""
    return (yield) + 1


def pytest_collection_modifyitems(items):
    """The longest files first, so that no process is left alone with one of them at the end."""
    places = {HERE / f"{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


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
