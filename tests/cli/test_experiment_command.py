"""`residual experiment`, as it is called; what it measures is tested with the experiments themselves."""

import json
import re

import pandas as pd
import pytest

from residual import load_dataset, load_encoder
from residual.experiments import read_results
from residual.report.geometry import tables_of_markdown
from residual.workflows.kept import of_stores
from residual.workflows.task import Pictures

CHEAP = ("--param", "experiment.limit=24", "--param", "experiment.reference=letters", "--device", "cpu")
FLAGS = ("--param", "experiment.datasets=['flags']")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The class token's experiment on two datasets, once."""
    from residual.cli.app import app

    out = tmp_path_factory.mktemp("made") / "results"
    words = ["experiment", "class-token", "--out", str(out), *CHEAP, *FLAGS]
    app([*words, "--json", str(out.parent / "told.json")], standalone_mode=False)
    return out, json.loads((out.parent / "told.json").read_text())


def test_it_tells_what_it_measured_and_drew(made):
    out, told = made
    assert told["experiment"] == "class_token"
    assert told["out"] == "class_token"
    assert told["settings"] == {"explained": 0.9, "anchors": 256, "seed": 0, "published_anchors": 0}
    assert [(cell["dataset"], cell["measured"]) for cell in told["cells"]] == [
        ("letters", True),
        ("flags", True),
    ]
    assert all(cell["seconds"] > 0 for cell in told["cells"])
    assert len(told["figures"]) == 4
    tables = read_results(out / "class_token")["picto"]
    for dataset, row in told["summary"]["picto"].items():
        assert row["spectral cosine"] == pytest.approx(tables[dataset]["spectral_cosine"].mean())


def test_again_it_shows_the_same_table_and_measures_nothing(made, residual, tmp_path):
    out, told = made
    words = (
        "experiment",
        "class-token",
        "--out",
        out,
        *CHEAP,
        *FLAGS,
        "--json",
        tmp_path / "deep/again.json",
    )
    code, shown, err = residual(*words)
    assert (code, err) == (0, "")
    (table,) = tables_of_markdown((out / "class_token/table.md").read_text())
    assert shown.startswith(f"{table}\n\n")
    assert f"Tables in {out / 'class_token'}, for Markdown and LaTeX: table.md.\n" in shown
    assert f"2 cells, 0 of them measured now; 4 figures in {out / 'class_token/figures'}." in shown
    for dataset in ("letters", "flags"):
        assert re.search(rf"^{dataset} +0\.\d+ ", shown, re.MULTILINE)
    again = json.loads((tmp_path / "deep/again.json").read_text())
    assert [cell["measured"] for cell in again["cells"]] == [False, False]
    assert again["summary"] == told["summary"]


def test_stores_may_be_at_an_address(made, residual, tmp_path):
    out, place = tmp_path / "out", "memory://grid/stores"
    words = ("experiment", "class-token", "--out", out, "--stores", place, *CHEAP)
    words += ("--param", "experiment.datasets=['letters']")
    assert residual(*words, "--dry-run")[0] == 0
    assert residual(*words)[0] == 0
    assert list(out.iterdir()) == [out / "class_token"]
    wanted = read_results(made[0] / "class_token")["picto"]["letters"]
    pd.testing.assert_frame_equal(read_results(out / "class_token")["picto"]["letters"], wanted)
    assert of_stores(place) == f"24 of 24 samples in {place}/picto/letters-train-24"
    code, shown, err = residual(*words, "--dry-run")
    assert (code, err) == (0, "")
    assert ", 0 kB of disk for stores" in shown
    again = load_dataset("letters", "train").sample(24)
    store = Pictures(load_encoder("picto", "cpu"), stores=place, limit=24).encode(again, "encode", 24)
    assert store.complete
    for wrong, why in ((f"{place}::x", "no address"), ("https://host/stores", "is for reading")):
        code, _, err = residual(*words[:4], "--stores", wrong)
        assert code == 2
        assert why in err


def test_other_settings_in_the_same_place_are_refused(made, residual, tmp_path):
    out, _ = made
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    cheap = [word.replace("limit=24", "limit=25") for word in CHEAP]
    code, _, err = residual("experiment", "class-token", "--out", out, *cheap, *FLAGS)
    assert code == 2
    assert "is a result of something else: settings.limit 24, not 25" in err
    (tmp_path / "it.gin").write_text("SimilaritySettings.explained = 0.5\n")
    words = ("experiment", "class-token", "--out", out, *CHEAP, *FLAGS, "--cfg", tmp_path / "it.gin")
    code, _, err = residual(*words)
    assert (code, "settings.explained 0.9, not 0.5" in err) == (2, True)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("class-tokens",), "Unknown experiment 'class-tokens'. Did you mean 'class-token'?"),
        (("7",), "Unknown experiment '7'. Known: 1, 2, 3, 4, adapters, class-token, dimension, heads, simil"),
        (("2", "--param", "experiment.colour=red"), "A setting can't be used"),
        (("2", "--param", "experiment.limit"), "--param takes name=value, got 'experiment.limit'"),
        (("2", "--param", "SimilaritySettings.colour=red"), "A setting can't be used"),
        (("2", "--param", "experiment.datasets=['mnist']"), "experiment.datasets is ['flags'] in --param "),
        (("adapters", "--param", "AdaptersSettings.seeds=0"), "takes a whole number from 1 to 1,000; got 0"),
        (("2", "--cfg", "nowhere.gin"), "There is no settings file 'nowhere.gin'"),
        (("2", "--device", "abacus"), "The device 'abacus' isn't there"),
    ],
)
def test_refusals_come_before_the_work(residual, tmp_path, words, message):
    code, shown, err = residual(
        "experiment", *words[:1], *CHEAP, *FLAGS, *words[1:], "--out", tmp_path / "results"
    )
    assert (code, shown, message in err) == (2, "", True), err
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob("*.parquet"))
    assert not list(tmp_path.rglob("stores"))


def test_places_that_cannot_be_written_are_told_before_the_work(residual, tmp_path):
    (tmp_path / "file").write_text("in the way")
    words = ("experiment", "2", *CHEAP, *FLAGS)
    code, _, err = residual(*words, "--out", tmp_path / "file")
    assert (code, "can't be made" in err) == (2, True)
    for place in (tmp_path, tmp_path / "file/told.json"):
        code, _, err = residual(*words, "--out", tmp_path / "results", "--json", place)
        assert (code, "can't be" in err) == (2, True)
    assert not list(tmp_path.rglob("*.parquet"))


def test_help_names_the_experiments_and_settings(residual):
    code, shown, _ = residual("experiment", "--help")
    assert code == 0
    for words in ("1, 2, 3, 4 or class-token", "experiment.limit=500", "paper.gin", "--json", "--cfg"):
        assert words in shown
