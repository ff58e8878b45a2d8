"""What holds for the whole house, whichever room a file is in."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from importlinter.api import read_configuration

import residual

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "residual"
MODULES = sorted(SOURCE.rglob("*.py"))
ROOMS = sorted(folder.parent.name for folder in SOURCE.glob("*/__init__.py"))


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so there are no tracked files to read")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("name", residual.__all__)
def test_public_name_exists_and_has_a_docstring(name):
    assert (getattr(residual, name).__doc__ or "").strip()


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_of_a_room_exist_and_have_docstrings(room):
    module = import_module(f"residual.{room}")
    assert (module.__doc__ or "").strip()
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if callable(value):
            assert (value.__doc__ or "").strip(), f"residual.{room}.{name} has no docstring"


def test_type_checkers_see_the_public_names():
    blocks = [
        node
        for node in trees()[SOURCE / "__init__.py"].body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen = {
        alias.asname or alias.name
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == set(residual.__all__)


def test_every_room_has_a_place_in_the_import_contract():
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    layers = [layer.strip("()") for contract in contracts for layer in contract.get("layers", ())]
    assert set(ROOMS) <= set(layers)


def test_modules_are_short():
    long = {str(path.relative_to(ROOT)): n for path in MODULES if (n := lines(path)) >= 400}
    assert not long


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def docstrings(tree: ast.AST) -> set[int]:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, owners)]
    return {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}


def test_a_library_room_knows_no_command():
    """What a room says is for Python; the command line adds its own words."""
    command = re.compile(r"(?<![-\w])--[a-z]|`residual [a-z]+")
    found = [
        f"{place(path, node)}: {node.value!r}"
        for path, tree in trees().items()
        if path.relative_to(SOURCE).parts[0] not in ("cli", "experiments", "workflows")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and command.search(node.value)
        if id(node) not in docstrings(tree)
    ]
    assert not found


def test_module_level_names_say_what_they_are():
    riddles = {"Place", "KeptEncoder", "reading", "told", "found", "held", "here", "elsewhere"}
    found = [
        place(path, node)
        for path, tree in trees().items()
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name.strip("_") in riddles
    ]
    assert not found


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell():
    found = [
        f"{place(path, node)}: {ast.unparse(node)}"
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if is_unsafe(node)
    ]
    assert not found


def is_unsafe(node: ast.AST) -> bool:
    unpicklers = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in unpicklers for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in unpicklers
    if not isinstance(node, ast.Call):
        return False
    told = {word.arg for word in node.keywords if ast.unparse(word.value) == "True"}
    return ast.unparse(node.func) in {"eval", "exec", "torch.load", "os.system"} or bool(
        told & {"shell", "allow_pickle", "trust_remote_code"}
    )


def test_unsafe_code_would_be_found():
    for line in (
        "import pickle",
        "from pickle import loads",
        "eval(x)",
        "torch.load(path)",
        "run(x, shell=True)",
        "np.load(path, allow_pickle=True)",
    ):
        assert any(is_unsafe(node) for node in ast.walk(ast.parse(line))), line
    for line in ("model.eval()", "run(x, shell=False)", "np.load(path)"):
        assert not any(is_unsafe(node) for node in ast.walk(ast.parse(line))), line


def test_no_tracked_file_names_a_place_of_one_machine(tracked):
    # Only absolute paths: what stands before is no part of a longer path or an address.
    places = re.compile(r"(?<![\w.~}$*-])/(?:work|root|opt|home|Users)/")
    found = []
    for path in tracked:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if path != Path(__file__) and places.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found


def test_the_lock_file_names_only_the_public_index():
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    hosts = set(re.findall(r"\bhttps?://([^/\"\s]+)", text))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}
    assert not re.search(r'(registry|path|directory|url) = "(file:|/|\.\./)', text)


def test_one_version_everywhere():
    patterns = {
        "pyproject.toml": r'^version = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
        "uv.lock": r'^name = "residual-vit"\nversion = "(.+)"$',
        "CHANGELOG.md": r"^## \[?(\d[\w.]*)\]?",
    }
    versions = {}
    for name, pattern in patterns.items():
        found = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert found, f"no version in {name}"
        versions[name] = found[1]
    assert len(set(versions.values())) == 1, versions
