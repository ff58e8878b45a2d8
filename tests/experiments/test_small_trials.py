"""Trials on a few pictures work, or one sentence says how many would do."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import TinyImages, randomized
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from residual import load_dataset
from residual.errors import ResidualError
from residual.experiments import EXPERIMENTS, Plan, run_experiment
from residual.experiments.adapters import AdaptersSettings
from residual.experiments.heads import HeadsSettings

SETTINGS = {
    "3": HeadsSettings(
        seeds=2, atoms=2, rank=5, dictionary="attributes", adapted=(), studies=("selected", "mlps", "layers")
    ),
    "4": AdaptersSettings(methods=("zero_shot", "coarse"), seeds=1, epochs=1),
}


@pytest.fixture(scope="module")
def vision_only(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("vit")
    config = ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48, image_size=32
    )
    randomized(ViTModel(config, add_pooling_layer=False), 0).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return f"hf:{folder}"


def run(number: str, out, encoder: str, limit: int) -> dict:
    plan = Plan(out, (encoder,), ("digits",), "letters", limit=limit, device="cpu")
    return run_experiment(EXPERIMENTS[number](SETTINGS[number]), plan, lambda *_: None)


@pytest.mark.parametrize("number", ["3", "4"])
def test_an_encoder_without_text_has_every_class(number, vision_only, tmp_path, monkeypatch):
    monkeypatch.setattr("residual.experiments.running.save_figure", lambda *_: [])
    assert len(np.unique(load_dataset("digits", "train").sample(10).labels)) < 10
    told = run(number, tmp_path, vision_only, 10)
    assert told["failed"] == []
    with pytest.raises(ResidualError, match=r"digits has 10 classes, .* The smallest limit that works is 10"):
        run(number, tmp_path / "fewer", vision_only, 9)
    assert not (tmp_path / "fewer/stores").exists()


def test_heads_are_chosen_by_as_few_as_four(tmp_path, monkeypatch):
    monkeypatch.setattr("residual.experiments.running.save_figure", lambda *_: [])
    assert run("3", tmp_path, "picto", 4)["failed"] == []
    with pytest.raises(ResidualError, match="needs 4 at least, and digits/val has 3"):
        run("3", tmp_path / "fewer", "picto", 3)


def test_a_sample_has_every_class_where_there_is_room():
    data = TinyImages(400, classes=12)
    rare = data.subset(
        [*np.flatnonzero(data.labels < 2)[:60], *(np.flatnonzero(data.labels == c)[0] for c in range(2, 12))]
    )
    for count in (11, 12, 20):
        plain, every = rare.sample(count), rare.sample(count, every_class=True)
        assert len(every) == count
        assert list(every.sample_ids) == sorted(every.sample_ids, key=rare.sample_ids.index)
        assert len(np.unique(plain.labels)) < 12
        if count < 12:
            assert every.sample_ids == plain.sample_ids  # there is no room: as ever
        else:
            assert set(every.labels) == set(range(12))
    assert data.sample(200, every_class=True).sample_ids == data.sample(200).sample_ids
