"""`residual run` as a user runs it, on Picto and a small folder of pictures."""

import errno
import json
import re

import pytest
from pictures import write_folder

from residual.data import Manifest, load_dataset
from residual.intervals import over_pictures, over_seeds
from residual.report.sentences import sentence


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pictures") / "digits", each=20)


def quick(folder) -> list[str]:
    return ["run", "--dataset", f"folder:{folder}", "--bases", f"folder:{folder}"]


def test_prints_a_table_and_a_sentence_and_writes_json_and_a_page(residual, folder, tmp_path):
    code, shown, _ = residual(*quick(folder), "--json", tmp_path / "r.json", "--report", tmp_path / "page")
    assert code == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert {"encoder", "dataset", "n_train", "n_test", "accuracy", "parameters", "seconds"} <= set(result)
    assert set(result["accuracy"]) == {"zero_shot", "residual_star", "residual"}
    assert set(result["parameters"]) == {"residual_star", "residual"}
    assert {"encode", "bases", "fit"} <= set(result["seconds"])
    assert (result["n_train"], result["n_val"], result["n_test"]) == (36, 12, 12)
    for method in ("zero-shot", "ResiDual*", "ResiDual"):
        assert method in shown
    assert f"{result['parameters']['residual']:,}" in shown
    *_, second, first = sorted(result["accuracy"].values())
    assert ("The best is " if first > second else "None is better than ") in shown
    page = (tmp_path / "page/index.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "folder:digits" in page
    assert str(folder.parent) not in f"{page}{result}"  # others may see them


@pytest.mark.filterwarnings("default::residual.errors.UnderstoodWarning")
def test_groups_of_a_manifest_are_held_out_and_the_worst_one_is_told(residual, tmp_path, monkeypatch):
    """A layout as people have it, by its path, from the manifests to a table of the worst group."""
    for one in write_folder(tmp_path / "digits" / "Train", each=16).rglob("*[05].png"):
        one.parents[2].joinpath("valid", one.parent.name).mkdir(parents=True, exist_ok=True)
        one.rename(one.parents[2] / "valid" / one.parent.name / one.name)
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val", "test"):
        path = tmp_path / "digits" / f"manifest-{split}.json"
        with pytest.warns(UserWarning, match="those of 'valid' are test"):
            Manifest.of(load_dataset("./digits", split)).save(path)
        fields = json.loads(path.read_text())
        for number, cells in enumerate(fields["samples"]):
            cells.append(("ink", "wood")[number % 2])
        path.write_text(json.dumps(fields))
    words = ("--bases", "./digits", "--hold-out", "wood", "--limit", "9", "--json", "r.json", "--seeds", "1")
    words += ("--method", "residual", "--param", "FitSettings.epochs=2")
    code, shown, err = residual("run", "--dataset", "./digits", *words)
    assert (code, "those of 'valid' are test, and what is chosen" in err) == (0, True)
    told, said = json.loads((tmp_path / "r.json").read_text()), " ".join(shown.split())
    assert (told["dataset"], told["held_out"], told["limit"]) == ("folder:digits", ["wood"], 9)
    assert (told["n_train"], told["n_val"], told["n_test"]) == (9, 9, 9)
    assert "folder:digits has val a fifth of its folder 'Train', at random," in told["notes"][-1]
    assert all(note in said for note in told["notes"])
    assert "at most 9 pictures, chosen at random, the same every time: 9 train, 9 val, 9 test." in said
    assert "Held out of training, to choose by: the 9 pictures of 'wood'." in said
    for split in ("val", "test"):
        code, _, _ = residual("encode", "--dataset", "./digits", "--split", split, "--out", split)
        assert code == 0
    board = ("--param", "ScoreboardSettings.shares=(0.5,)", "--param", "ScoreboardSettings.seeds=2")
    code, shown, _ = residual("heads", "val", "--test", "test", *board, "--json", "heads.json")
    assert (code, "worst group" in shown) == (0, True)
    rows = json.loads((tmp_path / "heads.json").read_text())["rows"]
    assert all(0 <= row["worst_group"] <= row["accuracy"] <= 1 for row in rows)


def test_several_seeds_and_a_page_that_fails_costs_no_result(residual, folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("residual.workflows.run_page.RunPages.write", full)
    words = ("--seeds", "3", "--json", tmp_path / "r.json", "--report", tmp_path / "page")
    code, shown, err = residual(*quick(folder), *words)
    result = json.loads((tmp_path / "r.json").read_text())
    assert (code, err) == (2, "residual: No space left on device.\n")
    assert sentence(result) in shown
    assert "The page" not in shown
    assert result["seeds"] == [0, 1, 2]
    assert result["accuracy"]["residual"] == pytest.approx(sum(result["per_seed"]["residual"]) / 3)
    assert "±" in shown


def test_other_methods_in_the_order_that_they_are_given(residual, folder, tmp_path):
    methods = ("--method", "linear", "--method", "coarse", "--method", "linear")
    code, shown, error = residual(*quick(folder), *methods, "--seeds", "2", "--json", tmp_path / "r.json")
    assert (code, error) == (0, "")
    result = json.loads((tmp_path / "r.json").read_text())
    assert list(result["accuracy"]) == ["zero_shot", "linear", "coarse"]
    assert result["parameters"] == {"linear": 192 * 192, "coarse": 48}
    assert {name: len(each) for name, each in result["per_seed"].items()} == {"linear": 2, "coarse": 2}
    assert {"fit_linear", "fit_coarse"} <= set(result["seconds"])
    rows = shown.splitlines()[2:5]
    names = ["zero-shot", "linear map", "Coarse"]
    assert [re.split("  +", row)[0] for row in rows] == names
    for row, method in zip(rows[1:], ("linear", "coarse"), strict=True):
        assert f"{100 * result['accuracy'][method]:.1f}{over_seeds(result['interval'][method])} %" in row
        assert over_pictures(result["over_pictures"][method]) in row
        assert f"{result['parameters'][method]:,}" in row
    assert sentence(result) in shown


def test_one_method_with_settings_of_the_adapter_and_json_through_a_link(residual, folder, tmp_path):
    rank = ("--param", "AdapterSettings.rank=5")
    (tmp_path / "real.json").write_text("")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    words = (*quick(folder), "--method", "spectral", *rank, "--json", tmp_path / "link.json")
    code, shown, error = residual(*words)
    assert (code, error) == (0, "")
    assert (tmp_path / "link.json").is_symlink()
    told = json.loads((tmp_path / "real.json").read_text())
    assert told["parameters"] == {"spectral": 5}
    assert sentence(told) in shown


def test_settings_from_gin_files_and_params_and_the_command_line_wins(residual, folder, tmp_path):
    (tmp_path / "a.gin").write_text("FitSettings.epochs = 2\nrun.seed = 5\nrun.seeds = 2\n")
    words = ["run", "--cfg", tmp_path / "a.gin", "--param", "FitSettings.epochs=1", "--seed", "9"]
    for name in ("dataset", "bases"):  # words without quotes
        words += ["--param", f"run.{name}=folder:{folder}"]
    code, _, error = residual(*words, "--json", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text())
    assert (code, error) == (0, "")
    assert result["epochs"] == {"residual_star": [1, 1], "residual": [1, 1]}
    assert result["seeds"] == [9, 10]
    assert result["bases"] == f"folder:{folder.name}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "mnits"], "Did you mean 'mnist'"),
        (["--encoder", "pictoo"], "Did you mean 'picto'"),
        (["--encoder", "hf:no_such_folder_here/at_all"], "no folder"),
        (["--dataset", "folder:nowhere"], "nowhere"),
        (
            ["--dataset", "letters", "--limit", "20"],
            "26 classes, and methods are fitted on pictures of each: of",
        ),
        (["--bases", "lost.safetensors"], "No file of bases"),
        (["--bases", "mixd"], "mixd"),
        (["--method", "coarce"], "Unknown method 'coarce'. Did you mean 'coarse'?"),
        (["--method", "linear", "--method", "fine_tuning"], "Unknown method 'fine_tuning'"),
        (["--param", "AdapterSettings.mean=kept"], "mean takes 'drop' or 'keep'; got 'kept'"),
        (["--all", "--dataset", "mnist"], "--dataset has no effect here: --all takes every dataset"),
        (["--cfg", "lost.gin"], "no settings file"),
        (["--param", "FitSettings.speed=2"], "speed"),
        (["--param", "Nothing.at_all=2"], "Nothing"),
        (["--param", "FitSettings.epochs"], "name=value"),
        (["--param", "FitSettings.epochs=0"], "FitSettings.epochs takes a whole number, at least 1; got 0"),
        (["--param", "run.per_dataset=0"], "per_dataset takes a whole number, at least 1; got 0"),
        (["--param", "FitSettings.seed=7"], "follows run.seed"),
        (["--seed", "99999999999999999999999"], "--seed takes a whole number, at least 0 and below 2**62"),
        (["--on-error", "ignore"], "--on-error takes 'raise' or 'skip'; got 'ignore'"),
        (["--device", "abacus"], "device"),
    ],
)
def test_bad_input_gets_one_clear_line_and_exit_code_2(residual, monkeypatch, tmp_path, words, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    code, shown, error = residual("run", *words)
    assert code == 2
    assert shown == ""
    assert message in error
    assert error.startswith("residual: ")
    assert "Traceback" not in error
    assert error.count("\n") == 1


def test_a_place_that_cannot_be_written_is_found_before_the_work(residual, folder, tmp_path):
    (tmp_path / "file").write_text("")
    code, shown, error = residual(*quick(folder), "--json", tmp_path / "file" / "r.json")
    assert (code, shown) == (2, "")
    assert "can't be made" in error


def test_an_unreadable_picture_stops_the_run_or_is_left_out_and_listed(residual, tmp_path):
    root = write_folder(tmp_path / "old [red] x[y]")
    for broken in sorted((root / "digit 1").iterdir())[:2]:
        broken.write_bytes(b"not a picture")
    code, _, error = residual(*quick(root))
    assert code == 2
    assert "can't be read" in error
    assert "--on-error skip" in error
    code, shown, error = residual(*quick(root), "--on-error", "skip", "--json", tmp_path / "r.json")
    assert "old [red] x[y]" in shown  # brackets in names are shown as they are
    skipped = json.loads((tmp_path / "r.json").read_text())["skipped"]
    assert code == 0
    assert sorted(skipped) == ["digit 1/00.png", "digit 1/01.png"]
    for sample in skipped:
        assert sample in error


@pytest.mark.usefixtures("unchecked")
def test_settings_of_another_type_are_refused_before_any_work(residual):
    for param, message in (
        ("run.dataset=5", "run.dataset takes a text; got 5 (--param)"),
        ("run.batch_size=1.5", "run.batch_size takes a whole number, at least 1; got 1.5"),
        ("FitSettings.epochs=2.5", "epochs takes a whole number, at least 1; got 2.5"),
    ):
        code, _, error = residual("run", "--param", param)
        assert (code, message in error, error.count("\n")) == (2, True, 1), error


def test_help_shows_an_example(residual):
    code, shown, _ = residual("run", "--help")
    assert code == 0
    assert "residual run --dataset letters" in " ".join(shown.split())


def test_version(residual):
    code, shown, _ = residual("--version")
    assert code == 0
    assert shown.startswith("residual-vit ")


@pytest.mark.slow
def test_several_datasets_with_their_pages(residual, tmp_path, monkeypatch):
    """ResiDual is above zero-shot on two of the suite; pages and tables are there."""
    monkeypatch.setattr("residual.data.dataset_names", lambda: ("digits", "textures"))
    pages, few = tmp_path / "pages", ("--param", "run.per_dataset=8", "--seeds", "1", "--limit", "60")
    code, shown, _ = residual("run", "--all", *few, "--json", tmp_path / "all.json", "--report", pages)
    assert code == 0
    results = json.loads((tmp_path / "all.json").read_text())
    gains = {r["dataset"]: r["accuracy"]["residual"] - r["accuracy"]["zero_shot"] for r in results}
    assert list(gains) == ["digits", "textures"]
    assert gains["digits"] > 0
    assert gains["textures"] > 0.1
    assert "mean" in shown
    for name in gains:
        assert (pages / f"{name}.html").is_file()
        assert f'href="{name}.html"' in (pages / "index.html").read_text()
    assert (pages / "table.md").read_text().count("\n") == 5
