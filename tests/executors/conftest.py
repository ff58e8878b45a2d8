from __future__ import annotations

import sys
from pathlib import Path

import pytest
from here import Here

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "store")]

from residual.executors import opened  # noqa: E402


@pytest.fixture(scope="session")
def processes():
    """Two processes of this machine, started once."""
    with opened("processes:2") as executor:
        yield executor


@pytest.fixture
def here():
    """What cuts work and runs it as others do, in this process."""
    return Here()
