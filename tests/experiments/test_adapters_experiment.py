"""Experiment 4 on a little of what ships: its numbers, held against what they are of; stopped, it goes on."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from families import CASES
from pictures import write_folder
from PIL import Image
from scripts import run_to_its_end

from residual import ResidualStore, load_encoder, wrap_encoder
from residual.adapters.fine_tuning.loop import Training
from residual.adapters.fit_settings import FitSettings
from residual.adapters.methods import ADAPTERS, FINE_TUNING, METHODS, AdapterSettings, Reference
from residual.errors import ResidualError
from residual.experiments import EXPERIMENTS, Plan, read_results, run_experiment
from residual.experiments.adapters import SPLITS, ZERO_SHOT, AdaptersSettings
from residual.experiments.heads import HeadsSettings, part_of
from residual.experiments.plan import Work
from residual.experiments.results import outputs_path, read_outputs
from residual.intervals import mean_and_interval, over_seeds
from residual.report.accuracies import accuracy_frame
from residual.report.tables import METHOD_NAMES
from residual.workflows.store_origin import classifier_of
from residual.workflows.task import Task, adapt

DATASETS, LIMIT = ("digits", "flags"), 12
QUICK = (ZERO_SHOT, *ADAPTERS)
SETTINGS = AdaptersSettings((ZERO_SHOT, *METHODS), seeds=2, epochs=2, tuning_batch_size=6, tuning_rate=1e-4)
CELLS = [f"{name}.{method}" for name in DATASETS for method in (*QUICK, FINE_TUNING)]
COLUMNS = ["seed", "accuracy", "val_accuracy", "weights", "best_epoch", "epochs", "seconds"]
UNDRAWN = pytest.mark.usefixtures("undrawn")
PORTIONS = ["micro_batch", "checkpointing", "estimated_bytes"]


def plan(out: Path, **how) -> Plan:
    chosen = {"encoders": ("picto",), "datasets": DATASETS, "reference": "letters", "limit": LIMIT}
    return Plan(out=out, device="cpu", **(chosen | how))


def run(out: Path, settings: AdaptersSettings = SETTINGS, **how) -> dict:
    return run_experiment(EXPERIMENTS["4"](settings), plan(out, **how), lambda *_: None)


def cells_of(out: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of each cell's file."""
    files = sorted((out / "4_adapters/picto").glob("*.parquet"))
    return {path.stem: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


class Made:
    """The experiment in two goes: all but fine-tuning, and then that too."""

    def __init__(self, out: Path):
        self.out, self.folder = out, out / "4_adapters"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("residual.experiments.running.save_figure", lambda *_: [])
            self.first = run(out, replace(SETTINGS, methods=QUICK))
        self.quick = cells_of(out)
        self.told = run(out)
        self.tables = read_results(self.folder)["picto"]

    def task(self, name: str) -> Task:
        places = {split: self.out / f"stores/picto/{name}-{split}-{LIMIT}" for split in SPLITS}
        stores = {split: ResidualStore.open(place) for split, place in places.items()}
        classifier = classifier_of(stores["train"], self.encoder)
        return Task(name, stores, {}, classifier, 0.0, 0.0)

    @property
    def reference(self) -> Reference:
        return Reference.of(ResidualStore.open(self.out / f"stores/picto/letters-train-{LIMIT}"), "cpu")

    @property
    def encoder(self):
        return load_encoder("picto", device="cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("adapters"))


def test_a_cell_for_each_dataset_and_method(made):
    cells = [cell["dataset"] for cell in made.told["cells"]]
    quick = [f"{name}.{method}" for name in DATASETS for method in QUICK]
    assert cells == [*quick, *(f"{name}.{FINE_TUNING}" for name in DATASETS)]
    assert set(made.tables) == set(cells) == set(cells_of(made.out))
    json.dumps(made.told, allow_nan=False)
    assert set(made.told["details"]["picto"]["seeds"]) == set(cells)


@UNDRAWN
def test_a_method_that_comes_later_leaves_the_other_cells_alone(made):
    assert all(cell["measured"] for cell in made.first["cells"])
    measured = [cell["dataset"] for cell in made.told["cells"] if cell["measured"]]
    assert measured == [f"{name}.{FINE_TUNING}" for name in DATASETS]
    now = cells_of(made.out)
    assert made.quick == {cell: now[cell] for cell in made.quick}
    fewer = run(made.out, replace(SETTINGS, methods=("linear",)))
    assert [(cell["dataset"], cell["measured"]) for cell in fewer["cells"]] == [
        ("digits.linear", False),
        ("flags.linear", False),
    ]
    run(made.out)


def test_a_row_for_each_seed_and_the_number_of_weights(made):
    reference, encoder = made.reference, made.encoder
    weights = {
        ZERO_SHOT: 0,
        "linear": 192 * 192,
        "linear_released": 192 * 192 + 192,
        "spectral": len(reference.output.components),
        "spectral_released": LIMIT,
        "coarse": 48,
        "coarse_released": 48,
        "residual_star": None,
        "residual": sum(reference.bases.ranks),
        "residual_released": (8 + 48) * LIMIT,
        FINE_TUNING: sum(each.numel() for each in encoder.image_parameters().values()),
    }
    for cell, table in made.tables.items():
        method = cell.rpartition(".")[2]
        own = PORTIONS if method == FINE_TUNING else []
        assert list(table.columns) == [*COLUMNS, *own, "classes", "tested"]
        assert table["seed"].tolist() == ([0] if method == ZERO_SHOT else [0, 1])
        assert table[["accuracy", "val_accuracy"]].min(axis=None) >= 0
        assert table[["accuracy", "val_accuracy"]].max(axis=None) <= 1
        assert (table["seconds"] >= 0).all()
        if method != ZERO_SHOT:
            assert table["epochs"].tolist() == [2, 2]
            assert table["best_epoch"].isin([1, 2]).all()
        assert table["weights"].nunique() == 1
        if weights[method] is not None:
            assert table["weights"].iloc[0] == weights[method]
        else:
            assert 48 < table["weights"].iloc[0] < weights["residual"]


@pytest.mark.parametrize("name", DATASETS)
def test_zero_shot_is_the_classifier_on_the_stores_output(made, name):
    task, row = made.task(name), made.tables[f"{name}.{ZERO_SHOT}"].iloc[0]
    for column, split in (("accuracy", "test"), ("val_accuracy", "val")):
        store = task.stores[split]
        assert row[column] == task.classifier.accuracy(store.output(), store.labels)


@pytest.mark.parametrize("method", ["linear", "coarse_released", "residual"])
def test_what_is_trained_is_what_adapt_trains(made, method):
    fits = SETTINGS.fits(sampled=True)
    for name in DATASETS:
        table = made.tables[f"{name}.{method}"]
        adapted = adapt(made.task(name), made.reference, method, fits, AdapterSettings())
        assert table["accuracy"].tolist() == [each.accuracy for each in adapted]
        assert table["val_accuracy"].tolist() == [each.result.val_accuracy for each in adapted]
        assert table["best_epoch"].tolist() == [each.result.best_epoch for each in adapted]
        assert table["weights"].tolist() == [each.adapter.weights.numel() for each in adapted]


@pytest.mark.parametrize("method", [ZERO_SHOT, *METHODS])
def test_outputs_are_kept_of_the_first_seed(made, method):
    work = Work(plan(made.out), "picto", lambda *_: None)
    for name in DATASETS:
        task, cell = made.task(name), f"{name}.{method}"
        for column, split in (("accuracy", "test"), ("val_accuracy", "val")):
            kept = read_outputs(work, cell, split)
            assert kept is not None
            assert torch.equal(kept.labels, torch.from_numpy(task.stores[split].labels))
            assert kept.features.shape == (LIMIT, 192)
            assert torch.equal(kept.logits, task.classifier.logits(kept.features))
            accuracy = (kept.logits.argmax(1) == kept.labels).double().mean().item()
            assert accuracy == made.tables[cell].iloc[0][column]
            if method == ZERO_SHOT:
                assert torch.equal(kept.features, task.stores[split].output())
            else:
                assert not torch.allclose(kept.features, task.stores[split].output(), atol=1e-4)


@pytest.mark.parametrize("how", [{"limit": 39}, {"limit": 0}, {"reference": "textures"}])
def test_outputs_of_other_pictures_are_not_given(made, how):
    other = Work(plan(made.out, **how), "picto", lambda *_: None)
    assert (made.out / outputs_path("picto", "digits.linear", "test")).is_file()
    assert read_outputs(other, "digits.linear", "test") is None


def test_outputs_that_are_not_there_or_damaged(made, tmp_path):
    same = Work(plan(made.out), "picto", lambda *_: None)
    assert read_outputs(same, "digits.lora", "test") is None
    assert read_outputs(same, "digits.linear", "train") is None
    path = tmp_path / outputs_path("picto", "digits.linear", "test")
    path.parent.mkdir(parents=True)
    path.write_bytes((made.out / outputs_path("picto", "digits.linear", "test")).read_bytes()[:-7])
    with pytest.raises(ResidualError, match=re.escape(path.name)):
        read_outputs(Work(plan(tmp_path), "picto", lambda *_: None), "digits.linear", "test")


@UNDRAWN
def test_nothing_is_measured_twice(made):
    before = cells_of(made.out)
    again = run(made.out)
    assert not any(cell["measured"] for cell in again["cells"])
    assert again["summary"] == made.told["summary"]
    assert cells_of(made.out) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 3}, r"settings\.seeds 2, not 3"),
        ({"epochs": 3}, r"settings\.epochs 2, not 3"),
        ({"init": "ones"}, r"settings\.init randn, not ones"),
        ({"mean": "keep"}, r"settings\.mean drop, not keep"),
    ],
)
def test_other_settings_are_not_mixed_in(made, change, message):
    with pytest.raises(ResidualError, match=message):
        run(made.out, replace(SETTINGS, **change))
    with pytest.raises(ResidualError, match=rf"settings\.limit {LIMIT}, not 30"):
        run(made.out, limit=30)


