"""Parts that moved between versions are found in either place; what is nowhere names the versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import families
import pytest
import transformers
from torch import nn

import residual
from residual.encoders import paths
from residual.errors import ResidualError

ROOT = Path(__file__).parents[2]


def test_parts_that_are_nowhere_name_the_versions_that_are_known():
    model = families.CASES["vit"].make()
    delattr(model, "layers" if hasattr(model, "layers") else "encoder")
    oldest, newest = paths.TESTED["transformers"]
    known = f"Known are transformers {oldest} to {newest}, and {transformers.__version__} is installed"
    with pytest.raises(ResidualError, match=rf"not found: layers or encoder\.layer, .*{re.escape(known)}"):
        residual.wrap_encoder(model)


def test_the_first_place_that_is_there_is_taken():
    module = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4)))
    assert paths.follow(module, ("2", "1.0", "0")).out_features == 4
    assert paths.first(module, ("1.5", "0")) == "0"
    assert paths.get(module, ("1.5", "2")) is None
    assert paths.below("0", ("a", "b")) == ("0.a", "0.b")
    with pytest.raises(AttributeError, match="has no attribute '5'"):
        paths.follow(module, ("5", "6"))


def test_the_range_is_that_of_the_project_and_its_lock():
    oldest, newest = paths.TESTED["transformers"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"transformers>={oldest}" in project["dependencies"]
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    (locked,) = (each["version"] for each in lock["package"] if each["name"] == "transformers")
    assert locked.startswith(f"{newest}.")
