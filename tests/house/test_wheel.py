"""What ships: the source distribution, the wheel built from it, the main job in an environment of its own.

The environment holds the locked versions of what the wheel asks for and nothing else; `uv pip check` shows
that the wheel asks for all it needs. The main job then runs in a network namespace with no network in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from email.parser import BytesParser
from pathlib import Path

import pytest

from residual.cli import main

ROOT = Path(__file__).parents[2]
UV = os.environ.get("UV") or shutil.which("uv")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(UV is None, reason="needs uv: run it as `uv run --frozen pytest`"),
]


def call(command: Sequence[str | Path], **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode:
        pytest.fail(
            f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    call([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", out], cwd=ROOT)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Built from the source distribution alone."""
    out, unpacked = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("unpacked")
    call(["tar", "-xzf", sdist, "-C", unpacked])
    (source,) = unpacked.iterdir()
    call([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out], cwd=source)
    return next(out.glob("*.whl"))


def borrow_compiled(folder: Path) -> None:
    """What is compiled here already is for the same files there: Python looks whether they are the same."""
    there, here = (
        Path(sysconfig.get_path("purelib", vars={"base": str(base)})) for base in (folder, sys.prefix)
    )
    for compiled in here.rglob("__pycache__"):
        place = there / compiled.relative_to(here)
        if place.parent.is_dir() and not place.exists():
            place.symlink_to(compiled)


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Iterator[Path]:
    """A virtual environment with the wheel, not editable, and the locked versions of its dependencies."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    variables = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    variables["UV_PROJECT_ENVIRONMENT"] = str(folder)
    locked = ["sync", "--frozen", "--no-default-groups", "--no-install-project", "--python", sys.executable]
    call([UV, *locked], cwd=ROOT, env=variables)
    call([UV, "pip", "install", "--offline", "--no-deps", "--python", folder, wheel], cwd=folder)
    borrow_compiled(folder)
    yield folder
    shutil.rmtree(folder)  # several GB where the cache can't be linked to


@pytest.fixture(scope="module")
def cut_off() -> list[str]:
    """The start of a command line that runs the rest without a network."""
    candidates = [["unshare", "--net"], ["unshare", "--map-root-user", "--net"]]
    for start in candidates if shutil.which("unshare") else ():
        if subprocess.run([*start, "true"], capture_output=True).returncode == 0:
            return start
    pytest.skip("the network can't be cut off here: `unshare --net` is missing or not permitted")


def shipped(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_sdist_holds_sources_tests_and_licence(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {
        "pyproject.toml",
        "uv.lock",
        "Makefile",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "src/residual/__init__.py",
        "tests/house/test_wheel.py",
        "picto/train.py",
        "web/package-lock.json",
    } <= names
    assert not [name for name in names if name.startswith((".venv", ".tools", "picto/build"))]
    assert not [name for name in names if "node_modules" in name or "__pycache__" in name]


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    source = ROOT / "src"
    wanted = {
        path.relative_to(source).as_posix()
        for path in (source / "residual").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in shipped(wheel) if ".dist-info/" not in name} == wanted
    assert {
        "residual/py.typed",
        "residual/encoders/picto/model.safetensors",
        "residual/encoders/picto/tokenizer.json",
        "residual/explore/static/explore.js",
        "residual/report/templates/base.html",
        "residual/data/suite/suite.json",
        "residual/data/suite/assets/mnist.npz",
        "residual/data/suite/assets/openmoji.webp",
    } <= wanted


def test_the_wheel_carries_its_licences(wheel):
    (folder,) = {name.split("/")[0] for name in shipped(wheel) if ".dist-info/" in name}
    with zipfile.ZipFile(wheel) as archive:
        metadata = BytesParser().parsebytes(archive.read(f"{folder}/METADATA"))
    files = metadata.get_all("License-File") or []
    places = ("data/hub", "data/suite", "encoders/picto", "text/lists")
    pages = {f"src/residual/{place}/LICENSES.md" for place in places}
    assert set(files) == {"LICENSE", "src/residual/explore/static/LICENSES.txt", *pages}
    assert {f"{folder}/licenses/{name}" for name in files} <= shipped(wheel)
    named = set(metadata["License-Expression"].split(" AND "))
    assert {"MIT", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "OFL-1.1"} <= named


def test_what_ships_is_small(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    megabyte = 1024 * 1024
    assert sum(n for name, n in sizes.items() if name.startswith("residual/encoders/picto/")) <= 16 * megabyte
    assert sum(n for name, n in sizes.items() if name.startswith("residual/data/")) <= 25 * megabyte


def test_the_wheel_asks_for_all_it_needs(environment):
    call([UV, "pip", "check", "--python", environment])


def test_the_main_job_runs_from_the_wheel_without_a_network_and_gives_the_same(
    environment, cut_off, tmp_path, monkeypatch
):
    home, out = tmp_path / "home", tmp_path / "result.json"
    home.mkdir()
    variables = {"HOME": str(home), "PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    variables["OMP_NUM_THREADS"] = "1"  # other tests are at work beside it
    probe = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    python = environment / "bin" / "python"
    reached = subprocess.run([*cut_off, python, "-c", probe], capture_output=True, text=True, env=variables)
    assert "Network is unreachable" in reached.stderr

    few = ["--bases", "digits", "--seed", "3", "--seeds", "1", "--limit", "100"]  # all would take a minute
    words = ["run", "--dataset", "digits", *few, "--json"]
    command = [*cut_off, environment / "bin" / "residual", *words]
    done = call([*command, "/dev/stdout"], cwd=tmp_path, env=variables, timeout=600)

    result = json.loads(done.stdout[: done.stdout.index("\n}\n") + 3])
    assert result["seeds"] == [3]
    assert (result["encoder"], result["dataset"]) == ("picto", "digits")
    assert result["n_train"] > 0
    assert result["n_test"] > 0
    accuracy = result["accuracy"]
    assert accuracy.keys() >= {"zero_shot", "residual_star", "residual"}
    assert 0.5 < accuracy["zero_shot"] < accuracy["residual"] <= 1
    assert all(count > 0 for count in result["parameters"].values())
    assert result["seconds"].keys() >= {"encode", "bases", "fit"}
    assert "Traceback" not in done.stderr

    monkeypatch.setattr(sys, "argv", ["residual", *words, str(out)])
    with pytest.raises(SystemExit, match="0"):  # the same in this process
        main()
    here = json.loads(out.read_text(encoding="utf-8"))
    del here["seconds"], result["seconds"]
    assert here == result
