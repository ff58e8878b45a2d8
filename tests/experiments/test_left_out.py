"""What experiments leave out: samples beyond a limit, the reference's and the tasks' apart, and pictures that
can't be read, up to a number.
"""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pictures import write_folder
from tiny import tiny_encoder

from residual.data import load_dataset
from residual.errors import ResidualError, TooManySkippedError, UnreadableImageError
from residual.experiments import EXPERIMENTS, Plan, run_experiment
from residual.experiments.plan import Work
from residual.store import Allowance


@pytest.fixture
def name(tmp_path) -> str:
    """A folder of 60 pictures: 36, 12 and 12."""
    return f"folder:{write_folder(tmp_path / 'pictures', each=20)}"


def plan_in(out: Path, **how) -> Plan:
    return Plan(**{"out": out, "encoders": ("picto",), "datasets": (), "device": "cpu"} | how)


def quiet(stage: str, done: int, total: int) -> None:
    pass


@pytest.mark.parametrize(
    ("how", "reference", "task", "noted"),
    [
        ({}, 0, 0, {"limit": 0}),
        ({"limit": 20}, 20, 20, {"limit": 20}),  # as files of before have it
        ({"reference_limit": 20}, 20, 0, {"limit": 0, "reference_limit": 20}),
        ({"reference_limit": 20, "task_limit": 30}, 20, 30, {"limit": 30, "reference_limit": 20}),
        ({"reference_limit": 20, "limit": 10}, 10, 10, {"limit": 10}),
        ({"task_limit": 9, "limit": 15}, 15, 9, {"limit": 9, "reference_limit": 15}),
    ],
)
def test_the_reference_and_the_tasks_have_limits_of_their_own(tmp_path, name, how, reference, task, noted):
    plan = plan_in(tmp_path, reference="letters", datasets=(name,), **how)
    assert (plan.limit_of("letters"), plan.limit_of(name)) == (reference, task)
    assert plan.limits_of(("letters", name)) == noted
    assert plan.limits_of(("letters",)) == {"limit": reference}  # whatever the tasks' is
    assert plan.limits_of((name,)) == {"limit": task}
    assert len(plan.dataset(name)) == (task or 36)
    assert len(plan.dataset(name, "test")) == min(task or 12, 12)
    if reference:
        assert len(plan.dataset("letters")) == reference


def test_numbers_that_are_none_are_refused(tmp_path):
    for how in ("limit", "reference_limit", "task_limit"):
        with pytest.raises(ResidualError, match="The limit is a number of images, or 0 for all; got -1"):
            plan_in(tmp_path, reference="letters", **{how: -1})
    with pytest.raises(ResidualError, match="a share from 0 to 1 and a number of pictures, got 2 and 100"):
        plan_in(tmp_path, reference="letters", most_skipped_share=2)
    assert [Allowance().of(n) for n in (1, 99, 1000, 10**6)] == [1, 1, 10, 100]
    assert Allowance(1, 0).of(10) == 0


def broken(name: str, count: int) -> list[str]:
    """Ids of as many train pictures, which can't be read from now on."""
    ids = load_dataset(name, "train").sample_ids[:count]
    for sample in ids:
        (Path(name.removeprefix("folder:")) / sample).write_bytes(b"not a picture")
    return list(ids)


def test_a_few_pictures_that_cannot_be_read_are_left_out_and_listed(tmp_path, name, monkeypatch):
    monkeypatch.setattr("residual.experiments.plan.load_encoder", lambda *_, **__: tiny_encoder())
    monkeypatch.setattr(EXPERIMENTS["1"], "figures", staticmethod(lambda _: ()))
    kind, ids, out = EXPERIMENTS["1"], broken(name, 1), tmp_path / "out"
    experiment, plan = kind(kind.settings_of(halvings=0)), plan_in(out, reference=name)
    for measured in (True, False):
        told = run_experiment(experiment, plan, quiet)
        ((of, left_out),) = told["skipped"].items()
        assert (told["cells"][0]["measured"], left_out) == (measured, ids)
        assert of.startswith("folder:pictures-")
        assert of.endswith("/train")
        assert (next(iter(told["summary"].values()))[of.removesuffix("/train")])["samples"] == 35
    (cell,) = (out / kind.folder).glob("*/*.parquet")
    assert json.loads(pq.read_schema(cell).metadata[b"residual.cell"])["skipped"] == {of: ids}

    ids = broken(name, 3)
    many = (
        r"3 images of .*/train can't be read, of 36 that it has; left out may be 0\.01 .* at most 100, which "
        rf"is 1\. The first is '{ids[0]}' \("
    )
    for _ in range(2):  # what is whole in the store counts
        with pytest.raises(TooManySkippedError, match=many):
            run_experiment(experiment, plan_in(tmp_path / "new", reference=name, batch_size=36), quiet)
    more = plan_in(tmp_path / "new", reference=name, batch_size=36, most_skipped_share=0.1)
    assert next(iter(run_experiment(experiment, more, quiet)["skipped"].values())) == ids
    with pytest.raises(TooManySkippedError, match="3 images of"):
        Work(plan_in(tmp_path / "new", reference=name), "picto", quiet).store(name)
    with pytest.raises(UnreadableImageError, match="Image 'digit 0/"):
        Work(plan_in(tmp_path / "other", reference=name, on_error="raise"), "picto", quiet).store(name)
