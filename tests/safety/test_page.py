"""What docs/safety.md says is what the code does: its limits and protocols."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from residual.addresses import PROTOCOLS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/safety.md").read_text(encoding="utf-8")


def test_the_limits_of_the_page_are_those_of_the_code():
    rows = re.findall(r"^\| .* \| ([0-9,]+) \| `([\w.]+)\.(\w+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) >= 14
    for number, module, name in rows:
        value = getattr(importlib.import_module(module), name)
        values = set(value.values()) if isinstance(value, dict) else {value}
        assert {int(number.replace(",", ""))} == values, name


def test_the_protocols_of_the_page_are_those_of_the_code():
    (line,) = [line for line in PAGE.replace("\n", " ").split("**") if "and the protocols" in line]
    assert re.findall(r"`(\w+)`", line.partition(";")[0]) == list(PROTOCOLS)


def test_the_page_is_found():
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        assert "docs/safety.md" in (ROOT / name).read_text(encoding="utf-8"), name
