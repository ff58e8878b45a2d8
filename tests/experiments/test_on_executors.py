"""Experiments and trainings on executors: what comes of them is what one process makes, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from here import Here
from pictures import write_folder

from residual import load_encoder
from residual.adapters.fit_settings import TrainSettings
from residual.errors import NoPlaceError, ResidualError
from residual.experiments import EXPERIMENTS, Plan, cells, run_experiment
from residual.experiments.adapters import AdaptersSettings
from residual.experiments.heads import HeadsSettings
from residual.workflows.train import train_on

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, str]:
    """Some pictures, and as many of which one can't be read."""
    root = tmp_path_factory.mktemp("pictures")
    write_folder(root / "few", each=10)
    shutil.copytree(root / "few", root / "broken")
    (root / "broken" / "digit 1" / "03.png").write_bytes(b"no picture")
    return {name: f"folder:{root / name}" for name in ("few", "broken")}


def quiet(stage: str, done: int, total: int) -> None:
    pass


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ran(out: Path, number: str, settings=None, executor=None, progress=quiet, **how) -> dict:
    """What is told of an experiment, without seconds."""
    kind = EXPERIMENTS[number]
    plan = Plan(out=out, encoders=("picto",), device=None if executor else "cpu", **how)
    told = run_experiment(kind(settings or kind.settings_of()), plan, progress, executor=executor)
    for cell in told["cells"]:
        assert (cell.pop("seconds") > 0) == cell["measured"]
    return told


def test_cells_are_those_of_one_process(data, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    of = {"reference": data["few"], "datasets": (data["broken"],)}
    heard: list[tuple[str, int, int]] = []
    one = ran(here, "2", most_skipped=0, **of)
    many = ran(there, "2", None, Here(), lambda *about: heard.append(about), most_skipped=0, **of)
    assert many == one
    (failed,) = many["failed"]
    assert "1 images of" in failed["reason"]  # of a worker, which encoded it
    assert files(there) == files(here)
    assert heard[-1] == ("measure cells", 1, 1)
    more = {"most_skipped_share": 0.1, **of}
    again = ran(there, "2", executor=Here(), **more)
    assert again == ran(here, "2", **more)
    assert [cell["measured"] for cell in again["cells"]] == [False, True]
    assert [len(ids) for ids in again["skipped"].values()] == [1]
    assert files(there) == files(here)


def test_what_cells_leave_and_take_goes_through_the_caller(data, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "_SMALL", 0)  # a large store is encoded by all
    fits = AdaptersSettings(("zero_shot", "linear"), seeds=1, epochs=1)
    heads = HeadsSettings(
        (0.05, 0.1), seeds=2, atoms=2, rank=20, dictionary="attributes", adapted=("linear",)
    )
    here, there = tmp_path / "here", tmp_path / "there"
    of = {"reference": data["few"], "datasets": (data["few"],)}
    elsewhere = {"stores": f"memory://{tmp_path.name}", **of}
    for number, settings in (("4", fits), ("3", heads)):
        one = ran(here, number, settings, **of)
        assert ran(there, number, settings, Here(), **elsewhere)["summary"] == one["summary"]
    assert not (there / "stores").exists()
    mine, theirs = files(here), files(there)
    assert {name for name in mine if not name.startswith("stores/")} == theirs.keys()
    timed = {name for name in theirs if theirs[name] != mine[name]}
    assert len(timed) == 2  # the seconds of a fit, in its cell and in the table of all
    for name in timed:
        frames = [pd.read_parquet(out / name).drop(columns="seconds") for out in (here, there)]
        pd.testing.assert_frame_equal(*frames)
    with pytest.raises(ResidualError, match="No output of picto after linear on "):
        ran(tmp_path / "new", "3", heads, Here(), **elsewhere)


def test_an_error_that_is_no_input_s_fails_its_cell_alone(data, tmp_path, monkeypatch):
    class StrangeError(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    def fail(experiment, work, cell):
        if cell == data["broken"]:
            raise StrangeError("this", "that")
        return measure(experiment, work, cell)

    measure = EXPERIMENTS["2"].measure
    monkeypatch.setattr(EXPERIMENTS["2"], "measure", fail)
    told = ran(
        tmp_path, "2", None, Here(), reference=data["few"], datasets=(data["broken"],), most_skipped_share=1
    )
    assert [row["reason"] for row in told["failed"]] == ["StrangeError: this and that"]
    assert len(told["cells"]) == 1


def test_seeds_of_fine_tuning_are_those_of_one_process(data, tmp_path):
    encoder, name = load_encoder("picto", device="cpu"), data["broken"]
    how = [TrainSettings(seed=seed, epochs=1) for seed in (0, 1)]
    with pytest.raises(NoPlaceError, match="in a place that all of them reach"):
        train_on(encoder, name, "fine_tuning", how, executor=Here())
    done = []
    for place, executor in (("here", None), ("there", Here())):
        places = {"stores": tmp_path / place, "folder": tmp_path / f"{place}-training"}
        more = {"limit": 15, "on_error": "skip", "executor": executor}
        done.append(train_on(encoder, name, "fine_tuning", how, **places, **more))
    one, many = (each.summary for each in done)
    for told in (one, many):
        del told["seconds"]
    assert many == one
    one, many = (each.adapted.encoder.fingerprint for each in done)
    assert many == one
    assert files(tmp_path / "there") == files(tmp_path / "here")
    trainings = [files(tmp_path / f"{place}-training") for place in ("here", "there")]
    assert trainings[0].keys() == trainings[1].keys()
