"""The notebooks run as they are, on results of the offline suite, and what they show is pictures."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[2] / "experiments"
NOTEBOOKS = sorted(ROOT.glob("*/*.ipynb"))


def test_every_experiment_has_its_settings_a_script_and_a_notebook():
    for folder in filter(Path.is_dir, ROOT.iterdir()):
        names = {path.name for path in folder.iterdir() if path.is_file()}
        assert {"offline.gin", "paper.gin", "run.py"} < names
        assert [path.parent for path in NOTEBOOKS].count(folder) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_results(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All experiments on the whole offline suite, 150 images a dataset, by their scripts; briefly trained."""
    out = tmp_path_factory.mktemp("results")
    for folder in ("1_dimension", "2_similarity", "3_heads", "4_adapters", "class_token"):
        words = [sys.executable, str(ROOT / folder / "run.py"), "--out", str(out)]
        words += ["--cfg", str(ROOT / folder / "offline.gin"), "--param", "experiment.limit=150"]
        if folder == "4_adapters":
            words += ["--param", "AdaptersSettings.seeds=2", "--param", "AdaptersSettings.epochs=2"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_draws_the_offline_suite(path, results, monkeypatch):
    monkeypatch.setenv("RESIDUAL_RESULTS", str(results))
    before = {file: file.stat().st_mtime_ns for file in results.rglob("*") if file.is_file()}
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    shown = [
        output["data"] for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output
    ]
    pictures = [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]
    drawn = len(list((results / path.parent.name / "figures").glob("*.png")))
    assert len(pictures) == drawn > 1
    for picture in pictures:
        with Image.open(io.BytesIO(picture)) as image:
            assert min(image.size) > 200
            assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 8  # not an empty canvas
    tables = [data[kind] for data in shown for kind in ("text/html", "text/markdown") if kind in data]
    assert any("emoji-groups" in table for table in tables)
    assert {file: file.stat().st_mtime_ns for file in before} == before  # it only reads
