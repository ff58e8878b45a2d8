"""The README's figures are those of the results they name, and its Python runs."""

import json
import re
from pathlib import Path

import pytest

import residual
from residual.data import dataset_names, load_dataset
from residual.report.tables import suite_markdown

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_made_from_the_results():
    results = json.loads((ROOT / "benchmarks/results/suite.json").read_text())
    assert suite_markdown(results) in README
    assert [result["dataset"] for result in results] == list(dataset_names())
    assert all(len(result["seeds"]) == 3 for result in results)


@pytest.mark.parametrize("name", dataset_names())
def test_sizes_are_those_of_the_datasets(name):
    sizes = " / ".join(f"{len(load_dataset(name, split)):,}" for split in ("train", "val", "test"))
    (line,) = [line for line in README.splitlines() if line.startswith("| `") and f"`{name}`" in line]
    assert sizes in line


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_own_data_takes_three_lines(capsys):
    """Exactly those of the README."""
    (own,) = [block for block in BLOCKS if "pictures, labels=labels" in block]
    assert len(own.splitlines()) == 3
    digits = load_dataset("digits", "train").subset(range(60))
    pictures, labels = zip(*digits, strict=True)
    exec(own, {"residual": residual, "pictures": pictures, "labels": [f"digit {label}" for label in labels]})
    shown = capsys.readouterr().out
    assert "10 classes: trained on" in shown
    assert "spectral map" in shown


@pytest.mark.slow
def test_the_python_of_the_readme_runs(capsys, tmp_path, monkeypatch):
    code = "\nprint('-----')\n".join(block for block in BLOCKS if "pictures, labels=labels" not in block)
    whole = 'load_dataset("letters", name)'
    assert whole in code
    code = code.replace(whole, f"{whole}.sample(150)")  # fewer run the same code
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    splitting, training = capsys.readouterr().out.split("-----\n")
    shapes = [(4, 1, 48, 192), (4, 64, 57, 192), (2, 1, 29, 192), (4, 57, 192), (4, 192), (4, 1, 192)]
    assert splitting.split("torch.Size(")[1:] == [
        f"{list(shape)}){end}" for shape, end in zip(shapes, "   \n \n", strict=True)
    ]
    shape, *_, accuracy, logits = training.splitlines()
    assert shape.startswith("torch.Size([8, 1, 57, 192])")
    assert float(accuracy) > 0.9
    assert logits == "torch.Size([8, 26])"
