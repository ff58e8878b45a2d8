"""`residual train` as a user runs it, on Picto and a small folder of pictures."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import write_folder
from PIL import Image

from residual.adapters.adapted_encoder import AdaptedEncoder
from residual.adapters.methods import ADAPTERS
from residual.adapters.methods.residual import ResiDual
from residual.report import sentence

KEPT = {"README.md", "adapter.safetensors", "adapter_config.json"}
NAMED = [name for name, adapter in ADAPTERS.items() if adapter.of_components]
WEIGHTS = {"linear": 192 * 192, "coarse": 48}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pictures") / "digits", each=20)


def quick(folder: Path, method: str, out: Path, *more: str | Path) -> list[str | Path]:
    name = f"folder:{folder}"
    bases = [] if method == "fine_tuning" else ["--bases", name]
    return ["train", "--dataset", name, *bases, "--method", method, "--out", out, *more]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def config(folder: Path) -> dict:
    return json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))


CALLED = {
    "linear": "a linear map of",
    "coarse": "Coarse:",
    "residual": "ResiDual:",
}


@pytest.mark.parametrize("method", CALLED)
def test_a_method_is_trained_and_kept(residual, folder, tmp_path, method):
    figures = ("--figures", tmp_path / "figures") if method == "residual" else ()
    words = quick(folder, method, tmp_path / "kept", "--seeds", "2", "--json", tmp_path / "r.json", *figures)
    code, shown, error = residual(*words)
    assert (code, error) == (0, "")
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    name = f"folder:{folder.name}"
    assert (told["method"], told["dataset"], told["encoder"], told["seeds"]) == (
        method,
        name,
        "picto",
        [0, 1],
    )
    assert (told["n_train"], told["n_val"], told["n_test"], told["classes"]) == (36, 12, 12, 3)
    each = told["per_seed"]
    assert told["accuracy"][method] == pytest.approx(sum(seed["accuracy"] for seed in each) / 2)
    best = max(
        each, key=lambda seed: (seed["val_accuracy"], -seed["history"][seed["best_epoch"] - 1]["val_loss"])
    )
    assert told["kept_seed"] == best["seed"]
    assert told["accuracy_of_kept"] == best["accuracy"]
    assert f"seed {best['seed']} was the best on val" in shown
    assert f"{told['parameters'][method]:,}" in shown
    assert told["parameters"][method] == WEIGHTS.get(method, told["parameters"][method])
    assert "12 unseen pictures" in shown
    assert sentence(told) in shown

    assert files(tmp_path / "kept") == KEPT
    card = (tmp_path / "kept" / "README.md").read_text(encoding="utf-8")
    assert f"\nMethod: {CALLED[method]}" in card
    loaded = AdaptedEncoder.from_pretrained(tmp_path / "kept", device="cpu")
    assert loaded.adapter is not None
    assert loaded.adapter.weights.numel() == told["parameters"][method]
    assert loaded.class_names == ("digit 0", "digit 1", "digit 7")
    assert loaded.record is not None
    assert loaded.record.accuracy == told["accuracy"]
    assert loaded.record.seeds == (0, 1)
    assert (method in NAMED) == ("The strongest components" in shown)
    if figures:
        assert files(tmp_path / "figures") == {"lambdas.png", "lambdas.svg"}
        with Image.open(tmp_path / "figures/lambdas.png") as image:
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    else:
        assert files(tmp_path) == {"r.json", *(f"kept/{name}" for name in KEPT)}


def test_the_same_seed_gives_the_same_weights(residual, folder, tmp_path):
    digests = []
    for number, seed in enumerate(("3", "3", "4")):
        out = tmp_path / str(number)
        words = quick(folder, "coarse", out, "--seed", seed, "--seeds", "1", "--stores", tmp_path / "stores")
        code, _, error = residual(*words)
        assert (code, error) == (0, "")
        digests.append(config(out)["sha256"])
    assert digests[0] == digests[1] != digests[2]


def test_settings_of_the_fit_and_of_the_adapter(residual, folder, tmp_path):
    (tmp_path / "a.gin").write_text("FitSettings.optimizer = 'adamw'\ntrain.method = 'residual'\n")
    name = f"folder:{folder}"
    code, shown, error = residual(
        "train", "--dataset", name, "--bases", name, "--out", tmp_path / "kept",
        "--json", tmp_path / "r.json", "--cfg", tmp_path / "a.gin",
        "--param", "FitSettings.optimizer=lbfgs", "--param", "FitSettings.epochs=2",
        "--param", "AdapterSettings.rank=0.95", "--param", "AdapterSettings.init=ones",
        "--param", "AdapterSettings.tail=keep", "--hold-out", "*/0[0-3].png", "--limit", "20",
    )  # fmt: skip
    assert (code, error) == (0, "")
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert (told["settings"]["optimizer"], told["settings"]["epochs"]) == ("lbfgs", 2)
    assert told["seeds"] == [0, 1, 2, 3, 4]  # by default
    assert [len(seed["history"]) for seed in told["per_seed"]] == [2] * 5
    own = told["settings"]["adapter"]
    assert (own["rank"], own["init"], own["tail"], own["mean"]) == (0.95, "ones", "keep", "keep")
    assert (told["settings"]["recipe"], told["settings"]["weight_decay"]) == ("gentle", 0)
    assert told["held_out"] == told["settings"]["held_out"] == ["*/0[0-3].png"]
    assert 0 < told["n_val"] <= 12
    assert (told["n_train"], told["limit"], told["settings"]["limit"]) == (20, 20, 20)
    card = (tmp_path / "kept" / "README.md").read_text(encoding="utf-8")
    assert "test at most `20` pictures each were taken, chosen at random" in card
    assert 'held out of training, to choose by: `["*/0[0-3].png"]`' in card
    said = " ".join(shown.split())
    assert "class folders split into train, val and test, at random, in every class alike" in said
    assert (
        f"at most 20 pictures, chosen at random, the same every time: 20 train, {told['n_val']} val" in said
    )
    assert f"to choose by: the {told['n_val']} pictures of '*/0[0-3].png'." in said
    assert config(tmp_path / "kept")["adapter"]["tail"] == "keep"
    assert config(tmp_path / "kept")["training"]["settings"] == told["settings"]
    loaded = AdaptedEncoder.from_pretrained(tmp_path / "kept", device="cpu")
    assert isinstance(loaded.adapter, ResiDual)
    again = ResiDual(loaded.adapter.bases, 0.95)
    assert loaded.adapter.ranks == again.ranks
    assert sum(again.ranks) < sum(loaded.adapter.bases.ranks)


def test_fine_tuning_goes_on_where_it_was(residual, folder, tmp_path):
    size = "TrainSettings.batch_size=32"
    more = ("--seeds", "2", "--json", tmp_path / "r.json", "--param", size)
    more += ("--stores", tmp_path / "stores")
    words = quick(folder, "fine_tuning", tmp_path / "kept", *more, "--param", "TrainSettings.epochs=2")
    code, shown, error = residual(*words)
    assert (code, error) == (0, "")
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert (told["settings"]["learning_rate"], told["settings"]["clip"]) == (1e-5, 1.0)
    assert [len(seed["history"]) for seed in told["per_seed"]] == [2, 2]
    assert "fine-tuning" in shown
    assert "The strongest components" not in shown
    finished = {f"training/seed-{seed}/finished.safetensors" for seed in (0, 1)}
    logs = {f"training/seed-{seed}/csv/metrics.csv" for seed in (0, 1)}
    assert files(tmp_path / "kept") == KEPT | finished | logs
    with (tmp_path / "kept/training/seed-1/csv/metrics.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 2
    held = config(tmp_path / "kept")
    assert held["method"] == "fine_tuning"
    assert held["trained_weights"] == told["parameters"]["fine_tuning"] > 3_000_000
    assert held["encoder"]["original_fingerprint"] != held["encoder"]["fingerprint"]
    code, _, error = residual(*words, "--logger", "none")
    assert (code, "'kept' holds an adapter already" in error.replace(f"{tmp_path}/", "")) == (2, True)
    for name in (*KEPT, "../r.json"):  # as if it had been killed before it wrote them
        (tmp_path / "kept" / name).unlink()
    code, _, _ = residual(*words, "--logger", "none")  # once more: nothing is left to train
    assert code == 0
    assert config(tmp_path / "kept")["sha256"] == held["sha256"]
    for name in (*KEPT, "../r.json"):
        (tmp_path / "kept" / name).unlink()
    code, _, error = residual(*[size.replace("32", "7") if word == size else word for word in words])
    assert code == 2
    assert "is of another batch_size (32, not 7)" in error


@pytest.mark.parametrize("method", ["coarse", "fine_tuning"])
def test_pictures_that_cannot_be_read(residual, tmp_path, method):
    root = write_folder(tmp_path / "pictures")
    for broken in sorted((root / "digit 1").iterdir())[:4]:
        broken.write_bytes(b"not a picture")
    names = [f"digit 1/{number:02d}.png" for number in range(4)]
    settings = "FitSettings" if method == "coarse" else "TrainSettings"
    words = quick(root, method, tmp_path / "kept", "--logger", "none", "--param", f"{settings}.epochs=1")
    code, shown, error = residual(*words)
    assert (code, shown) == (2, "")
    assert error.startswith("residual: Image 'digit 1/0")
    assert "--on-error skip" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "kept").exists() or files(tmp_path / "kept") == set()
    code, _, error = residual(*words, "--on-error", "skip", "--json", tmp_path / "r.json")
    assert code == 0, error
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert sorted(told["skipped"]) == names
    assert sum(told[f"n_{split}"] for split in ("train", "val", "test")) == 26
    for name in names:
        assert f"left out, can't be read: {name}" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "residul"], "got 'residul'. Did you mean 'residual'?"),
        (["--method", "zero_shot"], "got 'zero_shot'"),
        (["--dataset", "mnits"], "Did you mean 'mnist'"),
        (["--dataset", "folder:nowhere"], "nowhere"),
        (["--encoder", "pictoo"], "Did you mean 'picto'"),
        (["--bases", "lost.safetensors"], "No file of bases"),
        (["--cfg", "lost.gin"], "no settings file"),
        (["--on-error", "ignore"], "--on-error takes 'raise' or 'skip'; got 'ignore'"),
        (["--device", "abacus"], "device"),
        (
            ["--logger", "cvs", "--method", "fine_tuning"],
            "logger is 'csv' or 'tensorboard' or 'wandb' or 'none', got 'cvs'",
        ),
        (
            ["--method", "linear", "--figures", "f"],
            "--figures draws the weights of units, and linear has none",
        ),
        (
            ["--method", "fine_tuning", "--figures", "f"],
            "take coarse, coarse_released, residual_star, residual or residual_released.",
        ),
        (["--param", "train.seed=-1"], "train.seed takes a whole number, at least 0"),
        (["--param", "TrainSettings.seed=7"], "TrainSettings.seed follows train.seed"),
        (["--param", "FitSettings.seed=7"], "FitSettings.seed follows train.seed"),
        (
            ["--param", "FitSettings.optimizer=sgd"],
            "optimizer takes 'schedule_free', 'adamw' or 'lbfgs'; got 'sgd'",
        ),
        (["--param", "TrainSettings.precision=half"], "TrainSettings.precision takes"),
        (["--param", "TrainSettings.speed=2"], "speed"),
        (
            ["--param", "AdapterSettings.rank=al"],
            "rank takes 'all', a whole number, at least 1, a number",
        ),
        (
            ["--param", "AdapterSettings.init=zeros"],
            "init takes 'randn', 'ones' or 'eigenvalues'; got 'zeros'",
        ),
        (
            ["--param", "AdapterSettings.others=drop"],
            "others takes 'keep', 'mean' or 'zero', or None; got 'drop'",
        ),
        (
            ["--method", "linear", "--param", "TrainSettings.epochs=2"],
            "TrainSettings.epochs has no effect here: the settings of fine_tuning are TrainSettings",
        ),
        (
            ["--method", "fine_tuning", "--param", "FitSettings.epochs=2"],
            "FitSettings.epochs has no effect here: the settings of fine_tuning are TrainSettings",
        ),
        (["--method", "fine_tuning", "--param", "train.recipe=gentle"], "train.recipe has no effect here"),
        (["--method", "fine_tuning", "--param", "AdapterSettings.rank=5"], "rank has no effect here"),
        (["--logger", "csv"], "Only fine_tuning has a logger: residual is fitted on scores"),
        (["--param", "Nothing.at_all=2"], "Nothing"),
        (["--param", "train.method"], "name=value"),
    ],
)
def test_bad_input_gets_one_clear_line_and_nothing_is_written(
    residual, folder, monkeypatch, tmp_path, words, message
):
    monkeypatch.chdir(tmp_path)
    base = {"--dataset": f"folder:{folder}", "--out": "kept"}
    base |= {} if "fine_tuning" in words else {"--bases": f"folder:{folder}"}
    given = [word for name, value in base.items() if name not in words for word in (name, value)]
    code, shown, error = residual("train", *given, *words)
    assert code == 2, error
    assert shown == ""
    assert message in error
    assert error.startswith("residual: ")
    assert "Traceback" not in error
    assert error.count("\n") == 1
    assert files(tmp_path) == set()


def test_what_a_method_cannot_have_is_told(residual, folder, tmp_path):
    code, _, error = residual(
        *quick(folder, "coarse", tmp_path / "kept", "--param", "AdapterSettings.init=eigenvalues")
    )
    assert code == 2
    assert "init of Coarse is 'randn', 'ones' or a tensor" in error
    assert files(tmp_path) == set()


def test_a_place_that_cannot_be_written_is_found_before_the_work(residual, folder, tmp_path):
    (tmp_path / "file").write_text("")
    code, shown, error = residual(*quick(folder, "linear", tmp_path / "file"))
    assert (code, shown) == (2, "")
    assert "file" in error
    code, shown, error = residual(
        *quick(folder, "linear", tmp_path / "kept", "--json", tmp_path / "file/r.json")
    )
    assert (code, shown) == (2, "")
    assert "can't be made" in error


def test_help_shows_the_examples(residual):
    code, shown, _ = residual("train", "--help")
    text = " ".join(shown.split())
    assert code == 0
    assert "residual train --dataset letters --out letters-adapter" in text
    assert "--method fine_tuning" in text
    assert text.count("*/sketch/*") == 2  # stars are no emphasis
    assert "…" not in text.replace("cpu, cuda, …", "")  # nothing is cut off


@pytest.mark.parametrize(
    ("missing", "words", "message"),
    [
        ("lightning", (), r"needs lightning.*\[training\]"),
        ("schedulefree", (), r"needs schedulefree.*\[training\]"),
        ("tensorboard", ("--logger", "tensorboard"), r"needs tensorboard.*\[logging\]"),
        ("wandb", ("--logger", "wandb"), r"needs wandb.*\[logging\]"),
    ],
)
def test_what_is_not_installed_is_told_before_any_work(
    residual, folder, tmp_path, monkeypatch, missing, words, message
):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr("residual.workflows.task.encode_task", lambda *_, **__: pytest.fail("encoded"))
    code, _, err = residual(*quick(folder, "fine_tuning", tmp_path / "kept", *words))
    assert code == 2
    assert re.search(message, err.replace("\n", " "))
    assert not list(tmp_path.rglob("*.safetensors"))
