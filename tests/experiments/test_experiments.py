"""The paper's experiments on what ships: cells that are measured once, their numbers, tables and figures."""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from families import CASES
from matplotlib.text import Text
from pictures import first_of_each_folder, write_folder
from PIL import Image
from plain import plain_angle, plain_rank, plain_spectral_cosine, plain_spectrum

from residual import ResidualStore, decompose, encoders, load_dataset, load_encoder, wrap_encoder
from residual.encoders.encoder import Encoder
from residual.errors import OtherResultError, ResidualError
from residual.experiments import EXPERIMENTS, Plan, Results, read_results, run_experiment, running
from residual.experiments.plan import Work
from residual.experiments.results import shown, write_table
from residual.experiments.running import _note
from residual.spectral import (
    GeometrySettings,
    SimilaritySettings,
    compare_bases,
    fit_halves,
    stream_moments,
    unit_geometry,
)
from residual.spectral.geometry import MEASURES
from residual.spectral.similarity import SIMILARITIES
from residual.store.forward import Encoding

LIMIT = 40
NUMBERS = ("1", "2", "class-token")  # of those whose cells are tables of units
ALL = pytest.mark.parametrize("number", NUMBERS)
HEADS = 48


def quiet(stage: str, done: int, total: int) -> None:
    pass


def plan_in(out: Path, **how) -> Plan:
    chosen = {"encoders": ("picto",), "datasets": ("flags",), "reference": "letters", "limit": LIMIT}
    return Plan(out=out, device="cpu", **(chosen | how))


def run(number: str, plan: Plan, settings=None, progress=quiet) -> dict:
    kind = EXPERIMENTS[number]
    return run_experiment(kind(settings or kind.settings_of()), plan, progress)


def read_again(number: str, plan: Plan) -> None:
    """Every cell is there and is taken for what it is: it isn't measured again."""
    experiment = EXPERIMENTS[number](EXPERIMENTS[number].settings_of())
    for encoder in plan.encoders:
        work = Work(plan, encoder, quiet)
        for cell in experiment.cells(plan):
            note = _note(experiment, plan, work, cell)
            assert Results(plan.out / experiment.folder).read(encoder, cell, note) is not None


def measure(number: str, plan: Plan, cell: str, settings=None, progress=quiet) -> pd.DataFrame:
    """One cell, with nothing kept of it but the store."""
    kind = EXPERIMENTS[number]
    return kind(settings or kind.settings_of()).measure(Work(plan, "picto", progress), cell)


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file, and when it was written."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict[str, dict], dict[str, dict]]:
    """All three in one folder: it, what they told, and the stores' files after each. One figure of each is
    drawn: the notebooks draw all."""
    out = tmp_path_factory.mktemp("experiments") / "out"
    told, stores = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "save_figure", first_of_each_folder(running.save_figure))
        for number in NUMBERS:
            told[number] = run(number, plan_in(out))
            stores[number] = state(out / "stores")
    return out, told, stores


@pytest.fixture
def copied(made, tmp_path, undrawn) -> Path:
    """A copy of all results, without the stores."""
    for kind in (EXPERIMENTS[number] for number in NUMBERS):
        shutil.copytree(made[0] / kind.folder, tmp_path / "out" / kind.folder)
    return tmp_path / "out"


@pytest.fixture(scope="module")
def picto() -> Encoder:
    return load_encoder("picto", device="cpu")


def cell(out: Path, number: str, dataset: str) -> Path:
    return out / EXPERIMENTS[number].folder / "picto" / f"{dataset}.parquet"


# What is left behind


@ALL
def test_a_cell_for_each_encoder_and_dataset(made, number):
    out, told, _ = made
    folder = out / EXPERIMENTS[number].folder
    assert sorted(path.name for path in folder.glob("*/*.parquet")) == ["flags.parquet", "letters.parquet"]
    assert [(each["encoder"], each["dataset"], each["measured"]) for each in told[number]["cells"]] == [
        ("picto", "letters", True),
        ("picto", "flags", True),
    ]
    assert told[number]["experiment"] == EXPERIMENTS[number].folder
    assert told[number]["out"] == folder.name
    json.dumps(told[number], allow_nan=False)


