"""What an experiment needs is looked up first, and what can't be had costs only its own cells."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest
from hub_server import Hub as Served
from hub_server import at, running_hub
from hubs import serve, tables_of, write_entry, write_repository
from huggingface_hub import constants
from pictures import write_folder
from tiny import tiny_clip

from residual import load_dataset, load_encoder
from residual.data.hub import hub_entries
from residual.data.lookup import look_up_dataset
from residual.encoders.lookup import look_up_encoder
from residual.encoders.names import ALIASES
from residual.errors import ResidualError, UnreachableHubError
from residual.experiments import EXPERIMENTS, Plan, look_up, run_experiment
from residual.experiments.plan import Work
from residual.repositories import Hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with running_hub() as known:
        at(monkeypatch, known, tmp_path / "kept")
        yield known


# Encoders


def test_encoders_are_found_without_being_fetched(hub: Served, tmp_path):
    weights, config = {"model.safetensors": bytes(3000)}, {"config.json": b"{}"}
    hub.put("me/clip", weights | config | {"pytorch_model.bin": b"a pickle"})
    hub.put("me/old", config | {"pytorch_model.bin": b"a pickle"})
    hub.put("me/closed", weights)
    hub.gated.add("me/closed")
    tiny_clip().save_pretrained(tmp_path / "clip")
    ours, asked = Hub(), {}
    for name in ("hf:me/clip", f"hf:{tmp_path / 'clip'}", "picto", "hf:me/clip@main"):
        found = look_up_encoder(name, ours)
        assert found.error is None
        asked[name] = found
    assert (asked["hf:me/clip"].size, asked["hf:me/clip"].absent) == (3000, 3002)
    size = (tmp_path / "clip/model.safetensors").stat().st_size
    local = asked[f"hf:{tmp_path / 'clip'}"]
    assert (local.size, local.absent, local.layers, local.width) == (size, 0, 3, 32)
    assert (asked["picto"].layers, asked["picto"].width) == (8, 192)
    for name, message in (
        ("hf:me/old", r"has no model\*\.safetensors, and weights in another form"),
        ("hf:me/closed", r"'me/closed' is gated\. This machine has no token \(HF_TOKEN\)"),
        ("hf:me/nothing", "The hub has no model 'me/nothing', or it is private"),
        ("hf:me/clip@v2", "has no revision 'v2'"),
        ("hf:a b/c", "is no name of a model on the hub"),
        ("open_clip:ViT-B-16/nope", "ViT-B-16 has no weights 'nope'"),
        ("timm:vit_tiny/nowhere.safetensors", "there is no file 'nowhere.safetensors'"),
        ("timm:vit_nothing", "Unknown model of timm 'vit_nothing'"),
    ):
        for _ in range(2):
            error = look_up_encoder(name, ours).error
            assert error is not None
            assert re.search(message, str(error)), error
    listed = [path for path in hub.asked if re.fullmatch("GET /api/models/me/[a-z]+(/revision/.+)?", path)]
    for gone in ("./gone", "/no/gone"):
        assert str(look_up_encoder(f"hf:{gone}", ours).error) == f"hf:{gone}: there is no folder {gone!r}."
    assert not [path for path in hub.asked if "gone" in path]
    assert len(listed) == len(set(listed)) == 6  # each repository at each revision once


def test_weights_of_lists_of_open_clip_and_timm_are_asked_for(hub: Served):
    for name in (*ALIASES, "timm:vit_tiny_patch16_224"):
        found = look_up_encoder(name, Hub())
        assert (found.error is None) == (name == "picto"), name
    start = "GET /api/models/"
    paths = [path.removeprefix(start) for path in hub.asked if path.startswith(start)]
    wanted = {re.split("/revision/|/refs", path)[0] for path in paths}
    assert {"facebook/dinov2-large", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"} <= wanted
    assert len(wanted) == len(ALIASES)


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    error = look_up_encoder("clip_b").error
    assert error is not None
    assert "open_clip" in str(error)


def test_a_hub_out_of_reach_is_one_sentence_and_asked_once(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    plan = Plan(tmp_path, ("picto", "clip_b", "vit_l"), ("flags", "cifar10"), "imagenet", limit=5)
    kind = EXPERIMENTS["1"]
    needs = look_up(kind(kind.settings_of()), plan)
    assert set(needs.errors) == {"clip_b", "vit_l", "cifar10", "imagenet"}
    assert all(type(error) is UnreachableHubError for error in needs.errors.values())
    (line,) = needs.problems()
    assert re.match(r"The hub can't be reached \(.+\)\. It holds what is needed of clip_b, vit_l, ", line)
    assert len(set(map(id, needs.errors.values()))) == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert str(look_up_encoder("vit_l").error) == "The hub isn't asked: HF_HUB_OFFLINE is set."


# Datasets


def test_datasets_are_found_without_their_pictures(monkeypatch, tmp_path):
    serve(monkeypatch, tmp_path / "hub", tmp_path / "cache")
    for name in ("pacs", "imagenet-sketch"):
        write_entry(tmp_path / "hub" / hub_entries()[name].repository, hub_entries()[name])
    write_repository(tmp_path / "hub/me/birds", tables_of(hub_entries()["waterbirds"]))
    card = tmp_path / "hub/me/birds/README.md"
    found = look_up_dataset("pacs")
    assert found.error is None
    assert (found.classes, found.columns) == (7, ("image", "label"))
    (parquet,) = (tmp_path / "hub" / hub_entries()["pacs"].repository / "data").iterdir()
    assert found.absent == parquet.stat().st_size
    assert look_up_dataset("imagenet-sketch").absent > 0
    with_card = look_up_dataset("hf:me/birds")
    card.unlink()  # then the ends of the files tell
    for each in (with_card, look_up_dataset("hf:me/birds")):
        assert (each.error, each.classes, each.columns) == (None, 2, ("image", "label"))
    write_repository(tmp_path / "hub/me/other", {"train": tables_of(hub_entries()["cifar10"])["train"]})
    repository = tmp_path / "hub" / hub_entries()["cifar10"].repository
    repository.parent.mkdir(exist_ok=True)
    (tmp_path / "hub/me/other").rename(repository)
    assert "has no split 'test', only 'train'" in str(look_up_dataset("cifar10").error)
    (tmp_path / "hub" / hub_entries()["dtd"].repository).mkdir(parents=True)
    assert "'tanganke/dtd' can't be had from the hub (" in str(look_up_dataset("dtd").error)


def test_what_ships_and_folders_are_known_at_once(tmp_path):
    found = look_up_dataset("flags", ("train",))
    assert (found.sizes, found.classes, found.absent) == ({"train": 2000}, 50, 0)
    place = write_folder(tmp_path / "pictures")
    found = look_up_dataset(f"folder:{place}", ("val", "test"))
    assert found.sizes == {split: len(load_dataset(f"folder:{place}", split)) for split in ("val", "test")}
    assert "is not there" in str(look_up_dataset("folder:nowhere").error)


# Disk and memory


def test_disk_is_that_of_the_stores_that_are_missing(tmp_path, monkeypatch):
    kind, plan = EXPERIMENTS["1"], Plan(tmp_path, ("picto",), ("flags",), "letters", limit=6, device="cpu")
    needs, work = look_up(kind(kind.settings_of()), plan), Work(plan, "picto", lambda *_: None)
    coordinates = [next(iter(work.store(name).batches(6))) for name in ("letters", "flags")]
    numbers = sum(each.z.numel() + each.mlp.numel() for each in coordinates)
    assert needs.stores == 2 * numbers  # float16
    assert look_up(kind(kind.settings_of()), plan).stores == 0
    monkeypatch.setattr("residual.experiments.preflight._free_disk", lambda place: 10)
    monkeypatch.setattr("residual.experiments.preflight._memory", lambda: 10)
    assert [line.partition(" of ")[2] for line in needs.problems()] == [
        "disk for results and stores are needed, and there are 0 kB.",
        "memory are needed, and there are 0 kB.",
    ]


# Failures


def test_an_encoder_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def load(name: str, **how):
        if name == "clip_b":
            raise MemoryError("no memory")
        return load_encoder(name, **how)

    monkeypatch.setattr("residual.experiments.plan.load_encoder", load)
    monkeypatch.setattr("residual.experiments.running.save_figure", lambda *_: [])
    kind, plan = EXPERIMENTS["2"], Plan(tmp_path, ("clip_b", "picto"), ("flags",), "letters", limit=12)
    told = run_experiment(kind(kind.settings_of()), plan, lambda *_: None)
    assert [cell["encoder"] for cell in told["cells"]] == ["picto", "picto"]
    assert [(cell["encoder"], cell["reason"]) for cell in told["failed"]] == [("clip_b", "no memory")] * 2
    only = Plan(tmp_path / "only", ("clip_b",), ("flags",), "letters", limit=12)
    with pytest.raises(MemoryError, match="no memory"):  # of one reason, the very error
        run_experiment(kind(kind.settings_of()), only, lambda *_: None)
    lacking = {"flags": ResidualError("No flags."), "letters": ResidualError("No letters.")}
    kind = EXPERIMENTS["1"]
    with pytest.raises(ResidualError, match=r"None of 2 cells could be .*\. No letters\. No flags\."):
        run_experiment(
            kind(kind.settings_of()), replace(only, encoders=("picto",)), lambda *_: None, lacking=lacking
        )
