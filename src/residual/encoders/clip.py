"""CLIP as in transformers: `CLIPModel` with both towers, `CLIPVisionModelWithProjection` with the vision one.

The class token goes through `post_layernorm` and `visual_projection`; the stream starts behind `pre_layrnorm`
(spelled so there). Both classes keep the vision tower under the same names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from residual.encoders.anatomy import Anatomy
from residual.encoders.family import Family


def _vision_config(module: Any) -> Any:
    return getattr(module.config, "vision_config", module.config)


def _settings(module: nn.Module) -> str:
    config = _vision_config(module)
    return f"{config.hidden_act} {config.layer_norm_eps} {config.num_attention_heads} {config.patch_size}"


def _encode_image(module: Any, pixels: Tensor) -> Tensor:
    return module.visual_projection(module.vision_model(pixel_values=pixels).pooler_output)


def _encode_text(module: Any, ids: Tensor) -> Tensor:
    return module.text_projection(module.text_model(input_ids=ids).pooler_output)


def _logit_scale(module: Any) -> float:
    return module.logit_scale.item()


_ANATOMY = Anatomy(
    embedding="vision_model.pre_layrnorm",
    blocks="vision_model.encoder.layers",
    attention_output="self_attn.out_proj",
    heads="self_attn.num_heads",
    mlp="mlp",
    final_norm="vision_model.post_layernorm",
    projection="visual_projection",
)

_VISION = Family(
    name="transformers CLIP vision",
    classes=("CLIPVisionModelWithProjection",),
    anatomy=_ANATOMY,
    vision=("vision_model.", "visual_projection."),
    settings=_settings,
    encode_image=_encode_image,
    image_size=lambda module: _vision_config(module).image_size,
)
_BOTH = replace(
    _VISION,
    name="transformers CLIP",
    classes=("CLIPModel",),
    encode_text=_encode_text,
    logit_scale=_logit_scale,
)

FAMILIES = (_BOTH, _VISION)
