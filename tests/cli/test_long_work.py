"""What long work says: a line a minute in a log, nothing if `--quiet`, and at a signal what is kept."""

import os
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from pictures import write_folder

from residual import cli
from residual.cli import console
from residual.errors import ResidualError
from residual.progress import listener, listening
from residual.repositories import hub_bars
from residual.workflows import kept


@pytest.fixture
def heard():
    """Signals are as at a terminal, here and in processes that start here: a shell has Ctrl-C ignored in what
    it runs in the background, and so `residual` would ignore it, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


DATA = ("encode", "--dataset", "letters", "--split", "val", "--limit", "6", "--kinds", "head")


def test_a_log_gets_a_line_a_minute_at_most():
    said, clock = [], SimpleNamespace(now=0.0)
    lines = console.Lines(said.append, lambda: float(clock.now))

    def told(stage, done, total, now):
        said.clear()
        clock.now = now
        lines(stage, done, total)
        return list(said)

    assert [told("letters: encode train", done, 5000, done / 40) for done in range(0, 2400, 40)] == [[]] * 60
    assert told("letters: encode train", 2400, 5000, 60) == [
        "letters: encode train: 2,400 of 5,000, 40/s, 1 min 05 s left"
    ]
    assert told("letters: encode train", 4000, 5000, 119.9) == []
    assert told("letters: encode train", 5000, 5000, 123) == [
        "letters: encode train: 5,000 of 5,000, done in 2 min 03 s"
    ]
    for k in range(10):  # each shorter than a minute: a line of whichever is at work when one is due
        shown = [told(f"fit_{k}", done, 2, 124 + 20 * k + 5 * done) for done in range(3)]
        lines_of = [f"fit {k}: 0 of 2", f"fit {k}: 2 of 2, done in 10 s"]
        assert [line for each in shown for line in each] == (lines_of if k in (0, 3, 6, 9) else [])
    assert told("slow", 0, 9, 400) == ["slow: 0 of 9"]
    assert told("slow", 1, 9, 4000) == ["slow: 1 of 9, 1.0/h, 8 h 00 min left"]
    assert told("slow", 0, 9, 5000) == ["slow: 0 of 9"]  # it begins anew
    assert told("slow", 0, 0, 5001) == ["slow: 0 of 0, done in 1 s"]


def test_quiet_leaves_out_notes_and_progress_and_nothing_else(residual, monkeypatch, tmp_path):
    monkeypatch.setattr(console, "_A_MINUTE", 0.0)
    data = f"folder:{write_folder(tmp_path / 'digits')}"
    words = ("datasets", data, "--split", "test", "--manifest", tmp_path / "manifest.json", "--overwrite")
    code, shown, err = residual(*words)
    assert (code, "digits: read test: 6 of 6, done in" in err, "The manifest of 6" in err) == (
        0,
        True,
        True,
    )
    assert not {"\r", "\x1b"} & set(err)
    for quiet in (("--quiet", *words), (*words, "--quiet")):
        assert residual(*quiet) == (0, shown, "")
    assert residual("--quiet", "datasets", "nosuch")[::2] == (2, residual("datasets", "nosuch")[2])
    assert listener() is None


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("number", "by"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_says_what_is_kept_and_the_command_that_goes_on(residual, monkeypatch, tmp_path, number, by):
    out = tmp_path / "my store"
    before = signal.getsignal(number)

    def stopped(*_, **__):
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)  # who started it passes it on, too

    words = (*DATA, "--out", out, "--quiet")
    command = shlex.join(["residual", *map(str, words)])
    with monkeypatch.context() as patched:
        patched.setattr("residual.workflows.encode.encode_dataset", stopped)
        told = f"residual: Stopped by {by}. Nothing is kept. The same command starts anew:\n{command}\n"
        assert residual(*words) == (128 + number, "", told)
    assert signal.getsignal(number) is before
    if number == signal.SIGTERM:
        assert residual(*words)[0] == 0
        monkeypatch.setattr("residual.workflows.encode.encode_dataset", stopped)
        told = f"Kept: 6 of 6 samples in {out}. The same command goes on from there:\n{command}\n"
        assert residual(*words) == (143, "", f"residual: Stopped by SIGTERM. {told}")


@pytest.mark.usefixtures("heard")
def test_a_process_that_is_interrupted(tmp_path):
    out = tmp_path / "store"
    words = ["encode", "--dataset", "letters", "--out", str(out), "--batch-size", "1"]
    run = subprocess.Popen(
        [sys.executable, "-m", "residual", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not out.exists() and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    shown, err = run.communicate(timeout=60)
    assert (run.returncode, shown) == (130, "")
    said, command = err.splitlines()
    assert said.startswith("residual: Stopped by Ctrl-C")
    assert command == shlex.join(["python", "-m", "residual", *words])


def test_what_is_kept_of_each_kind_of_work(tmp_path):
    for told in (kept.of_store(str(tmp_path / "none")), kept.of_stores(tmp_path), kept.of_moments("none")):
        assert told == ""
    assert kept.of_trainings(tmp_path) == kept.of_cells(tmp_path) == kept.of_datasets([], [tmp_path]) == ""
    (tmp_path / "picto").mkdir()
    (tmp_path / "picto" / "letters.parquet").touch()
    assert kept.of_cells(tmp_path) == f"1 cell in {tmp_path}"
    done = [{"dataset": "letters"}, {"dataset": "flags"}]
    assert kept.of_datasets(done, [None, tmp_path]) == f"the results of letters, flags in {tmp_path}"
    assert kept.joined("", "a", "b") == "a; b"


def test_a_stage_that_tells_nothing_for_long_is_said_to_be_at_work():
    said, clock = [], SimpleNamespace(now=0.0)
    lines = console.Lines(said.append, lambda: float(clock.now))
    lines("bases: fit_bases", 5, 60)
    for clock.now in (59, 61, 100, 3800):
        lines.remind()
    assert said == [f"bases: fit bases: at 5, at work for {it}" for it in ("1 min 01 s", "1 h 03 min")]


def test_what_the_hub_sends_is_told(capsys):
    """As its library calls bars: the bytes that are written, and others that aren't told twice."""
    assert hub_bars("owner/name") is None
    told = []
    with listening(lambda *stage: told.append(stage)):
        bars = hub_bars("owner/name")
        written = bars(desc="Reconstructing", total=0, initial=0, unit="B", unit_scale=True, name="snapshot")
        others = (
            bars(desc="Downloading bytes", total=3_000_000, unit="B"),
            bars(desc="Fetching 5 files", total=5),
        )
        written.total = 2_500_000
        for each in (written, *others):
            each.update(2_500_000)
            each.refresh()
            each.close()
    assert set(told) == {("fetch owner/name, MB", 3, 3)}
    assert capsys.readouterr() == ("", "")


def test_a_step_that_fails_costs_none_of_the_others(capsys):
    told = []

    def work():
        with console.steps() as step:
            with step():
                raise ResidualError("The first failed.")
            with step():
                raise SystemExit(141)  # nobody reads any more
            with step():
                told.append("second")
            raise ValueError("third")

    with pytest.raises(ValueError, match="third"):
        work()
    assert (told, capsys.readouterr().err) == (["second"], "residual: The first failed.\n")


def test_a_command_that_is_stopped_replaces_what_it_has_written(residual, tmp_path):
    words = ["datasets", "--json", str(tmp_path / "told.json")]
    assert residual("datasets")[0] == 0
    assert cli.again(words) == words
    assert residual(*words)[0] == 0
    assert cli.again(words) == cli.again([*words, "--overwrite"]) == [*words, "--overwrite"]
