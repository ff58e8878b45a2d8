"""`residual explore`, and `residual evaluate` of a store: the number that the page told."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest

from residual.workflows.exploration import Exploration, Sources

STATE = {"off": ["7.2", "6.0", "mlp.7"], "lambdas": {"7.4": {"0": -2}}, "mode": "mean"}


def test_the_command_line_gives_the_number_of_the_page(residual, stores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exploration = Exploration(Sources([str(stores / "test")]))
    told = exploration.turn(STATE)
    assert told["changed"] > 0
    words = shlex.split(told["command"])
    assert words[0] == "residual"
    code, shown, _ = residual(*words[1:], "--json", "result.json")
    assert code == 0
    assert "edited" in shown
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["accuracy"] == {"zero_shot": told["before"], "edited": told["accuracy"]}
    (tmp_path / "mask.json").write_bytes(exploration.save(STATE)[1])
    again = ("evaluate", stores / "test", "--mask", "mask.json", "--json", "result.json", "--overwrite")
    assert residual(*again)[0] == 0
    assert json.loads((tmp_path / "result.json").read_text())["accuracy"] == result["accuracy"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["test", "--off", "9.9"], "no head 9.9"),
        (["test", "--weight", "7.2:0.5"], "form 7.2=0.5"),
        (["test", "--lambda", "7.2=0.5"], "form 7.2:0=0.5"),
        (["train", "--mask", "mask.json"], "single components"),
        (["test", "--mask", "mask.json", "--off", "7.2"], "not both"),
        (["heads", "--off", "7.2"], "without units of kind"),
        (["none", "--off", "7.2"], "For a store alone: --off"),
    ],
)
def test_a_store_that_cannot_be_measured_so(residual, stores, tmp_path, monkeypatch, words, match):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mask.json").write_bytes(Exploration(Sources([str(stores / "test")])).save(STATE)[1])
    code, _, told = residual("evaluate", stores / words[0], *words[1:])
    assert code == 2
    assert match in told


@pytest.mark.skipif(os.name != "posix", reason="signals of another system")
def test_the_page_is_served_until_ctrl_c(stores):
    words = [sys.executable, "-m", "residual", "explore", str(stores / "letters"), "--no-open", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        assert "Ctrl+C" in process.stdout.readline()
        with urllib.request.urlopen(address) as page:
            assert b"<title>" in page.read()
        process.send_signal(signal.SIGINT)
        shown, told = process.communicate(timeout=60)
    assert (process.returncode, shown.strip(), told) == (0, "Ended.", "")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["none"], "There is no store"),
        (["letters", "--adapter", "none"], "there is no such folder"),
        (["letters", "--dictionary", "wrods"], "Did you mean 'words'"),
        (["letters", "--encoder", "pikto"], "Did you mean 'picto'"),
        (["letters", "--dataset", "leters"], "Did you mean 'letters'"),
        (["letters", "--host", "192.0.2.7"], "Nothing can be served on '192.0.2.7'"),
        (["letters", "--export", "."], "it is a folder"),
    ],
)
def test_what_cannot_be_explored_is_said_at_once(residual, stores, monkeypatch, words, match):
    monkeypatch.chdir(stores)
    code, shown, told = residual("explore", *words, "--no-open")
    assert (code, shown) == (2, "")
    assert match in told


def test_without_its_extra_nothing_is_promised(residual, stores, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, shown, told = residual("explore", stores / "letters", "--no-open")
    assert (code, shown) == (2, "")
    assert "pip install 'residual-vit[explore]'" in told


def test_what_is_damaged_is_told_while_it_is_served(residual, stores, tmp_path, monkeypatch):
    shutil.copytree(stores / "letters", tmp_path / "store")
    ids = next((tmp_path / "store" / "sample_id").rglob("0"))
    ids.write_bytes(bytes(len(ids.read_bytes())))

    def served(*_, **__):
        next(each for each in threading.enumerate() if each.name == "warming").join()

    monkeypatch.setattr("residual.explore.serving.serve", served)
    monkeypatch.setattr("residual.explore.serving.end_now", lambda: None)
    code, shown, told = residual("explore", tmp_path / "store", "--no-open", "--port", "0")
    assert (code, shown.splitlines()[-1]) == (0, "Ended.")
    assert "is damaged" in told
