"""CLIP as in transformers: both towers, or the vision one, with its projection or without.

The class token goes through `post_layernorm` and `visual_projection`. A text's end-of-text token goes through
`final_layer_norm` and `text_projection`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from residual.encoders.anatomy import Anatomy
from residual.encoders.family import Family, Tower
from residual.encoders.pooling import EndPool
from residual.encoders.preprocess import Preprocess
from residual.encoders.transformers_models import (
    MASKS_IN_DEFAULT_DTYPE,
    activation,
    image_size,
    logit_scale,
    named,
    padded,
)
from residual.errors import ResidualError

_LEGACY_EOS = 2  # configs from before the end-of-text token was written down: there it is the largest id


def _end(module: Any, ids: Tensor) -> Tensor:
    end = module.config.text_config.eos_token_id
    return (ids if end == _LEGACY_EOS else (ids == end).int()).argmax(-1)


def _encode_text(module: Any, ids: Tensor) -> Tensor:
    usual, own = torch.get_default_dtype(), module.text_projection.weight.dtype
    if MASKS_IN_DEFAULT_DTYPE and torch.finfo(own).max > torch.finfo(usual).max:
        raise ResidualError(
            f"transformers before 5 can't mask texts in {str(own).removeprefix('torch.')}.",
            "Say torch.set_default_dtype(torch.float64) before, take float32, or update transformers.",
        )
    return module.text_projection(named(module.text_model, input_ids=ids).pooler_output)


_LAYERS = Anatomy(
    blocks="encoder.layers",
    attention_output="self_attn.out_proj",
    heads="self_attn.num_heads",
    mlp="mlp",
    final_norm="post_layernorm",
)
_VISION = Family(
    name="transformers CLIP vision",
    classes=("transformers.CLIPVisionModelWithProjection",),
    image=Tower(
        anatomy=replace(_LAYERS.under("vision_model"), projection="visual_projection"),
        encode=lambda module, pixels: module.visual_projection(
            named(module.vision_model, pixel_values=pixels).pooler_output
        ),
        weights=("vision_model.", "visual_projection."),
    ),
    image_size=image_size,
    settings=activation,
    preprocess=lambda module: Preprocess.square(image_size(module)[0]),
    saved_as={"clip_vision_model": "CLIPVisionModelWithProjection"},
)
TEXT = Tower(
    anatomy=replace(
        _LAYERS,
        blocks="text_model.encoder.layers",
        final_norm="text_model.final_layer_norm",
        projection="text_projection",
        pool=EndPool(_end),
        prefix=0,
        class_token=False,
    ),
    encode=_encode_text,
    weights=("text_model.", "text_projection."),
)
_FEATURES = replace(
    _VISION,
    name="transformers CLIP vision without projection",
    classes=("transformers.CLIPVisionModel",),
    image=Tower(
        anatomy=replace(
            _LAYERS,
            blocks=("encoder.layers", "vision_model.encoder.layers"),
            final_norm=("post_layernorm", "vision_model.post_layernorm"),
        ),
        encode=lambda module, pixels: named(module, pixel_values=pixels).pooler_output,
    ),
    saved_as={"clip_vision_model": "CLIPVisionModel"},
)
_BOTH = replace(
    _VISION,
    name="transformers CLIP",
    classes=("transformers.CLIPModel",),
    text=TEXT,
    logit_scale=logit_scale,
    tokenize=padded,
    saved_as={"clip": "CLIPModel"},
)

FAMILIES = (_BOTH, _VISION, _FEATURES)
