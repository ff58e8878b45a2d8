"""A training that was cut off and goes on equals one that was not: a few steps, a tiny corpus, the CPU."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

# Preparing forks workers from a process in which torch has threads; they only draw with NumPy and Pillow.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def few_scenes(monkeypatch) -> None:
    from scenes import MAKERS

    for which, (maker, _) in list(MAKERS.items()):
        monkeypatch.setitem(MAKERS, which, (maker, 12))


@pytest.fixture
def small_model(monkeypatch) -> None:
    import train

    full = train.clip_config

    def small(tokenizer):
        config = full(tokenizer)
        for tower in (config.text_config, config.vision_config):
            tower.hidden_size, tower.intermediate_size, tower.num_hidden_layers = 48, 96, 2
        return config

    monkeypatch.setattr(train, "clip_config", small)


def run(out: Path, steps: int = 4, seconds: float = math.inf, seed: int = 0):
    from train import Trainer

    args = argparse.Namespace(
        steps=steps,
        batch=16,
        lr=1e-3,
        seed=seed,
        seconds=seconds,
        every=1,
        leave_out=[],
        device="cpu",
        out=str(out),
    )
    trainer = Trainer(args)
    trainer.train()
    return trainer


def step_of(folder: Path) -> int:
    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        return int(file.metadata()["step"])


def test_cut_off_and_resumed_equals_uninterrupted(build, few_scenes, small_model, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole)
    for stops in (1, 2, 3):  # no time at all: a stop after every step
        run(parts, seconds=-1.0)
        assert step_of(parts) == stops
    run(parts)
    assert "going on from step 3" in capsys.readouterr().out
    assert step_of(parts) == step_of(whole) == 4
    one, other = (load_file(folder / "checkpoint.safetensors") for folder in (whole, parts))
    assert one.keys() == other.keys()
    assert any(name.startswith("optimizer.") for name in one)
    for name in one:
        assert torch.equal(one[name], other[name]), name
    assert not (parts / "checkpoint.beside").exists()

    run(tmp_path / "seed", seed=1)
    unlike = load_file(tmp_path / "seed/checkpoint.safetensors")
    assert not torch.equal(one["model.visual_projection.weight"], unlike["model.visual_projection.weight"])


def test_everything_prepared_is_of_the_corpus_and_drawn_by_its_share(build, few_scenes, tmp_path):
    from train import FORMS, SHARES, prepare

    data = prepare([], tmp_path)
    n = 40 + 6 * 12
    assert data["pixels"].shape == (n, 4, 64, 64)
    assert data["captions"].shape == (n, FORMS, 32)
    assert data["keys"].shape == (n, 3)
    assert (data["captions"][..., 0] == 6032).all()
    assert ((data["captions"] == 6033).sum(-1) >= 1).all()
    fits = (data["keys"][:, None, :] == data["caption_keys"][:, :, None]).any(-1)
    assert fits.all()  # every picture's own captions fit it
    assert data["weight"].sum().item() == pytest.approx(sum(SHARES.values()), rel=1e-4)
    again = prepare([], tmp_path)  # read back, not made again
    assert all(torch.equal(data[name], again[name]) for name in data)


def test_a_set_can_be_left_out(build, few_scenes, tmp_path):
    from train import prepare

    kept = prepare(["emoji-2"], tmp_path)
    assert len(kept["kind"]) == 40 - 3 + 6 * 12


def test_loss_is_least_where_pairs_agree():
    from train import loss_of

    same = torch.eye(6)
    fits = torch.eye(6, dtype=torch.bool)
    scale = torch.tensor(4.0)
    assert loss_of(same, same, scale, fits) < 1e-6
    assert loss_of(same, same.roll(1, 0), scale, fits) > 10
    twins = torch.block_diag(*[torch.ones(2, 2)] * 3).bool()
    pairs = torch.eye(3).repeat_interleave(2, 0)
    assert loss_of(pairs, pairs, scale, twins).item() == pytest.approx(math.log(2), abs=1e-5)


def test_export_gives_a_folder_that_loads(build, few_scenes, tmp_path, monkeypatch):
    import export
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    monkeypatch.setattr(export, "BUILD", build)
    trainer = run(tmp_path / "train", steps=1)
    export.export(tmp_path / "train/checkpoint.safetensors", tmp_path / "folder")
    model = CLIPModel.from_pretrained(tmp_path / "folder")
    for name, weights in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weights.half()), name
    assert len(AutoTokenizer.from_pretrained(tmp_path / "folder")) == 6034
    assert CLIPImageProcessor.from_pretrained(tmp_path / "folder").crop_size["height"] == 64