@ALL
def test_cells_are_tables_that_pandas_reads_alone(made, number):
    for dataset in ("letters", "flags"):
        table = pd.read_parquet(cell(made[0], number, dataset))
        kinds = {"head": 48, "mlp": 8, "emb": 1} if number == "1" else {"head": 48}
        assert table["kind"].value_counts().to_dict() == kinds
        assert set(MEASURES if number == "1" else list(SIMILARITIES)[:7]) < set(table.columns)
        heads = table[table["kind"] == "head"]
        assert heads["layer"].tolist() == [layer for layer in range(8) for _ in range(6)]
        assert heads["head"].tolist() == list(range(6)) * 8
        held = read_results(made[0] / EXPERIMENTS[number].folder)["picto"][dataset]
        pd.testing.assert_frame_equal(table, held)


@ALL
def test_the_table_in_markdown_is_of_means_over_heads(made, number):
    out, told, _ = made
    results = read_results(out / EXPERIMENTS[number].folder)["picto"]
    labels = MEASURES if number == "1" else SIMILARITIES
    for (name, table), (row, values) in zip(
        results.items(), told[number]["summary"]["picto"].items(), strict=True
    ):
        assert row == (f"{name}, halves" if (number, name) == ("2", "letters") else name)
        heads = [each for each in table.to_dict("records") if each["kind"] == "head"]
        for measure, label in labels.items():
            if measure in table:
                mean = statistics.fmean(head[measure] for head in heads)
                assert values[f"heads: {label}" if number == "1" else label] == pytest.approx(mean)
    lines = (out / EXPERIMENTS[number].folder / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["picto", ""]
    for line, (name, values) in zip(lines[4:], told[number]["summary"]["picto"].items(), strict=True):
        cells = [each.strip() for each in line.strip("|").split("|")]
        shown = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values.values()]
        assert cells == [name, *shown]


@ALL
def test_figures_are_whole_pictures(made, number):
    out, told, _ = made
    folder = out / EXPERIMENTS[number].folder
    paths = [folder / path for path in told[number]["figures"]]
    assert sorted(paths) == sorted((folder / "figures").iterdir())
    assert len(paths) == 2
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.verify()
        else:
            assert path.suffix == ".svg"
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_nothing_is_left_half_written(made):
    assert not [name for name in state(made[0]) if Path(name).name.startswith(".")]


def test_stores_are_shared_by_experiments(made):
    out, _, stores = made
    assert sorted(path.name for path in (out / "stores/picto").iterdir()) == [
        "flags-train-40",
        "letters-train-40",
    ]
    assert stores["1"] == stores["2"] == stores["class-token"]


# Once more


@ALL
def test_what_is_there_is_not_measured_again(made, copied, number):
    """Nor are stores needed for it; figures and the table come out the same."""
    folder = copied / EXPERIMENTS[number].folder
    before, stages = state(folder), set()
    told = run(number, plan_in(copied), progress=lambda stage, done, total: stages.add(stage))
    assert [each["measured"] for each in told["cells"]] == [False, False]
    assert stages == set()
    assert not (copied / "stores").exists()
    after = state(folder)
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items()
    }
    cells = [name for name in before if name.endswith(".parquet")]
    assert len(cells) == 2
    assert [after[name] for name in cells] == [before[name] for name in cells]
    assert told["summary"] == made[1][number]["summary"]


def test_only_what_is_missing_is_measured(made, copied):
    """From the stores that are there."""
    shutil.copytree(made[0] / "stores", copied / "stores")
    before = state(copied)
    cell(copied, "2", "flags").unlink()
    stores, stages = state(copied / "stores"), []
    told = run("2", plan_in(copied), progress=lambda *stage: stages.append(stage))
    assert [each["measured"] for each in told["cells"]] == [False, True]
    assert state(copied / "stores") == stores
    assert set(stages) == {(f"picto: encode {name}", LIMIT, LIMIT) for name in ("letters", "flags")}
    left = "2_similarity/picto/letters.parquet"
    assert state(copied)[left] == before[left]
    pd.testing.assert_frame_equal(
        pd.read_parquet(cell(copied, "2", "flags")), pd.read_parquet(cell(made[0], "2", "flags"))
    )


