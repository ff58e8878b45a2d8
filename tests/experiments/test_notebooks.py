"""The notebooks run as they are, on results of the offline suite, and what they show is pictures."""

import base64
import io
import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from residual.cli import main
from residual.experiments import EXPERIMENTS

ROOT = Path(__file__).parents[2] / "experiments"
NOTEBOOKS = sorted(ROOT.glob("*/*.ipynb"))
FEW = {
    "experiment.limit": 12,
    "experiment.datasets": ["emoji-groups"],
    "experiment.reference": "letters",
}
UNCUT = "%config InlineBackend.print_figure_kwargs = {'bbox_inches': None}"  # else all is drawn twice
BRIEFLY = {
    "3": {"HeadsSettings.dictionary": "attributes", "HeadsSettings.seeds": 2, "HeadsSettings.atoms": 2},
    "4": {
        "AdaptersSettings.seeds": 2,
        "AdaptersSettings.epochs": 1,
        "AdaptersSettings.methods": ["zero_shot", "linear", "coarse", "residual"],
    },
}


def test_every_experiment_has_its_settings_a_script_and_a_notebook_without_results():
    folders = [ROOT / kind.folder for kind in EXPERIMENTS.values()]
    assert {*folders, ROOT / "real"} == {each for each in ROOT.iterdir() if each.is_dir()}
    for folder in folders:
        names = {path.name for path in folder.iterdir() if path.is_file()}
        assert {"offline.gin", "paper.gin", "run.py"} < names
        assert [path.parent for path in NOTEBOOKS].count(folder) == 1
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")], path


def empty(figure, folder: Path, name: str) -> list[Path]:
    """The notebooks draw them again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    path.touch()
    return [path]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All experiments on a little of the offline suite; briefly trained, and what they draw is empty."""
    out = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("residual.experiments.running.save_figure", empty)
        for number in ("1", "2", "3", "4", "class-token"):
            params = FEW | BRIEFLY.get(number, {})
            words = [word for name, value in params.items() for word in ("--param", f"{name}={value}")]
            patch.setattr(sys, "argv", ["residual", "experiment", number, "--out", str(out), *words])
            with pytest.raises(SystemExit, match="0"):
                main()
    return out


@pytest.mark.slow
def test_the_notebooks_draw_the_offline_suite(results, monkeypatch):
    """All in one kernel, which imports the library once, each in a namespace of its own."""
    monkeypatch.setenv("RESIDUAL_RESULTS", str(results))
    before = {file: file.stat().st_mtime_ns for file in results.rglob("*") if file.is_file()}
    notebooks = [nbformat.read(path, as_version=4) for path in NOTEBOOKS]
    every, ends = nbformat.v4.new_notebook(metadata=notebooks[0].metadata), []
    every.cells = [nbformat.v4.new_code_cell(UNCUT)]
    for notebook in notebooks:
        every.cells += [*notebook.cells, nbformat.v4.new_code_cell("%reset -f")]
        ends.append(len(every.cells))
    NotebookClient(every, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS[0].parent)}}).execute()
    for path, start, end in zip(NOTEBOOKS, (1, *ends), ends, strict=False):
        shown = [
            output["data"]
            for cell in every.cells[start:end]
            for output in cell.get("outputs", ())
            if "data" in output
        ]
        pictures = [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]
        drawn = len(list((results / path.parent.name / "figures").glob("*.png")))
        assert len(pictures) == drawn > 1, path
        for picture in pictures:
            with Image.open(io.BytesIO(picture)) as image:
                assert min(image.size) > 200
                assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 8  # not an empty canvas
        tables = [data[kind] for data in shown for kind in ("text/html", "text/markdown") if kind in data]
        assert any("emoji-groups" in table for table in tables), path
    assert {file: file.stat().st_mtime_ns for file in before} == before  # they only read
