"""What no command foresees is a sentence, too, and where to report it; who asks sees the traceback."""

from __future__ import annotations

import io
import sys

import pytest

from residual import report

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
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(report, "datasets_table", fail)
    told = "residual: Memory ran out (MemoryError); fewer pictures at a time need less: --batch-size.\n"
    assert residual("datasets") == (2, "", told)


def test_letters_that_a_terminal_lacks_cost_no_result(residual, monkeypatch):
    said = io.BytesIO()
    monkeypatch.setattr(report, "datasets_table", lambda _: "12 ± 3")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(said, encoding="ascii"))
    assert residual("datasets")[::2] == (0, "")
    sys.stdout.flush()
    assert said.getvalue().startswith(b"12 \\xb1 3\n")


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
