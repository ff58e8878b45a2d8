"""What has no effect is refused or told, and `residual settings` lists what there is."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from residual.adapters import AdapterSettings, FitSettings
from residual.adapters.methods import ADAPTERS
from residual.cli.command_settings import COMMANDS, KINDS
from residual.cli.settings import (
    list_settings,
    read_analyze_settings,
    read_describe_settings,
    read_encode_settings,
    read_experiment_settings,
    read_heads_settings,
    read_run_settings,
    read_train_settings,
)
from residual.errors import LeftOutWarning, ResidualError
from residual.experiments.adapters import AdaptersSettings
from residual.heads.comparison import ScoreboardSettings
from residual.settings import checked, default_of, meanings, settings_of, taken

run, train, encode = (
    partial(each, []) for each in (read_run_settings, read_train_settings, read_encode_settings)
)
analyze, heads = partial(read_analyze_settings, []), partial(read_heads_settings, [])
describe = partial(read_describe_settings, [])


def experiment(number, params):
    return read_experiment_settings(number, [], params, out=Path("out"), device="cpu")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: run(["epochs=1"]), "a dot in its name: FitSettings.epochs takes a wh"),
        (lambda: run(["methods=1"]), "its name: AdaptersSettings.methods takes a list"),
        (lambda: run(["FitSettings.epocs=1"]), "'epochs'. FitSettings.epochs takes"),
        (lambda: run(["train.method=linear"]), "which is of `residual train`. `residual"),
        (lambda: run(["AdapterSettings.l1=0.1"]), "it is of coarse, coarse_rel"),
        (lambda: run(["FitSettings.warmup=0.2"]), "only where optimizer is 'adamw'. Leave"),
        (lambda: run(["run.per_dataset=9"], bases="mnist"), "only where bases is 'mixed'"),
        (lambda: run(["run.seeds=5"], seeds=3), "--seeds is 3, and --param run.seeds is 5: leave"),
        (lambda: run(["run.seeds=5", "run.seeds=6"]), "run.seeds is 5 in --param 1 already"),
        (lambda: run(["run.dataset=flags"], every=True), "run.dataset has no effect here: --all"),
        (lambda: run([], ["linear_released"], recipe="gentle"), "--recipe has no effect here"),
        (lambda: train(["TrainSettings.clip=2"]), "settings of fine_tuning are TrainSettings"),
        (lambda: train([], method="fine_tuning", bases="mnist"), "--bases has no effect here"),
        (lambda: encode([], True, dtype="float32"), "--dtype has .*--bases-only stores"),
        (lambda: analyze(["SimilaritySettings.explained=0.5"]), "of what --against compares"),
        (lambda: heads(["ScoreboardSettings.atoms=3"]), "it is of the texts of --dictionary"),
        (lambda: describe([], True, top=3), "--top has no effect here: --head names the heads"),
        (lambda: describe(["DescribeSettings.samples=9"]), "criterion is 'l1', 'l2' or 'cosine'"),
        (lambda: experiment("class-token", ["SimilaritySettings.seed=4"]), "class-token does nothing by"),
        (
            lambda: experiment(
                "4", ["AdaptersSettings.methods=['linear']", "AdaptersSettings.tuning_rate=1"]
            ),
            "only where methods has 'fine_tuning'",
        ),
        (lambda: list_settings("rn"), "Unknown command with settings 'rn'. Did you mean 'run'"),
        (lambda: list_settings("", [], ["run.seeds=3"]), "Of which command"),
        (lambda: list_settings("run", word="zebra"), "No setting has 'zebra'"),
    ],
)  # fmt: skip
def test_what_has_no_effect_on_the_command_line_is_refused(read, message):
    with pytest.raises(ResidualError, match=message):
        read()


def test_a_file_is_shared_and_what_has_no_effect_in_it_is_told(tmp_path):
    file = tmp_path / "shared.gin"
    file.write_text("run.seeds = 2\ntrain.seeds = 3\nTrainSettings.clip = 2\nFitSettings.warmup = 0.2\n")
    with pytest.warns(LeftOutWarning, match=r"here: train.seeds \('.*', line 2\), T") as told:
        assert read_run_settings([file], [])[0].seeds == 2
    assert len(told) == 1
    with pytest.warns(LeftOutWarning, match="train.seeds"):
        assert read_run_settings([file], [], seeds=4)[0].seeds == 4  # an option wins over a file
    file.write_text("run.seeds = 2\ntrain.sedes = 3\n")
    with pytest.raises(ResidualError, match=r"line 2, .*Unknown setting of train 'sedes'"):
        read_run_settings([file], [])  # what nobody has is a slip
    file.write_text("run.seeds = 2\nrun:\n  seeds = 3\n")
    with pytest.raises(ResidualError, match=r"line 3, 'seeds = 3': run.seeds is 2 in line 1 already"):
        read_run_settings([file], [])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        (FitSettings, "epochs", "many", "FitSettings.epochs takes a whole number, at least 1; got 'many'"),
        (FitSettings, "epochs", -(10**400), "FitSettings.epochs takes a whole number, at least 1; got -10"),
        (FitSettings, "epochs", 0, "FitSettings.epochs takes a whole number, at least 1; got 0"),
        (FitSettings, "batch_size", True, "batch_size takes a whole number, at least 1; got True"),
        (FitSettings, "learning_rate", math.nan, "learning_rate takes a number above 0 or None; got nan"),
        (FitSettings, "learning_rate", math.inf, "learning_rate takes a number above 0 or None; got inf"),
        (FitSettings, "or_start", 1, "FitSettings.or_start takes True or False; got 1"),
        (FitSettings, "optimizer", "adam", "'lbfgs'; got 'adam'. Did you mean 'adamw'"),
        (FitSettings, "missing", None, "FitSettings.missing takes 'raise' or 'ignore'; got None"),
        (AdaptersSettings, "shots", (1, 0), r"takes a list of whole numbers, each at least 1; got \(1, 0\)"),
        (ScoreboardSettings, "shares", [0.5, 0.1, 0.5], r"shares takes each value once. Named twice: 0\.5\."),
        (AdaptersSettings, "methods", ["linaer"], r"got \['linaer'\]. Did you mean 'linear'"),
        (AdaptersSettings, "tuning_batch_size", {"clip_b": "x"}, "by encoders' names, as .* got {'clip_b'"),
    ],
)  # fmt: skip
def test_settings_answer_in_the_same_words_in_python(kind, name, value, message):
    with pytest.raises(ResidualError, match=message):
        kind(**{name: value})


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_numpy_and_torch_are_numbers():
    how = FitSettings(
        epochs=np.int64(3), learning_rate=np.float32(0.5), or_start=np.bool_(True), warmup=torch.tensor(0.25)
    )
    assert how == FitSettings(epochs=3, learning_rate=0.5, or_start=True, warmup=0.25)
    assert [type(each) for each in (how.epochs, how.learning_rate, how.or_start)] == [int, float, bool]
    assert AdaptersSettings(shots=[np.int32(1), 2]).shots == (1, 2)  # ty: ignore[invalid-argument-type]


def test_every_setting_is_described_and_takes_its_default():
    for kind in KINDS.values():
        for name in settings_of(kind):
            assert checked(kind, name, default_of(kind, name)) is not None or "None" in taken(kind, name)
            assert meanings(kind).get(name), (kind, name)
    takes = {name for each in ADAPTERS.values() for name in each.takes}
    assert takes == set(settings_of(AdapterSettings))


def test_all_settings_are_listed_in_80_columns(residual, tmp_path):
    code, shown, _ = residual("settings", "--json", tmp_path / "s.json")
    assert code == 0
    assert max(map(len, shown.splitlines())) <= 80
    listed = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    every = [f"{name}.{each}" for name, kind in KINDS.items() for each in settings_of(kind)]
    assert [row["name"] for row in listed] == every
    assert "  epochs = 30  [the paper]\n    at most (30 there)" in shown
    for words, command in ((("experiment", "4"), "experiment 4"), (("describe",), "describe")):
        residual("settings", *words, "--json", tmp_path / "s.json", "--overwrite")
        names = [row["name"].partition(".")[0] for row in json.loads((tmp_path / "s.json").read_text())]
        assert [KINDS[name] for name in dict.fromkeys(names)] == list(COMMANDS[command])


def test_values_are_listed_with_where_they_are_from(residual, tmp_path):
    file = tmp_path / "mine.gin"
    file.write_text("FEW = 3\nrun.seeds = %FEW\nFitSettings.epochs = 7\n")
    words = ("run", "--cfg", file, "--param", "FitSettings.epochs=9", "--method", "linear")
    code, shown, _ = residual("settings", *words, "--json", tmp_path / "s.json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))}
    assert (rows["run.seeds"]["value"], rows["run.seeds"]["from"]) == (3, f"'{file}', line 2")
    assert (rows["FitSettings.epochs"]["value"], rows["FitSettings.epochs"]["from"]) == (9, "--param")
    assert (rows["FitSettings.or_start"]["value"], rows["FitSettings.or_start"]["from"]) == (
        True,
        "recipe gentle",
    )
    assert (rows["FitSettings.patience"]["default"], rows["FitSettings.patience"]["from"]) == (5, "the paper")
    assert not [name for name in rows if name.startswith("AdapterSettings")]  # a linear map has none
    assert re.search(r"epochs = 9  \[--param\]\n.*\n? .*The default is 30 \(the paper\)", shown)
    assert "  learning_rate" in residual("settings", "--search", "rate")[1]
