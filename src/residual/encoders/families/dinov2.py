"""DINOv2 as in transformers, with registers or without: normed class token, layer scales, any image size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from residual.encoders.anatomy import Anatomy
from residual.encoders.family import Family, Tower
from residual.encoders.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from residual.encoders.transformers_models import check_names, named


def adjusted(module: Any, anatomy: Anatomy) -> Anatomy:
    """With registers, if there are any."""
    check_names(module)
    return replace(anatomy, prefix=1 + getattr(module.config, "num_register_tokens", 0))


FAMILIES = (
    Family(
        name="transformers DINOv2",
        classes=("transformers.Dinov2Model", "transformers.Dinov2WithRegistersModel"),
        image=Tower(
            anatomy=Anatomy(
                blocks="encoder.layer",
                attention_output=("attention.o_proj", "attention.output.dense"),
                heads=("attention.num_attention_heads", "attention.attention.num_attention_heads"),
                mlp="mlp",
                final_norm="layernorm",
                attention_scale="layer_scale1.lambda1",
                mlp_scale="layer_scale2.lambda1",
            ),
            encode=lambda module, pixels: named(module, pixel_values=pixels).pooler_output,
            adjust=adjusted,
        ),
        settings=lambda module: f"{module.config.hidden_act} {module.config.use_swiglu_ffn}",
        preprocess=lambda module: Preprocess(256, (224, 224), mean=IMAGENET_MEAN, std=IMAGENET_STD),
        saved_as={"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"},
    ),
)