def test_the_tables_agree_with_each_other(made):
    numbers = pd.read_parquet(made.folder / "accuracy.parquet")
    assert len(numbers) == len(CELLS)
    assert set(numbers["encoder"]) == {"picto"}
    pd.testing.assert_frame_equal(numbers.drop(columns="encoder"), accuracy_frame(made.tables))
    shown = {(row["dataset"], row["method"]): row for row in numbers.to_dict("records")}
    text = (made.folder / "table.md").read_text(encoding="utf-8")
    tex = (made.folder / "table.tex").read_text(encoding="utf-8")
    assert text.startswith(
        "picto: accuracy on test in per cent, mean; ±: half the 95 % t interval over 2 seeds"
    )
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in row] for row in rows]
    assert rows[0] == ["method", *DATASETS, "mean", "weights"]
    assert [row[0] for row in rows[2:]] == list(METHOD_NAMES.values())
    for row, method in zip(rows[2:], METHOD_NAMES, strict=True):
        means = []
        for name, cell in zip(DATASETS, row[1:3], strict=True):
            mean, half = mean_and_interval(made.tables[f"{name}.{method}"]["accuracy"].tolist())
            means.append(mean)
            assert shown[name, method]["accuracy"] == mean
            assert cell == f"{100 * mean:.1f}{over_seeds(half)}"
            assert made.told["summary"]["picto"][name][METHOD_NAMES[method]] == mean
        assert row[3] == f"{100 * sum(means) / 2:.1f}"
        assert row[4] == f"{shown['digits', method]['weights']:,}"
        assert " & ".join(row).replace("±", r"$\pm$") + r" \\" in tex


