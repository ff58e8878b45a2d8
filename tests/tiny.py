"""Tiny random CLIPs, with norms and biases far from their defaults, and images to go with them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPVisionModelWithProjection

from residual.adapters import Fitting, fitting
from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.encoders.load import wrap_encoder
from residual.errors import UnreadableImageError
from residual.workflows.run import RUN_METHODS


def tiny_config(
    layers: int = 3, heads: int = 4, head_width: int = 8, image: int = 32, patch: int = 16, output: int = 12
) -> CLIPConfig:
    width = heads * head_width
    vision = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": image,
        "patch_size": patch,
        "projection_dim": output,
    }
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 64,
        "max_position_embeddings": 10,
        "bos_token_id": 62,
        "eos_token_id": 63,
        "pad_token_id": 63,
        "projection_dim": output,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=output)


def tiny_clip(seed: int = 0, dtype: torch.dtype = torch.float64, **sizes: int) -> CLIPModel:
    return randomized(CLIPModel(tiny_config(**sizes)), seed).to(dtype)


def tiny_vision(
    seed: int = 0, dtype: torch.dtype = torch.float64, **sizes: int
) -> CLIPVisionModelWithProjection:
    return randomized(CLIPVisionModelWithProjection(tiny_config(**sizes).vision_config), seed).to(dtype)


def randomized(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every parameter N(0, 1/4), norms' weights around 1 by as much."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name == "logit_scale":
                continue
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return module.eval()


def tiny_encoder(
    seed: int = 0, dtype: torch.dtype = torch.float64, centering: str = "shared", **sizes: int
) -> Encoder:
    return wrap_encoder(tiny_clip(seed, dtype, **sizes), centering=centering, name="tiny")


def random_pixels(
    n: int = 5, size: int = 32, seed: int = 1, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class OnAGpu(torch.Tensor):
    """Stands in for a tensor there: numpy has none of it, all else is as it is."""

    def __array__(self, *about, **how):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class TinyImages(ImageDataset):
    """A labelled image dataset in memory; positions in `broken` can't be read."""

    def __init__(
        self,
        n: int = 40,
        classes: int = 4,
        size: int = 32,
        seed: int = 0,
        broken: tuple[int, ...] = (),
        name: str = "tiny",
        split: str = "train",
    ):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, classes, n).astype(np.int64)
        means = np.random.default_rng(99).integers(60, 200, (classes, size, size, 3))
        noise = rng.integers(-50, 50, (n, size, size, 3))
        self.images = (means[labels] + noise).clip(0, 255).astype(np.uint8)
        self.broken = broken
        super().__init__(
            name=name,
            split=split,
            class_names=[f"class {index}" for index in range(classes)],
            templates=["a picture of {}"],
            labels=labels,
            sample_ids=[f"tiny/{index}" for index in range(n)],
            licence="made up",
        )

    def load(self, index: int) -> Image.Image:
        if index in self.broken:
            raise UnreadableImageError(self.sample_ids[index], "cut off")
        return Image.fromarray(self.images[index])


def fittings(epochs: int, recipe: str = "paper") -> dict[str, Fitting]:
    """One quick fit of each method of a run."""
    return {method: fitting(method, recipe, fit={"epochs": epochs}) for method in RUN_METHODS}