def test_one_more_dataset_leaves_the_others(made, copied):
    shutil.copytree(made[0] / "stores", copied / "stores")
    told = run("class-token", plan_in(copied, datasets=("flags", "textures")))
    assert [(each["dataset"], each["measured"]) for each in told["cells"]] == [
        ("letters", False),
        ("flags", False),
        ("textures", True),
    ]
    assert list(told["summary"]["picto"]) == ["letters", "flags", "textures"]
    assert len((copied / "class_token/table.md").read_text().splitlines()) == 2 + 2 + 3


def test_what_cannot_be_had_leaves_what_is_there_in_the_table(copied):
    """It can't be compared with what it is of, and is told; a damaged cell costs itself alone."""
    cell(copied, "2", "letters").write_bytes(b"cut off")
    before, kind = state(copied), EXPERIMENTS["2"]
    for lacking in ("flags", "picto"):
        told = run_experiment(
            kind(kind.settings_of()), plan_in(copied), quiet, lacking={lacking: ResidualError("No.")}
        )
        assert [(each["dataset"], each["measured"]) for each in told["cells"]] == [("flags", False)]
        assert told["unchecked"] == [{"encoder": "picto", "dataset": "flags", "reason": "No."}]
        assert [each["dataset"] for each in told["failed"]] == ["letters"]
        assert "letters.parquet' is no whole result" in told["failed"][0]["reason"]
    assert {name for name, file in state(copied).items() if before[name] != file} <= {
        f"2_similarity/table.{ending}" for ending in ("md", "tex")
    }


def test_the_reference_of_one_limit_stays_where_that_of_tasks_changes(copied):
    changed = plan_in(copied, limit=0, reference_limit=LIMIT, task_limit=30)
    told = run("1", replace(changed, datasets=()))
    assert [(each["dataset"], each["measured"]) for each in told["cells"]] == [("letters", False)]
    with pytest.raises(OtherResultError, match=r"flags\.parquet' is .*: settings\.limit 40, not 30\."):
        run("1", changed)


# Results of something else


@pytest.mark.parametrize(
    ("number", "settings", "how", "message"),
    [
        ("1", GeometrySettings(threshold=0.95), {}, r"settings\.threshold 0\.99, not 0\.95"),
        (
            "1",
            GeometrySettings(seed=1, halvings=2),
            {},
            r"settings\.halvings 3, not 2; settings\.seed 0, not",
        ),
        ("2", SimilaritySettings(explained=0.8), {}, r"settings\.explained 0\.9, not 0\.8"),
        ("2", SimilaritySettings(anchors=5), {}, r"settings\.anchors 256, not 5"),
        ("1", None, {"limit": 41}, r"settings\.limit 40, not 41"),
        ("2", None, {"limit": 0}, r"settings\.limit 40, not 0"),
        ("class-token", None, {"split": "val"}, r"settings\.split train, not val"),
        ("1", None, {"reference": "flags", "datasets": ()}, "reference letters, not flags"),
        ("2", None, {"reference": "flags", "datasets": ("letters",)}, "reference letters, not flags"),
    ],
)
def test_other_settings_are_refused_by_name_and_nothing_is_changed(copied, number, settings, how, message):
    before = state(copied)
    with pytest.raises(
        ResidualError, match=rf"\.parquet' is a result of something else: .*{message}"
    ) as error:
        run(number, plan_in(copied, **how), settings)
    assert "Choose another folder, or remove it." in str(error.value)
    assert state(copied) == before


def test_the_same_name_with_other_weights_is_refused(copied, monkeypatch):
    encoder = load_encoder("picto", device="cpu")
    encoder.module.visual_projection.weight.data[0, 0] += 1
    monkeypatch.setattr("residual.experiments.plan.load_encoder", lambda name, **_: encoder)
    with pytest.raises(ResidualError, match=r"encoder\.weights \w{64}, not \w{64}"):
        run("2", plan_in(copied))


@pytest.mark.parametrize("left", [0, 3, 0.5, 0.99])
def test_a_damaged_cell_is_named(copied, left):
    path = cell(copied, "2", "flags")
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data)) if left < 1 else left])
    with pytest.raises(
        ResidualError, match=r"flags\.parquet' is no whole result of an experiment: remove it"
    ):
        read_results(path.parents[1])


def test_a_table_of_somebody_else_is_no_result(tmp_path):
    (tmp_path / "picto").mkdir()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "picto/letters.parquet")
    with pytest.raises(ResidualError, match="is no whole result of an experiment"):
        read_results(tmp_path)