def test_figures_are_drawn(made):
    names = {Path(path).name for path in made.told["figures"]}
    assert names == {f"picto-{what}.{form}" for what in ("accuracy", "weights") for form in ("png", "svg")}
    for path in (made.folder / "figures").glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 300
            colours = image.convert("RGB").getcolors(1 << 20)
            assert len(colours) > 100


def test_checkpoints_are_gone(made):
    left = [path for path in (made.folder / "training").rglob("*") if path.is_file()]
    assert left == []
    assert not [path for path in made.out.rglob(".*") if path.is_file()]


@UNDRAWN
def test_pictures_that_cannot_be_read_are_left_out_of_fine_tuning_too(tmp_path):
    name = f"folder:{write_folder(tmp_path / 'pictures')}"
    for path in ("digit 0/00.png", "digit 1/03.png", "digit 7/05.png"):
        (tmp_path / "pictures" / path).write_bytes(b"not a picture")
    settings = replace(SETTINGS, methods=(ZERO_SHOT, FINE_TUNING), seeds=1, epochs=1)
    how = {"datasets": (name,), "limit": 0, "most_skipped_share": 0.2}
    told = run(tmp_path / "out", settings, **how)
    assert [cell["measured"] for cell in told["cells"]] == [True, True]
    assert sum(map(len, told["skipped"].values())) == 3
    work = Work(plan(tmp_path / "out", **how), "picto", lambda *_: None)
    outputs = {method: read_outputs(work, f"{name}.{method}", "test") for method in settings.methods}
    assert torch.equal(outputs[ZERO_SHOT].labels, outputs[FINE_TUNING].labels)
    assert len(outputs[ZERO_SHOT].features) == len(outputs[FINE_TUNING].features) > 0


