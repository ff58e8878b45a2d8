"""A tiny CLIP that is to be fine-tuned on a planted task, for tests and for the processes that they kill."""

from __future__ import annotations

import numpy as np
import torch
from tiny import TinyImages, tiny_clip, tiny_encoder

from residual.adapters import TrainSettings
from residual.data import PixelDataset
from residual.encoders.encoder import Encoder
from residual.encoders.load import wrap_encoder
from residual.text import ZeroShotClassifier

FAST = TrainSettings(learning_rate=2e-3, batch_size=16, epochs=6)


def encoder(dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> Encoder:
    if not dropout:
        return tiny_encoder(dtype=dtype, layers=2)
    module = tiny_clip(dtype=dtype, layers=2)
    for layer in module.vision_model.encoder.layers:
        layer.self_attn.dropout = dropout
    return wrap_encoder(module, name="tiny")


def pictures(n: int = 64, split: str = "train", **how) -> TinyImages:
    return TinyImages(n, seed=("train", "val", "test").index(split), split=split, **how)


def classifier(classes: int = 4) -> ZeroShotClassifier:
    weights = torch.randn(classes, 12, generator=torch.Generator().manual_seed(1))
    return ZeroShotClassifier(weights, [f"class {index}" for index in range(classes)])


def pixels(dataset: TinyImages, like: Encoder) -> PixelDataset:
    made = like.pixels([dataset.load(index) for index in range(len(dataset))]).float()
    return PixelDataset(made, dataset.labels, dataset.class_names, split=dataset.split)


def accuracy(of: Encoder, dataset: TinyImages) -> float:
    with torch.no_grad():
        output = of.encode_image(of.pixels([dataset.load(index) for index in range(len(dataset))]))
    return classifier().accuracy(output, dataset.labels)


def weights_of(of: Encoder) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in of.module.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def shuffled(dataset: TinyImages) -> TinyImages:
    """Labels that say nothing."""
    dataset.labels = np.random.default_rng(0).permutation(dataset.labels)
    return dataset
