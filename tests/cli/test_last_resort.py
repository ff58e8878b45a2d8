"""What no command foresees is a sentence, too, and where to report it; who asks sees the traceback."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from pictures import write_folder
from PIL import Image

from residual import report
from residual.adapters.config import making_sense
from residual.adapters.fine_tuning.checkpoints import whole
from residual.cli import settings
from residual.cli.console import _PlainConsole
from residual.errors import LeftOutWarning, ResidualError, UnclearColumnError

REPORT = (
    "This is a fault of residual: report it in the issue tracker of the project, with the command and what "
    "--debug shows.\n"
)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no \x1b[31mluck.\nand more"), "RuntimeError: no \\x1b[31mluck. "),
        (KeyError("shard"), "KeyError: 'shard'. "),
        (RecursionError(), "RecursionError. "),
    ],
)
def test_an_error_that_nobody_foresaw(residual, monkeypatch, error, told):
    def fail(*_):
        raise error

    monkeypatch.setattr(report, "datasets_table", fail)
    assert residual("datasets") == (70, "", f"residual: {told}{REPORT}")
    for words in (("--debug", "datasets"), ("datasets", "--debug")):
        code, _, err = residual(*words)
        assert (code, err.startswith("Traceback"), err.endswith(f"{told}{REPORT}")) == (70, True, True)
    monkeypatch.setenv("RESIDUAL_DEBUG", "1")
    assert "Traceback" in residual("datasets", "nosuch")[2]
    assert residual("datasets")[2].startswith("Traceback")
    monkeypatch.setenv("RESIDUAL_DEBUG", "0")
    assert residual("datasets", "nosuch")[:2] == (2, "")


def test_what_the_machine_refuses_is_no_fault(residual, tmp_path):
    for words in (("verify",), ("run", "--cfg"), ("encoders",), ("datasets", "letters", "--manifest")):
        code, shown, err = residual(*words, f"folder:{'x' * 5000}")
        assert (code, shown, err.count("\n")) == (2, "", 1), err
    code, shown, err = residual("verify", "x" * 5000)
    assert (code, shown, err[:43]) == (2, "", "residual: File name too long: 'xxxxxxxxxxxx")


def test_memory_that_runs_out(residual, monkeypatch):
    def fail(*_, **__):
        raise error

    for reader in ("read_run_settings", "read_experiment_settings"):
        monkeypatch.setattr(settings, reader, fail)
    monkeypatch.setattr(report, "datasets_table", fail)
    for error in (
        MemoryError("malloc"),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: out of memory"),
        allocation_error(),
    ):
        for words, way_out in (
            (("datasets",), ""),
            (("run", "--dataset", "flags"), "; fewer pictures at a time need less: --batch-size N"),
            (("experiment", "1"), "; fewer pictures at a time need less: --param experiment.batch_size=N"),
        ):
            code, shown, err = residual(*words)
            assert (code, shown, err.startswith("residual: Memory ran out (")) == (2, "", True), err
            assert err.endswith(f"){way_out}.\n")
        for part in (making_sense(Path("config.json")), whole(Path("checkpoint.safetensors"))):
            with pytest.raises(type(error), match=re.escape(str(error))), part:
                raise error


def allocation_error():
    with pytest.raises(RuntimeError, match="allocat") as told:
        torch.empty(2**55)
    return told.value


def test_only_what_a_command_takes_is_its_way_out(residual, monkeypatch, tmp_path):
    place = write_folder(tmp_path / "pictures", each=4)
    for path in place.rglob("*.png"):
        path.write_bytes(b"none")
    dataset, skip = f"folder:{place}", "Mend or remove it, or go on without such images: "
    few = ("experiment.datasets=[]", f"experiment.reference={dataset}", "experiment.on_error=raise")
    few = tuple(word for each in few for word in ("--param", each))
    for words, way_out in (
        (("datasets", dataset, "--split", "test", "--manifest", tmp_path / "m"), "Mend or remove it"),
        (("encode", "--dataset", dataset, "--out", tmp_path / "store"), f"{skip}--on-error skip"),
        (("experiment", "1", *few, "--out", tmp_path / "out"), f"{skip}--param experiment.on_error=skip"),
    ):
        code, _, err = residual(*words)
        assert (code, err.endswith(f"). {way_out}.\n")) == (2, True), err

    def fail(*_, **__):
        raise UnclearColumnError("Two.", "label_column")

    monkeypatch.setattr("residual.data.load_dataset", fail)
    monkeypatch.setattr(settings, "read_run_settings", fail)
    monkeypatch.setattr(settings, "read_experiment_settings", fail)
    for words, way_out in (
        (("datasets", "hf:a/b"), "Name the one that is meant: --label-column NAME"),
        (("run",), "`residual encode` takes the one that is meant: --label-column NAME"),
        (("experiment", "1"), "`residual encode` takes the one that is meant: --label-column NAME"),
    ):
        assert residual(*words)[::2] == (2, f"residual: Two. {way_out}.\n")


@pytest.mark.parametrize(
    ("encoding", "classes"),
    [
        ("ascii", r"+/- lambda, \u0642\u0637, \u718a\u732b, \U0001f43c"),
        ("cp1252", r"± lambda, \u0642\u0637, \u718a"),
    ],
)
def test_letters_that_a_console_lacks_cost_no_result(residual, monkeypatch, tmp_path, encoding, classes):
    place = tmp_path / "pictures"
    for name in ("熊猫", "قط", "🐼", "± λ"):
        for split in ("train", "test"):
            (place / split / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(place / split / name / f"{number}.png")
    told = tmp_path / os.fsdecode(b"\xff\xc3.json")
    said, cried = io.BytesIO(), io.BytesIO()
    for name, buffer in (("stdout", said), ("stderr", cried)):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, encoding=encoding))
    assert residual("datasets", f"folder:{place}", "--json", told)[0] == 0
    assert residual("encoders", "a bear, 熊猫 …")[0] == 2
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    assert f"classes    {classes}" in said.getvalue().decode(encoding)
    assert r"Unknown encoder 'a bear, \u718a\u732b " in cried.getvalue().decode(encoding)
    assert json.loads(told.read_text(encoding="utf-8"))["classes"] == ["± λ", "قط", "熊猫", "🐼"]


def test_empty_words_are_refused_before_anything_is_written(residual, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for words, told in (
        (("encode", "--dataset", "flags", "--out", ""), "--out is empty"),
        (("train", "--dataset", "flags", "--out="), "--out is empty"),
        (("train", "--dataset", "flags", "--out", "x", "--stores", ""), "--stores is empty"),
        (("run", "--json", "", "--dataset", "flags"), "--json is empty"),
        (("run", "--report", ""), "--report is empty"),
        (("analyze", "store", "--figures="), "--figures is empty"),
        (("verify", ""), "An argument is empty"),
    ):
        code, shown, err = residual(*words)
        assert (code, shown, err.startswith(f"residual: {told}: "), err.count("\n")) == (2, "", True, 1), err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_a_file(residual, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    few = ("--dataset", "flags", "--limit", "2")
    for words in (
        ("verify", "file"),
        ("bases", "file", "--out", "b.safetensors"),
        ("encode", *few, "--out", "file"),
        ("encode", *few, "--out", "file/store"),
        ("encode", *few, "--out", "file/b.safetensors", "--bases-only"),
    ):
        code, shown, err = residual(*words)
        assert (code, shown, err.startswith("residual: "), "file" in err) == (2, "", True, True), err
        assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_terminal_without_a_width_shows_all(monkeypatch):
    for columns in ("0", "1"):
        monkeypatch.setenv("COLUMNS", columns)
        out = io.StringIO()
        console = _PlainConsole()
        console.file = out
        console.print(report.datasets_table(report.dataset_rows()))
        assert "letters" in out.getvalue()


def test_a_closed_pipe_is_no_damage():
    """`verify` ends with 1 where something is damaged."""
    code = "from residual.cli.console import out\nfor _ in range(99999): out.print('x' * 99)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        run.stdout.close()
        assert (run.wait(60), run.stderr.read()) == (141, b"")


def test_a_folder_that_is_gone(residual, monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("residual.cli.os.getcwd", gone)
    code, _, err = residual("datasets")
    assert (code, err) == (2, "residual: The folder that this runs in is gone: change to another.\n")


def test_what_is_left_out_is_a_line(residual, monkeypatch):
    def warn(*_):
        warnings.warn("2 files are left out.", LeftOutWarning, stacklevel=2)
        raise ResidualError("And that is all.")

    monkeypatch.setattr(report, "datasets_table", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert residual("datasets")[2] == "residual: 2 files are left out.\nresidual: And that is all.\n"
