"""Settings of others: what gin's syntax can bind, and that nothing else in it is done."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from residual.cli.console import recipes_line
from residual.cli.settings import read_heads_settings, read_run_settings, read_train_settings
from residual.errors import LeftOutWarning, ResidualError
from residual.heads.comparison import ScoreboardSettings


def bound(tmp_path: Path, text: str | bytes, *params: str):
    (tmp_path / "a.gin").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_run_settings([tmp_path / "a.gin"], params)


def test_literals_macros_blocks_and_comments(tmp_path):
    options, fittings = bound(
        tmp_path,
        """
        # What is used twice
        FEW = 2
        WORD = ('let'
                'ters')
        run.dataset = %WORD  # of the suite
        run.seeds = %FEW
        residual.FitSettings.learning_rate = 3
        FitSettings:
            epochs = %FEW
            weight_decay = 1e-3
        AdapterSettings.rank = None
        """.replace("\n        ", "\n"),
        "run.seed=7",
        "FEW=3",  # later, so it holds everywhere
        "AdapterSettings.mean=drop",
    )
    assert (options.dataset, options.seeds, options.seed) == ("letters", 3, 7)
    assert list(fittings) == ["residual_star", "residual"]
    fits, adapter = fittings["residual"].fits, fittings["residual"].adapter
    assert [fit.seed for fit in fits] == [7, 8, 9]
    assert (fits[0].or_start, adapter.init) == (True, "ones")  # of the recipe, where nothing else is said
    assert (fits[0].epochs, fits[0].learning_rate, fits[0].weight_decay) == (3, 3, 1e-3)
    assert (adapter.rank, adapter.mean) == (None, "drop")
    file = tmp_path / "b.gin"
    file.write_bytes(b"\xef\xbb\xbfTENTH = 0.1\r\nScoreboardSettings.shares = [%TENTH, 0.5]")
    assert read_heads_settings([file], []) == ScoreboardSettings(shares=(0.1, 0.5))
    file.write_text("TrainSettings.epochs = 2\nFitSettings.epochs = 3\n")  # of any method
    with pytest.warns(LeftOutWarning, match=r"no effect here: TrainSettings.epochs \('.*b.gin', line 1\)\.$"):
        assert read_train_settings([file], [])[1].fits[0].epochs == 3


@pytest.mark.parametrize(
    ("methods", "params", "told"),
    [
        (["residual"], (), "Recipe: gentle .starts at the encoder itself, .* The other: --recipe paper.$"),
        (
            ["residual", "linear_released"],
            ("AdapterSettings.init=randn", "FitSettings.weight_decay=0.1"),
            "but with AdapterSettings.init=randn, FitSettings.weight_decay=0.1; paper .* for linear_r",
        ),
        (
            ["linear_released"],
            (),
            "^Recipe: paper .*; methods as published have no other.$",
        ),
    ],
)
def test_what_is_told_of_recipes(methods, params, told):
    assert re.search(told, recipes_line(read_run_settings([], params, methods)[1]))


HOSTILE = (
    "from __gin__ import dynamic_registration\nimport marker\nrun.dataset = @marker.make()",
    "run.seed = 1\nimport marker",
    "from marker import make\n",
    "include 'other.gin'",
    "run.dataset = @marker.make()",
    "run.dataset = ['a', {'b': (@os.system,)}]",
    "marker.make.path = 'x'\n",
    "os.system.command = 'touch made'",
    "gin.singleton.constructor = @marker.make",
    "run.dataset = __import__('os').system('touch made')",
    'run.dataset = f\'{open("made", "w")}\'',
)


def test_nothing_in_settings_runs(tmp_path, monkeypatch):
    """As a user has them: a module that can be imported lies in the folder; each line is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("marker.py").write_text("open('made', 'w')\ndef make(): open('made', 'w')\n")
    Path("other.gin").write_text("import marker\n")
    told = []
    for text in HOSTILE:
        with pytest.raises(ResidualError, match=r"A setting can't be used: 'a\.gin', line") as error:
            bound(Path(), text)
        told.append(str(error.value))
        if "__import__" in text or "f'" in text:
            assert read_run_settings([], [text])[0].dataset == text.partition("=")[2].strip()  # a word
        else:
            with pytest.raises(ResidualError, match="--param"):
                read_run_settings([], [text])
    assert not Path("made").exists()
    assert "marker" not in sys.modules
    assert told[0] == (
        "A setting can't be used: 'a.gin', line 1, 'from __gin__ import dynamic_registration': settings are "
        "data, and nothing is imported. `residual settings run` lists what there is."
    )
    for number, words in ((1, "line 2, 'import marker'"), (3, "is included"), (4, "@marker.make would be")):
        assert words in told[number]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train/run.seed = 1", "'a.gin', line 1, .*nothing uses the scope 'train'"),
        ("\nepochs = 3", "line 2, 'epochs = 3': nothing uses %epochs; a setting has a dot in its name: "
            r"FitSettings.epochs takes a whole number, at least 1 \(by default 30\). `residual settings"),
        ("run.seed = %SEED", "Unknown macro 'SEED'. There is none. `residual"),
        ("A = 1\nB = %A\nrun.seed = %B", "line 2, 'B = %A': a macro stands for a literal, not for %A"),
        ("run.sede = 1", "Unknown setting of run 'sede'. Did you mean 'seed'.* run.seed takes a "),
        ("FitSetings.epochs = 1", "Unknown settings 'FitSetings'. Did .* or 'SimilaritySettings'. `resid"),
        ("run.seed = -%A\nA = 1", "a minus stands before numbers only"),
        ("run.seed = 3j", "complex is no kind of setting"),
        ("run.dataset = b'letters'", "bytes is no kind of setting"),
        ("FitSettings.warmup = 1e999", r"a number is below 2\*\*64"),
        ("run.seed = 0x" + "f" * 5000, r"a number is below 2\*\*64"),
        ("run.seed = " + "9" * 5000, "line 1, 'run.seed = 999.*…': Failed to parse token '999"),
        ("run.seed = " + "[" * 10_000, "more than 20 brackets in each other"),
        ("run.seed = " + "[" * 30 + "]" * 30, "more than 20 brackets in each other"),
        ("run.dataset = " + "''\"\"" * 5000, "more than 100 strings beside each other"),
        ("run.dataset = {[1]: 2}", "line 1, .*a list is no key|a value after it can't be made"),
        ("A = [" + "1," * 9000 + "]\nrun.dataset = [%A, %A]", "its value has more than 10,000 parts"),
        ("A = [1]\nrun.dataset = {%A: 1}", "line 2, .*: a list or a dictionary is no key"),
        ("A = {}\nrun.dataset = {(%A,): 1}", "line 2, .*: a list or a dictionary is no key"),
        ("run.dataset = 'a", "line 1, \"run.dataset = 'a\": "),
        ("run.seed = (1,\n", "EOF in multi-line statement"),
        ("run:\n    seed = 1\n  seeds = 2\n", "line 3, 'seeds = 2': "),
        ("run.seed = 1; run.seeds = 2", "line 1, .*Expected newline"),
        ("run.seed = 1 # \x1b[31m\x07\nx\x1b = 2", r"line 2, 'x\\x1b = 2'"),
        ("é" * 20_000, "'a.gin' has 40,000 bytes, more than the 32,768 that"),
        (b"run.dataset = '\xff'", "no text: its byte 15 isn't UTF-8"),
        ("run.dataset = 'a\0b'", "no text: it holds a zero byte"),
        ("run.dataset = ['letters']", r"run.dataset takes a text; got \['letters'\] \('a.gin', line 1\)\."),
        ("FitSettings.learning_rate = 'fast'", "rate takes a number above 0 or None; got 'fast' "),
        ("run.seeds = 1000000000000", "run.seeds takes a whole number from 1 to 1,000; got 1000000000000 "),
        ("run.seeds = True", "run.seeds takes a whole number from 1 to 1,000; got True "),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_setting_is_named_by_its_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResidualError, match=message) as error:
        bound(Path(), text)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 500


def test_places_that_hold_no_settings(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ResidualError, match=f"'{file}' is no regular file"):
            read_run_settings([file], [])
    for param, message in (
        ("run.seed=1\nrun.seeds=2", "--param 1, line 1, .*: each --param binds one value"),
        ("# run.seed=3", "each --param binds one value"),
    ):
        with pytest.raises(ResidualError, match=message):
            read_run_settings([], [param])