# Experiment 3 on what experiment 4 kept

HEADS = HeadsSettings(
    shares=(0.05, 0.1), seeds=2, atoms=2, rank=10, dictionary="attributes", adapted=("residual", "linear")
)


def heads(out: Path, settings: HeadsSettings = HEADS, **how) -> dict:
    return run_experiment(EXPERIMENTS["3"](settings), plan(out, **how), lambda *_: None)


@UNDRAWN
def test_experiment_3_describes_the_outputs_kept(made):
    heads(made.out, datasets=("digits",))
    adapted = part_of(read_results(made.out / "3_heads")["picto"]["digits"], "adapted")
    assert adapted["name"].tolist() == [name for name in ("zero_shot", "residual", "linear") for _ in (1, 2)]
    accuracy = adapted.groupby("name")["accuracy"].first()
    for method in (ZERO_SHOT, "linear"):
        assert accuracy[method] == made.tables[f"digits.{method}"]["accuracy"].iloc[0]


def test_experiment_3_says_what_it_needs_before_the_long_work(made, tmp_path):
    message = "No output of picto after linear on digits is kept in .*: run experiment 4 with"
    with pytest.raises(ResidualError, match=message):
        heads(tmp_path, datasets=("digits",))
    assert not (tmp_path / "stores").exists()
    shutil.copytree(made.folder / "outputs", tmp_path / "4_adapters/outputs")
    with pytest.raises(ResidualError, match=message):  # those that are there are of other pictures
        heads(tmp_path, datasets=("digits",), limit=LIMIT - 1)


# Settings


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"methods": ("residual", "fine_tunning")}, "got .*'fine_tunning'.*. Did you mean 'fine_tun"),
        ({"methods": ()}, "At least one method is needed"),
        ({"seeds": 0}, "seeds takes a whole number from 1 to 1,000; got 0"),
        ({"epochs": 0}, "epochs takes a whole number, at least 1"),
        ({"patience": -1}, "patience takes a whole number, at least 1"),
        ({"tuning_rate": 0.0}, "tuning_rate takes a number above 0"),
        ({"tuning_batch_size": 0}, "tuning_batch_size takes a whole number, at least 1"),
        (
            {"tuning_batch_size": {"blip_l_flickr": 32, "clip_l": 0}},
            "tuning_batch_size takes a whole number, at least 1",
        ),
        ({"tuning_batch_size": {"blip_l_flicker": 32}}, "Unknown encoder 'blip_l_flicker'"),
        ({"tuning_micro_batch": 0.5}, "micro_batch takes a whole number"),
        ({"init": "zeros"}, "init takes 'randn', 'ones' or 'eigenvalues'; got 'zeros'"),
        ({"mean": "kept"}, "mean takes 'drop' or 'keep'; got 'kept'"),
        ({"recipe": "mild"}, "recipe takes 'gentle' or 'paper'; got 'mild'"),
    ],
)
def test_bad_settings(how, message):
    with pytest.raises(ResidualError, match=message):
        AdaptersSettings(**how)


def test_methods_are_fitted_by_the_recipe():
    paper, gentle = AdaptersSettings(epochs=3), AdaptersSettings(recipe="gentle", init="eigenvalues")
    how = paper.fitting("residual", True)
    assert how.adapter == AdapterSettings()
    assert how.fits == tuple(FitSettings(epochs=3, seed=seed, missing="ignore") for seed in range(5))
    how = gentle.fitting("residual", False)
    assert (how.adapter.init, how.adapter.mean, how.fits[0].or_start) == ("eigenvalues", "keep", True)
    assert gentle.fitting("coarse", False).adapter.init == "ones"
    assert gentle.fitting("coarse_released", False).recipe == "paper"


def test_each_encoder_has_its_batch_of_fine_tuning():
    kinds = {"clip_l": "clip", "blip_l_flickr": "blip"}
    encoders = {name: wrap_encoder(CASES[kind].make()) for name, kind in kinds.items()}

    def batches(cell="flags.fine_tuning", **how):
        experiment = EXPERIMENTS["4"](AdaptersSettings(**how))
        told = [experiment.noted_of(encoder, name, cell) for name, encoder in encoders.items()]
        return experiment.noted()["tuning_batch_size"], *(each.get("tuning_batch") for each in told)

    assert batches() == (128, None, 32)  # as cells of earlier versions note it; the family's own beside it
    assert batches("flags.linear") == (128, None, None)
    assert batches(tuning_batch_size=128) == (128, None, None)
    assert batches(tuning_batch_size=64) == (64, None, None)
    assert batches(tuning_batch_size={"clip_l": 16}, tuning_micro_batch=4) == (128, 16, 32)