# Reading


@ALL
def test_results_are_read_with_the_reference_first(made, number):
    assert list(read_results(str(made[0] / EXPERIMENTS[number].folder))["picto"]) == ["letters", "flags"]


def test_results_are_read_by_encoder_and_in_the_order_of_names(copied):
    folder = copied / "class_token"
    results = Results(folder)
    note, table = next(iter(results.cells()))
    for encoder, dataset in (("other:a/b", "zebra"), ("other:a/b", "letters"), ("picto", "ant")):
        about = {**note, "cell": dataset}
        results.write(encoder, dataset, {**about, "encoder": {**note["encoder"], "name": encoder}}, table)
    found = read_results(folder)
    assert {name: list(rows) for name, rows in found.items()} == {
        "picto": ["letters", "ant", "flags"],
        "other:a/b": ["letters", "zebra"],
    }


@pytest.mark.parametrize(("name", "value"), [("limit", 41), ("explained", 0.5), ("split", "val")])
def test_results_of_different_settings_are_not_read_together(copied, name, value):
    folder = copied / "class_token"
    results = Results(folder)
    note, table = next(iter(results.cells()))
    settings = {**note["settings"], name: value}
    about = {**note, "cell": "textures", "settings": settings}
    results.write("picto", "textures", about, table)
    kept = note["settings"][name]
    with pytest.raises(
        ResidualError, match=rf"different settings: settings\.{name} {value}, not {kept} for te"
    ):
        read_results(folder)


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_no_results_are_told(tmp_path, folder):
    with pytest.raises(ResidualError, match=r"There are no results in .*: `run_experiment` makes them"):
        read_results(tmp_path / folder)


@ALL
def test_what_is_read_can_be_drawn(made, number):
    """As the notebooks do."""
    kind = EXPERIMENTS[number]
    tables = read_results(made[0] / kind.folder)
    names = [name for name, _ in kind.figures(tables)]
    assert {Path(path).stem for path in made[1][number]["figures"]} <= set(names)
    assert len(set(names)) == len(names) == {"1": 2 + len(MEASURES), "2": 4, "class-token": 2}[number]
    assert kind.summary(tables["picto"]) == made[1][number]["summary"]["picto"]


