"""The files of settings in `experiments/`, and its scripts: what they say is what the commands do."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from residual.cli.command_settings import ExperimentOptions
from residual.cli.settings import read_experiment_settings
from residual.cli.settings_files import read_bindings
from residual.data import dataset_names, hub_dataset_names, load_dataset
from residual.encoders.names import ALIASES
from residual.errors import ResidualError
from residual.experiments import EXPERIMENTS, Plan
from residual.experiments.adapters import AdaptersSettings
from residual.experiments.head_studies import STUDIES
from residual.experiments.heads import HeadsSettings
from residual.spectral import GeometrySettings, SimilaritySettings

ROOT = Path(__file__).parents[2] / "experiments"
ALL = pytest.mark.parametrize("number", list(EXPERIMENTS))


def read(number: str, *files: Path | str, params: tuple[str, ...] = (), out: Path = Path("out")) -> tuple:
    paths = [ROOT / EXPERIMENTS[number].folder / file for file in files]
    return read_experiment_settings(number, paths, params, out=out, device="cpu")


# Files


def test_every_experiment_has_its_folder():
    folders = {path.name for path in ROOT.iterdir() if (path / "offline.gin").is_file()}
    assert folders == {kind.folder for kind in EXPERIMENTS.values()}
    for folder in folders:
        assert {"offline.gin", "paper.gin", "run.py"} <= {path.name for path in (ROOT / folder).iterdir()}


@ALL
def test_offline_settings_are_the_defaults(number):
    plan, settings = read(number, "offline.gin")
    assert (plan, settings) == read(number)
    assert plan == Plan(
        out=Path("out"),
        encoders=("picto",),
        datasets=dataset_names(),
        reference="mixed",
        device="cpu",
    )
    assert settings == EXPERIMENTS[number].settings_of()


@ALL
def test_offline_settings_write_out_what_can_be_set(number):
    """Those that say what is measured, not how fast."""
    measures_of = EXPERIMENTS[number].settings_of
    names = {"experiment": ExperimentOptions, measures_of.__name__: measures_of}
    bound = read_bindings([ROOT / EXPERIMENTS[number].folder / "offline.gin"], [], names, "")
    experiment, measures = ([each.field for each in bound if each.kind == name] for name in names)
    assert set(experiment) == {"encoders", "reference", "datasets", "split", "limit"}
    kind = {
        "1": {"threshold", "fraction", "samples", "halvings"},
        "2": {"explained", "anchors", "published_anchors"},
        "3": {"shares", "seeds", "atoms", "rank", "dictionary", "adapted", "alone", "counting", "studies"},
        "4": {field.name for field in fields(AdaptersSettings)},
    }
    assert set(measures) == kind.get(number, {"explained"})


@ALL
def test_the_papers_settings_name_what_the_library_knows(number):
    plan, settings = read(number, "paper.gin")
    assert set(plan.encoders) <= set(ALIASES)
    assert len(plan.encoders) == 7
    assert {plan.reference, *plan.datasets} <= {*dataset_names(), *hub_dataset_names()}
    assert plan.reference == "imagenet"
    assert (plan.split, plan.batch_size) == ("train", 256)
    sample, whole = (10_000, 10_000) if number == "class-token" else (50_000, 0)  # no task is cut
    assert (plan.limit_of("imagenet"), plan.limit_of("sun397")) == (sample, whole)
    assert plan.on_error == "skip"
    assert settings == {
        "1": GeometrySettings(threshold=0.99, fraction=0.9, samples=50_000, halvings=3),
        "2": SimilaritySettings(explained=0.9, anchors=256, published_anchors=100),
        "3": HeadsSettings(
            seeds=10,
            atoms=10,
            rank=80,
            dictionary="words",
            alone=True,
            counting="published",
            studies=tuple(STUDIES),
        ),
        "4": AdaptersSettings(seeds=5, tuning_rate=1e-5, tuning_batch_size=None),
    }.get(number, SimilaritySettings(explained=0.9, anchors=256))
    assert len(plan.datasets) == {"2": 13, "3": 13, "4": 12}.get(number, 0)


@ALL
def test_the_script_is_the_command(number):
    script = (ROOT / EXPERIMENTS[number].folder / "run.py").read_text(encoding="utf-8")
    assert f'sys.argv[1:1] = ["experiment", "{number}"]\nmain()\n' in script
    for file in ("offline.gin", "paper.gin"):
        about = (ROOT / EXPERIMENTS[number].folder / file).read_text(encoding="utf-8")
        assert about.startswith("# ")


# What wins


def test_a_parameter_wins_over_a_file_and_a_later_file_over_an_earlier(tmp_path):
    (tmp_path / "more.gin").write_text("experiment.limit = 7\nGeometrySettings.threshold = 0.9\n")
    plan, settings = read("1", "paper.gin", tmp_path / "more.gin")
    assert (plan.limit, plan.batch_size, settings.threshold) == (7, 256, 0.9)
    params = ("experiment.limit=60", "experiment.datasets=['flags','letters']", "GeometrySettings.seed=4")
    plan, settings = read("1", "paper.gin", tmp_path / "more.gin", params=params)
    assert (plan.limit, plan.batch_size, plan.datasets) == (60, 256, ("flags", "letters"))
    assert (settings.threshold, settings.seed) == (0.9, 4)


def test_nothing_stays_from_one_reading_to_the_next():
    assert read("2", params=("experiment.limit=60", "SimilaritySettings.explained=0.5"))[0].limit == 60
    assert read("2") == read("2", "offline.gin")
    plan, _ = read("1")
    assert plan.encoders == ("picto",)


def test_words_need_no_quotes():
    params = (
        "experiment.reference=letters",
        "experiment.split=val",
        "experiment.encoders=['picto', 'clip_b']",
        "experiment.datasets=[]",
        "experiment.on_error=skip",
        "experiment.workers=2",
    )
    plan, _ = read("2", params=params)
    assert (plan.reference, plan.split, plan.on_error, plan.workers) == ("letters", "val", "skip", 2)
    assert (plan.encoders, plan.datasets) == (("picto", "clip_b"), ())
    assert read("2")[0].workers is None
    assert load_dataset(plan.reference, plan.split).full_name == "letters/val"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("param", "message"),
    [
        (
            "experiment.limt=5",
            "A setting can't be used: .*limt.*experiment.limit takes a whole number, at least 0",
        ),
        ("experiment.limit=many", "experiment.limit takes a whole number, at least 0; got 'many'"),
        ("experiment.limit=1.5", "experiment.limit takes a whole number, at least 0; got 1.5"),
        ("experiment.limit=-1", "experiment.limit takes a whole number, at least 0; got -1"),
        (
            "experiment.encoders=picto",
            r"encoders takes a list of names; got 'picto' \(--param\). A list of one is \['picto'\]",
        ),
        ("experiment.datasets=['flags', 3]", "experiment.datasets takes a list of names; got .*, 3"),
        ("experiment.encoders=[]", "An experiment needs at least one encoder"),
        ("experiment.datasets=['flags', 'flags']", "Named twice: flags"),
        (
            "GeometrySettings.threshold=2.0",
            "threshold takes a number above 0 and below 1; got 2.0",
        ),
        ("GeometrySettings.colour='red'", "A setting can't be used"),
        ("Nothing.at_all=3", "A setting can't be used"),
        ("experiment.limit", "--param takes name=value, got 'experiment.limit'"),
    ],
)
def test_settings_that_cannot_be_used_are_named(param, message):
    with pytest.raises(ResidualError, match=message):
        read("1", params=(param,))
    assert read("1") == read("1", "offline.gin")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ResidualError, match=r"There is no settings file '.*papr\.gin'"):
        read("1", "papr.gin")
    (tmp_path / "bad.gin").write_text("experiment.limit = = 3\n")
    with pytest.raises(ResidualError, match="A setting can't be used"):
        read("1", tmp_path / "bad.gin")


# What is cut off


@pytest.mark.parametrize("param", ["experiment.datasets=['flags'", "experiment.reference='''letters"])
def test_a_setting_that_is_cut_off_is_told(param):
    with pytest.raises(ResidualError, match="A setting can't be used"):
        read_experiment_settings("1", [], [param], out=Path("out"), device="cpu")
