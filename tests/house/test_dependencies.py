"""What the library imports it declares, in core or in an extra that an error names; core holds no more."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "residual"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    name: wanted for name, wanted in PROJECT["optional-dependencies"].items() if name not in ("all", "test")
}
OWN = {"residual", *sys.stdlib_module_names}
COMES_WITH = {"triton": "torch"}


def distribution(requirement: str) -> str:
    """`some-package` of "Some_Package[x]>=1"."""
    return re.split(r"[\[<>=~!; ]", requirement)[0].lower().replace("_", "-")


def imported() -> dict[str, set[str]]:
    """What is imported, at the top of a module or within, by distribution; and the files that do it."""
    of_module, found = packages_distributions(), defaultdict(set)
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("library", "import_module"):
                names = [each.value for each in node.args[:1] if isinstance(each, ast.Constant)]
            else:
                continue
            for name in {str(name).partition(".")[0] for name in names} - {
                "residual",
                *sys.stdlib_module_names,
            }:
                name = COMES_WITH.get(name, of_module.get(name, [name])[0])
                found[distribution(name)].add(str(path.relative_to(SOURCE)))
    return found


def test_core_is_what_is_imported_and_extras_are_the_rest():
    core = {distribution(each) for each in PROJECT["dependencies"]}
    extra_of = {distribution(each): name for name, wanted in EXTRAS.items() for each in wanted}
    found = imported()
    assert not core - found.keys(), "core holds what nothing imports"
    missing = {name: sorted(files) for name, files in found.items() if name not in core | extra_of.keys()}
    assert not missing, "imported and not declared"
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    for name in found.keys() - core:
        extra = extra_of[name]
        assert re.search(rf"residual-vit\[{extra}\]|extra=\"{extra}\"|library\(.*\"{extra}\"\)", text), extra


def test_all_is_every_extra():
    (whole,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.search(r"\[(.*)\]", whole)[1].split(",")) == EXTRAS.keys()