# Plans, and what has to be installed


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"encoders": ()}, "An experiment needs at least one encoder"),
        ({"encoders": ("picto", "clip_b", "picto")}, "Named twice: picto"),
        ({"datasets": ("flags", "flags", "mnist", "mnist")}, "Named twice: flags, mnist"),
        ({"limit": -1}, "The limit is a number of images, or 0 for all; got -1"),
    ],
)
def test_plans_that_make_no_sense_are_refused(tmp_path, how, message):
    with pytest.raises(ResidualError, match=message):
        plan_in(tmp_path, **how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"encoders": ("pictoo",)}, "Unknown encoder 'pictoo'. Did you mean 'picto'"),
        ({"reference": "leters"}, "Unknown dataset 'leters'. Did you mean 'letters'"),
        ({"split": "trian"}, "Unknown split 'trian'. Did you mean 'train'"),
        ({"device": "abacus"}, "The device 'abacus' isn't there"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_made(tmp_path, how, message):
    chosen = {"out": tmp_path / "out", "encoders": ("picto",), "datasets": (), "reference": "flags"} | how
    with pytest.raises(ResidualError, match=message):
        run("1", Plan(**chosen))
    assert not (tmp_path / "out").exists()


def test_the_limit_cuts_a_dataset_always_alike(tmp_path):
    whole = load_dataset("letters", "train")
    cut, again = (plan_in(tmp_path).dataset("letters") for _ in range(2))
    assert len(cut) == LIMIT
    assert cut.sample_ids == again.sample_ids == whole.sample(LIMIT).sample_ids
    assert plan_in(tmp_path, limit=0).dataset("letters").sample_ids == whole.sample_ids
    assert len(plan_in(tmp_path, limit=10**6).dataset("letters")) == len(whole)


@ALL
@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (
            "pyarrow",
            r"results of experiments needs pyarrow.* pip install 'residual-vit\[experiments\]'",
        ),
        (
            "matplotlib",
            r"Drawing figures needs matplotlib, .* pip install 'residual-vit\[figures\]'",
        ),
    ],
)
def test_missing_libraries_are_told_before_the_work(tmp_path, monkeypatch, number, missing, message):
    for name in [missing, *(name for name in sys.modules if name.startswith(f"{missing}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ResidualError, match=message):
        run(number, plan_in(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# Experiment 1


def test_shapes_are_those_of_the_store(made):
    store = ResidualStore.open(made[0] / "stores/picto/flags-train-40")
    table = read_results(made[0] / "1_dimension")["picto"]["flags"]
    pd.testing.assert_frame_equal(table, unit_geometry(store))
    for unit in (0, 5, 9, 30, 56):  # embedding, MLP, heads
        _, variances = plain_spectrum(store.contributions(units=[unit])[:, 0].double().numpy())
        row = table.set_index("unit").loc[unit]
        assert row["first_explained_variance_ratio"] == pytest.approx(
            variances[0] / variances.sum(), rel=1e-3
        )
        assert abs(row["linear_dimension"] - plain_rank(variances, 0.99)) <= 1
        participation = variances.sum() ** 2 / (variances**2).sum()
        assert row["participation_ratio"] == pytest.approx(participation, rel=1e-3)


# Experiment 2


def contributions(out: Path, dataset: str, unit: int) -> np.ndarray:
    store = ResidualStore.open(out / f"stores/picto/{dataset}-train-{LIMIT}")
    return store.contributions(units=[unit])[:, 0].double().numpy()


def compared_plainly(x: np.ndarray, y: np.ndarray, explained: float = 0.9) -> dict[str, float]:
    (a, α), (b, β) = plain_spectrum(x), plain_spectrum(y)
    k, m = plain_rank(α, explained), plain_rank(β, explained)
    p, q = x.mean(0), y.mean(0)
    return {
        "rank_a": k,
        "rank_b": m,
        "spectral_cosine": plain_spectral_cosine(a[:k], b[:m], α[:k], β[:m]),
        "spectral_cosine_unweighted": plain_spectral_cosine(a[:k], b[:m]),
        "mean_principal_angle": plain_angle(a[:k], b[:m]),
        "mean_cosine": p @ q / np.linalg.norm(p) / np.linalg.norm(q),
        "mean_distance": np.linalg.norm(p - q),
    }


@pytest.mark.parametrize("unit", [9, 25, 41, 56])
def test_similarity_of_a_head_by_the_plain_definition(made, unit):
    row = read_results(made[0] / "2_similarity")["picto"]["flags"].set_index("unit").loc[unit]
    expected = compared_plainly(*(contributions(made[0], name, unit) for name in ("letters", "flags")))
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-3), name


def test_means_are_seen_from_outputs_on_the_reference(made):
    """There are fewer than 256, so that all are anchors."""
    out, unit = made[0], 33
    store = ResidualStore.open(out / "stores/picto/letters-train-40")
    outputs = store.contributions().sum(1).double().numpy()
    directions = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
    means = [contributions(out, name, unit).mean(0) for name in ("letters", "flags")]
    p, q = (directions @ mean / np.linalg.norm(mean) for mean in means)
    row = read_results(out / "2_similarity")["picto"]["flags"].set_index("unit").loc[unit]
    assert row["relative_mean_cosine"] == pytest.approx(
        p @ q / np.linalg.norm(p) / np.linalg.norm(q), rel=1e-3
    )
    assert row["relative_mean_correlation"] == pytest.approx(np.corrcoef(p, q)[0, 1], rel=1e-3)
    assert row["relative_mean_distance"] == pytest.approx(np.linalg.norm(p - q), rel=1e-3)


def test_the_row_of_the_reference_compares_its_halves(made):
    store = ResidualStore.open(made[0] / "stores/picto/letters-train-40")
    table = read_results(made[0] / "2_similarity")["picto"]["letters"]
    compared = compare_bases(*fit_halves(store))
    pd.testing.assert_frame_equal(table[list(compared.columns)], compared)
    assert table["spectral_cosine"].between(0, 1, inclusive="neither").all()


def test_halves_of_the_reference_are_more_alike_than_another_dataset(tmp_path):
    plan = plan_in(tmp_path, limit=80)
    halves, other = (measure("2", plan, name)["spectral_cosine"] for name in ("letters", "flags"))
    assert halves.between(0, 1).all()
    assert other.between(0, 1).all()
    assert halves.mean() > other.mean() + 0.05
    assert (halves > other).mean() > 0.6


def test_the_seed_chooses_halves_and_anchors(made, copied):
    shutil.copytree(made[0] / "stores", copied / "stores")
    plan, settings = plan_in(copied), SimilaritySettings(seed=1, anchors=7)
    table = measure("2", plan, "letters", settings)
    before = read_results(made[0] / "2_similarity")["picto"]["letters"]
    assert (table["spectral_cosine"] != before["spectral_cosine"]).all()
    store = ResidualStore.open(copied / "stores/picto/letters-train-40")
    expected = compare_bases(*fit_halves(store, seed=1))
    pd.testing.assert_frame_equal(table[list(expected.columns)], expected)


# The class token


def patches(encoder: Encoder, dataset, units: tuple[int, ...]) -> np.ndarray:
    """Heads' contributions to every patch of every image."""
    every = []
    for index in range(len(dataset)):
        pixels = encoder.preprocess(dataset.load(index))[None]
        found = decompose(encoder, pixels, pooling="patches", kinds=("head",))
        places = [found.units["unit"].tolist().index(unit) for unit in units]
        every.append(found.contributions[0, :, places].double().numpy())
    return np.concatenate(every)


def test_patches_have_the_basis_of_all_their_contributions(made, picto):
    dataset = load_dataset("flags", "train").sample(LIMIT)
    every = patches(picto, dataset, (10, 52))
    bases = stream_moments(picto, dataset, Encoding("patches", ("head",), 16, None, "raise")).compute()
    for number, unit in enumerate((10, 52)):
        x = every[:, number]
        assert x.shape == (LIMIT * 64, 192)
        place = bases.units.index(unit)
        components, variances = plain_spectrum(x)
        got, kept = bases.eigenvalues[place].numpy(), plain_rank(variances, 0.99)
        np.testing.assert_allclose(bases.means[place], x.mean(0), atol=1e-3 * np.linalg.norm(x.mean(0)))
        np.testing.assert_allclose(got[:kept], variances[:kept], rtol=1e-3)
        overlaps = np.abs((bases.components[place].numpy()[:5] * components[:5]).sum(1))
        np.testing.assert_allclose(overlaps, 1, atol=1e-3)
        row = read_results(made[0] / "class_token")["picto"]["flags"].set_index("unit").loc[unit]
        for name, value in compared_plainly(contributions(made[0], "flags", unit), x).items():
            assert row[name] == pytest.approx(value, rel=1e-3), name


def test_patches_are_not_stored(made):
    for path in (made[0] / "stores/picto").iterdir():
        assert ResidualStore.open(path).pooling == "own"


def test_settings_without_effect_are_refused():
    for name in ("anchors", "seed", "published_anchors"):
        with pytest.raises(ResidualError, match=f"no relative measures, so that {name} of Similarity"):
            EXPERIMENTS["class-token"](SimilaritySettings(**{name: 5}))
    assert EXPERIMENTS["class-token"](SimilaritySettings(explained=0.8)).settings.explained == 0.8


def test_an_encoder_that_averages_has_its_class_token_stored_apart(tmp_path):
    name = "open_clip:average/none"
    encoder = wrap_encoder(CASES["open_clip average"].make(), name=name)
    plan = plan_in(tmp_path, encoders=(name,), limit=12)
    work = Work(plan, name, quiet)
    work.__dict__["encoder"] = encoder
    table = EXPERIMENTS["class-token"](SimilaritySettings()).measure(work, "flags")
    assert table["spectral_cosine"].between(0, 1).all()
    (store,) = (tmp_path / "stores").glob("*/*")
    assert store.name == "flags-train-12-cls"
    assert ResidualStore.open(store).pooling == "cls"


# Names


def test_an_encoder_by_its_folder_gives_the_same_numbers(made, copied):
    """Its name is no name of a folder; two encoders share one folder of results, which tell no path."""
    shutil.copytree(made[0] / "stores", copied / "stores")
    whole = f"hf:{Path(encoders.__file__).parent / 'picto'}"
    told, name = run("2", plan_in(copied, encoders=("picto", whole))), shown(whole)
    assert [each["measured"] for each in told["cells"]] == [False, False, True, True]
    assert name.startswith("hf:picto-")
    assert list(told["summary"]) == ["picto", name]
    assert whole not in json.dumps(told)
    for path in (copied / "2_similarity").rglob("*.parquet"):
        assert os.fsencode(whole) not in path.read_bytes()
        table = pq.read_table(path)  # as it was until 0.1: with whole names, without a checksum
        note = json.loads(table.schema.metadata[b"residual.cell"])
        del note["sha256"]
        note["encoder"]["name"] = note["encoder"]["name"].replace(name, whole)
        pq.write_table(table.replace_schema_metadata({"residual.cell": json.dumps(note)}), path)
    read_again("2", plan_in(copied, encoders=("picto", whole)))
    found = read_results(copied / "2_similarity")
    assert sorted(found) == sorted(["picto", name])
    for dataset in ("letters", "flags"):
        pd.testing.assert_frame_equal(found[name][dataset], found["picto"][dataset])
    assert len(list((copied / "stores").iterdir())) == 2
    assert not any(math.isnan(value) for value in told["summary"][name]["flags"].values())


def test_a_file_of_texts_is_told_without_its_folder(copied):
    results = Results(copied / "class_token")
    note, table = next(iter(results.cells()))
    mine, other = (
        {**note, "settings": {**note["settings"], "dictionary": place}}
        for place in ("/mnt/me/birds.txt", "/mnt/you/birds.txt")
    )
    results.write("picto", "letters", mine, table)
    path = results.path("picto", "letters")
    assert b"/mnt" not in path.read_bytes()
    for _ in range(2):
        pd.testing.assert_frame_equal(results.read("picto", "letters", mine), table)
        with pytest.raises(OtherResultError, match=r"dictionary birds\.txt-\w{8}, not birds\.txt-\w{8}\."):
            results.read("picto", "letters", other)
        write_table(path, mine, table)  # as it was until 0.1, with the whole path


def test_results_with_different_references_are_not_read_together(made, copied):
    shutil.copytree(made[0] / "stores", copied / "stores")
    (copied / "2_similarity/picto/flags.parquet").unlink()
    run("2", plan_in(copied, reference="flags", datasets=()))
    with pytest.raises(ResidualError, match="reference"):
        read_results(copied / "2_similarity")


@pytest.mark.parametrize("how", [{"datasets": ("flags", "leters")}, {"encoders": ("picto", "pictoo")}])
def test_a_misspelt_name_is_told_before_anything_is_measured(tmp_path, how):
    with pytest.raises(ResidualError, match="Unknown"):
        run("2", plan_in(tmp_path / "out", **how))
    assert not (tmp_path / "out").exists()


def test_a_cell_of_something_else_is_told_before_anything_is_measured(copied):
    (copied / "1_dimension/picto/letters.parquet").unlink()
    before = state(copied)
    with pytest.raises(ResidualError, match=r"settings\.limit 40, not 41"):
        run("1", plan_in(copied, limit=41))
    assert state(copied) == before


def test_two_folders_of_one_name_stay_apart_and_nothing_tells_where_they_are(tmp_path, monkeypatch):
    said = []

    def save(figure, folder, name):
        said.extend([name, *(text.get_text() for text in figure.findobj(Text))])
        return [folder / f"{name}.svg"]

    monkeypatch.setattr("residual.experiments.running.save_figure", save)
    one, other = (f"folder:{write_folder(tmp_path / name / 'pictures', each=8)}" for name in ("one", "other"))
    plan = plan_in(tmp_path / "out", reference=one, datasets=(other,))
    told = run("1", plan)
    folder = tmp_path / "out/1_dimension"
    assert {Path(path).parent for path in told["figures"]} == {Path("figures")}
    assert str(tmp_path) not in json.dumps(told)
    (rows,) = told["summary"].values()
    assert len(rows) == 2
    assert list(rows) == list(read_results(folder)["picto"])
    assert all(name.startswith("folder:pictures-") for name in rows)
    assert str(tmp_path) not in "\n".join(said)
    assert "picto on folder:pictures-" in "\n".join(said)
    for path in folder.rglob("*"):
        assert path.is_dir() or os.fsencode(tmp_path) not in path.read_bytes(), path
    read_again("1", plan)
