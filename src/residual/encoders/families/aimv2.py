"""AIMv2 as in transformers: RMS norms, gated MLPs; an average of normed tokens, or an attention pool (LiT).

timm's AIMv2 is one of its `VisionTransformer`s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from residual.encoders.anatomy import Anatomy
from residual.encoders.family import Family, Tower
from residual.encoders.pooling import AttentionPool, EndPool, MeanPool, PoolingAttention, softmax, value_maps
from residual.encoders.preprocess import Preprocess
from residual.encoders.transformers_models import activation, image_size, logit_scale, named, padded
from residual.encoders.wrappers import affine


class _HeadPool(PoolingAttention):
    """A class token that is the query itself; nothing is added behind."""

    needs = ("cls_token", "k_proj", "v_proj", "output_proj")

    @classmethod
    def missing(cls, module: Any) -> list[str]:
        found = super().missing(module)
        return found if found or module.num_heads > 1 else ["num_heads (1, expected several)"]

    @property
    def output_dim(self) -> int:
        return self.module.output_proj.out_features

    def weights(self, tokens: Tensor) -> Tensor:
        split = (self.module.num_heads, -1)
        keys = self.module.k_proj.forward(tokens)
        return softmax(self.module.cls_token[0, 0].unflatten(-1, split), keys.unflatten(-1, split))

    def maps(self) -> tuple[Tensor, Tensor]:
        weight, bias = affine(self.module.v_proj)
        return value_maps(weight.T, bias, self.module.output_proj, self.module.num_heads)


_LAYERS = Anatomy(
    blocks="encoder.layers",
    attention_output="attention.out_proj",
    heads="attention.num_heads",
    mlp="ffn",
    final_norm="rms_norm",
    prefix=0,
    class_token=False,
)


def _adjusted(module: Any, anatomy: Anatomy) -> Anatomy:
    if _vision_model(module).use_head:
        return anatomy
    return replace(anatomy, pool=MeanPool(0, norm_first=True))


def _vision_model(module: Any) -> Any:
    return getattr(module, "vision_model", module)


def _encode_image(module: Any, pixels: Tensor) -> Tensor:
    vision = _vision_model(module)
    seen = named(vision, pixel_values=pixels)
    pooled = seen.pooler_output if vision.use_head else seen.last_hidden_state.mean(1)
    return module.visual_projection(pooled) if vision is not module else pooled


def _encode_text(module: Any, ids: Tensor) -> Tensor:
    """With the mask that texts were trained with, which the model makes of a tokenizer's mask only."""
    ahead = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)
    kind = module.text_projection.weight.dtype
    mask = torch.zeros_like(ahead, dtype=kind).masked_fill(ahead, torch.finfo(kind).min)
    mask = mask.expand(len(ids), 1, -1, -1)
    return module.text_projection(named(module.text_model, input_ids=ids, attention_mask=mask).pooler_output)


def _end(module: Any, ids: Tensor) -> Tensor:
    return (ids == module.config.text_config.eos_token_id).int().argmax(-1)


_VISION = Family(
    name="transformers AIMv2 vision",
    classes=("transformers.Aimv2VisionModel",),
    image=Tower(replace(_LAYERS, pool=AttentionPool("head", _HeadPool)), _encode_image, adjust=_adjusted),
    image_size=lambda module: None if _vision_model(module).config.is_native else image_size(module),
    settings=activation,
    preprocess=lambda module: Preprocess.square(image_size(module)[0]),
    saved_as={"aimv2_vision_model": "Aimv2VisionModel"},
)
_BOTH = replace(
    _VISION,
    name="transformers AIMv2",
    classes=("transformers.Aimv2Model",),
    image=Tower(
        anatomy=replace(_VISION.image.anatomy.under("vision_model"), projection="visual_projection"),
        encode=_encode_image,
        weights=("vision_model.", "visual_projection."),
        adjust=_adjusted,
    ),
    text=Tower(
        anatomy=replace(_LAYERS.under("text_model"), projection="text_projection", pool=EndPool(_end)),
        encode=_encode_text,
        weights=("text_model.", "text_projection."),
    ),
    logit_scale=logit_scale,
    tokenize=padded,
    saved_as={"aimv2": "Aimv2Model"},
)

FAMILIES = (_BOTH, _VISION)
