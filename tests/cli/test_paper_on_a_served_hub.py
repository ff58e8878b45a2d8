"""The settings of the paper's experiments on a hub that is served here, with tiny models and tables."""

import json
from functools import cache
from pathlib import Path

import hub_server
import hubs
import pytest
from hub_server import running_hub
from pictures import first_of_each_folder
from saved import transformers_folder

from residual.data.hub import hub_entries
from residual.experiments import EXPERIMENTS, plan, running
from residual.heads import linear

ROOT = Path(__file__).parents[2] / "experiments"
MODELS = {  # what each is there, and where its safetensors are
    "vit_l": ("google/vit-large-patch16-224", "ViTModel", "refs/pr/2"),
    "blip_l_flickr": ("Salesforce/blip-itm-large-flickr", "BlipForImageTextRetrieval", "refs/pr/4"),
}
DATASETS = ("svhn",)
CHEAP = (
    f"experiment.encoders={list(MODELS)}",
    f"experiment.datasets={list(DATASETS)}",
    "experiment.batch_size=256",
    "experiment.limit=1000",  # one picture of each of ImageNet's classes
    "GeometrySettings.samples=2000",
    "HeadsSettings.seeds=2",
    "AdaptersSettings.methods=('zero_shot', 'residual')",
    "AdaptersSettings.seeds=1",
    "AdaptersSettings.epochs=1",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    for repo, kind, _ in MODELS.values():
        transformers_folder(kind, root / repo, **({"positions": 40} if "Blip" in kind else {}))
    for name in ("imagenet", *DATASETS):
        hubs.write_entry(root / "datasets" / hub_entries()[name].repository, hub_entries()[name])
    return root


@pytest.mark.slow
@pytest.mark.filterwarnings("default::residual.errors.SharedNameWarning")  # ImageNet's names
@pytest.mark.filterwarnings("default:settings that have no effect here. AdaptersSettings.tuning_")  # not run
def test_the_papers_experiments_run(residual, folders, tmp_path):
    out = tmp_path / "out"
    with running_hub() as hub, pytest.MonkeyPatch.context() as patch:
        hub_server.at(patch, hub, tmp_path / "kept")
        patch.setattr(plan, "load_dataset", cache(plan.load_dataset))
        patch.setattr(linear, "_STEPS", 3)
        patch.setattr(running, "save_figure", first_of_each_folder(running.save_figure))
        for repo, _, reference in MODELS.values():
            files = {path.name: path.read_bytes() for path in (folders / repo).iterdir()}
            lacking = {name: data for name, data in files.items() if not name.endswith(".safetensors")}
            hub.put(repo, {**lacking, "pytorch_model.bin": b"a pickle"})
            hub.put(repo, files, reference)
        for name in ("imagenet", *DATASETS):
            repo = f"datasets/{hub_entries()[name].repository}"
            hub.put(repo, folders / repo)
        for number in ("1", "2", "4", "3"):
            told_at = tmp_path / f"{number}.json"
            kind = EXPERIMENTS[number]
            of = "experiment", kind.settings_of.__name__
            params = [param for param in CHEAP if param.split(".")[0] in of]
            words = [word for param in params for word in ("--param", param)]
            words += ["--cfg", ROOT / kind.folder / "paper.gin", "--json", told_at]
            code, shown, error = residual("experiment", number, "--out", out, "--device", "cpu", *words)
            assert code == 0, error
            told = json.loads(told_at.read_text(encoding="utf-8"))
            assert set(told["summary"]) == set(MODELS)
            assert set(DATASETS) <= {name for rows in told["summary"].values() for name in rows}
            assert all(name in shown for name in MODELS)
    fetched = {path.rpartition("/")[2] for path in hub.sent}
    assert not fetched & {"pytorch_model.bin", "extra-00000-of-00001.parquet"}
    assert not [path for path in hub.sent if "imagenet-1k/data/validation" in path]
