"""SigLIP as in transformers: no class token, but an attention pool with an MLP of its own.

A text's last token is pooled, padding or not. SigLIP 2 checkpoints of a fixed resolution are saved in the
same form.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from residual.encoders.anatomy import Anatomy
from residual.encoders.family import Family, Tower
from residual.encoders.pooling import AttentionPool, ProbePool, TokenPool
from residual.encoders.preprocess import HALF, Preprocess
from residual.encoders.transformers_models import (
    Tokenize,
    activation,
    image_size,
    logit_scale,
    named,
    padded,
)


def _tokenize(tokenizer: Any, module: Any) -> Tokenize:
    """In lower case and padded behind, as all SigLIPs were trained: its own tokenizer sees to that, those
    that SigLIP 2 comes with may not.
    """
    return padded(tokenizer, module, lower=True, padding_side="right")


_LAYERS = Anatomy(
    blocks="encoder.layers",
    attention_output="self_attn.out_proj",
    heads="self_attn.num_heads",
    mlp="mlp",
    final_norm="post_layernorm",
    pool=AttentionPool("head", ProbePool),
    prefix=0,
    class_token=False,
)
_VISION = Family(
    name="transformers SigLIP vision",
    classes=("transformers.SiglipVisionModel",),
    image=Tower(
        anatomy=replace(
            _LAYERS,
            blocks=("encoder.layers", "vision_model.encoder.layers"),
            final_norm=("post_layernorm", "vision_model.post_layernorm"),
            pool=AttentionPool(("head", "vision_model.head"), ProbePool),
        ),
        encode=lambda module, pixels: named(module, pixel_values=pixels).pooler_output,
    ),
    image_size=image_size,
    settings=activation,
    preprocess=lambda module: Preprocess(image_size(module), None, mean=HALF, std=HALF),
    saved_as={"siglip_vision_model": "SiglipVisionModel"},
)
_BOTH = replace(
    _VISION,
    name="transformers SigLIP",
    classes=("transformers.SiglipModel",),
    image=Tower(
        anatomy=_LAYERS.under("vision_model"),
        encode=lambda module, pixels: named(module.vision_model, pixel_values=pixels).pooler_output,
        weights=("vision_model.",),
    ),
    text=Tower(
        anatomy=replace(_LAYERS, final_norm="final_layer_norm", projection="head", pool=TokenPool(-1)).under(
            "text_model"
        ),
        encode=lambda module, ids: named(module.text_model, input_ids=ids).pooler_output,
        weights=("text_model.",),
    ),
    logit_scale=logit_scale,
    tokenize=_tokenize,
    saved_as={"siglip": "SiglipModel"},
)

FAMILIES = (_BOTH, _VISION)
