"""DINOv3 in transformers: normed class token, registers, rotary positions, layer scales, any image size."""

from __future__ import annotations

from residual.encoders.anatomy import Anatomy
from residual.encoders.families.dinov2 import adjusted
from residual.encoders.family import Family, Tower
from residual.encoders.preprocess import IMAGENET_MEAN, IMAGENET_STD, Unrounded
from residual.encoders.transformers_models import image_size, named

_SETTINGS = ("hidden_act", "use_gated_mlp", "rope_theta")

FAMILIES = (
    Family(
        name="transformers DINOv3",
        classes=("transformers.DINOv3ViTModel",),
        image=Tower(
            anatomy=Anatomy(
                blocks=("model.layer", "layer"),
                attention_output="attention.o_proj",
                heads="attention.num_heads",
                mlp="mlp",
                final_norm="norm",
                attention_scale="layer_scale1.lambda1",
                mlp_scale="layer_scale2.lambda1",
            ),
            encode=lambda module, pixels: named(module, pixel_values=pixels).pooler_output,
            adjust=adjusted,
        ),
        settings=lambda module: " ".join(str(getattr(module.config, name, "")) for name in _SETTINGS),
        preprocess=lambda module: Unrounded(
            image_size(module), None, interpolation=2, mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
        saved_as={"dinov3_vit": "DINOv3ViTModel"},
    ),
)