def test_cells_note_what_came_later_only_where_it_is_chosen():
    notes = [EXPERIMENTS["4"](AdaptersSettings(**how)).noted() for how in ({}, {"recipe": "gentle"})]
    assert notes[1] == notes[0] | {"recipe": "gentle"}
    assert notes[0].keys() == {
        "seeds",
        "epochs",
        "patience",
        "batch_size",
        "tuning_rate",
        "tuning_batch_size",
        "init",
        "mean",
    }


def test_experiment_3_knows_the_methods_too():
    with pytest.raises(ResidualError, match=r"got \('linaer',\)\. Did you mean 'linear'"):
        HeadsSettings(adapted=("linaer",))


@UNDRAWN
def test_the_first_weights_of_coarse_are_ones_where_those_of_others_are_eigenvalues(tmp_path):
    settings = AdaptersSettings(methods=("coarse", "residual"), seeds=1, epochs=1, init="eigenvalues")
    told = run(tmp_path, settings, datasets=("flags",), limit=20)
    assert [cell["dataset"] for cell in told["cells"]] == ["flags.coarse", "flags.residual"]


# A grid that is stopped, and the script

COPIED = ("seeds", "epochs", "tuning_batch_size", "tuning_rate")
PARAMS = (
    f"experiment.limit={LIMIT}",
    f"experiment.datasets={list(DATASETS)}",
    "experiment.reference=letters",
    f"AdaptersSettings.methods={list(SETTINGS.methods)}",
    *(f"AdaptersSettings.{name}={getattr(SETTINGS, name)}" for name in COPIED),
)
WORDS = ["--device", "cpu", *(word for param in PARAMS for word in ("--param", param))]
SAME = (".md", ".tex", ".png", ".svg", ".safetensors")


def finished(out: Path) -> set[str]:
    return {name for name in cells_of(out) if not name.startswith(".")}


def stopped_behind(save):
    def stopped(*of):
        save(*of)
        raise KeyboardInterrupt("at a checkpoint")

    return stopped


@pytest.mark.slow
def test_the_grid_is_stopped_and_ends_as_one_that_nothing_stopped(made, tmp_path, capsys):
    """Two of its cells are missing; it is stopped in the middle of the second, which takes long. (Processes
    are killed in `safety/test_killed.py`.)
    """
    whole, cut, own = made.out, tmp_path / "cut", "4_adapters"
    shutil.copytree(whole / "stores", cut / "stores")
    shutil.copytree(made.folder, cut / own, ignore=shutil.ignore_patterns("table*", "accuracy*", "figures"))
    missing = [f"{DATASETS[1]}.{method}" for method in (ZERO_SHOT, FINE_TUNING)]
    for path in (cut / own).rglob("*"):
        if path.is_file() and path.name.startswith(tuple(missing)):
            path.unlink()
    there, checkpoints = cells_of(cut), cut / own / "training"
    assert set(there) == set(CELLS) - set(missing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "save", stopped_behind(Training.save))
        with pytest.raises(KeyboardInterrupt, match="at a checkpoint"):
            run(cut)
    assert any(checkpoints.rglob("checkpoint.safetensors"))
    before = cells_of(cut)
    assert finished(cut) == {*there, missing[0]}
    assert {cell: before[cell] for cell in there} == there
    assert not (cut / own / "table.md").exists()

    run_to_its_end("4", "--out", cut, "--json", tmp_path / "told.json", *WORDS)
    assert f"{len(CELLS)} cells, 1 of them measured now; 4 figures in" in capsys.readouterr().out
    cells = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))["cells"]
    assert [cell["dataset"] for cell in cells if cell["measured"]] == missing[1:]
    now = cells_of(cut)
    assert before == {cell: now[cell] for cell in before}
    assert not [path for path in checkpoints.rglob("*") if path.is_file()]

    got = read_results(cut / own)["picto"]
    assert list(got) == list(made.tables)
    for cell, expected in made.tables.items():
        pd.testing.assert_frame_equal(got[cell].drop(columns="seconds"), expected.drop(columns="seconds"))
    files = [path.relative_to(whole) for path in (whole / own).rglob("*.*") if path.suffix in SAME]
    assert [path.suffix for path in files].count(".safetensors") == 2 * len(CELLS)
    assert [str(path) for path in files if (cut / path).read_bytes() != (whole / path).read_bytes()] == []
