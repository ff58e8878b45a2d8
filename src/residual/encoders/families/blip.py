"""BLIP image-text retrieval as in transformers: the contrastive side, class tokens through `vision_proj`.

Its text tower is a BERT, which norms after each sum: texts are encoded, but can't be split.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from residual.encoders.anatomy import Anatomy
from residual.encoders.family import Family, Tower
from residual.encoders.preprocess import Preprocess
from residual.encoders.transformers_models import activation, image_size, longest, named

_TEXT_LENGTH = 35  # of the retrieval models' training (Li et al. 2022, arXiv 2201.12086, released configs)


def _encode_image(module: Any, pixels: Tensor) -> Tensor:
    return module.vision_proj(named(module.vision_model, pixel_values=pixels).last_hidden_state[:, 0])


def _encode_text(module: Any, ids: Tensor) -> Tensor:
    seen = (ids != module.config.text_config.pad_token_id).long()
    return module.text_proj(
        named(module.text_encoder, input_ids=ids, attention_mask=seen).last_hidden_state[:, 0]
    )


FAMILIES = (
    Family(
        name="transformers BLIP retrieval",
        classes=("transformers.BlipForImageTextRetrieval",),
        image=Tower(
            anatomy=Anatomy(
                blocks="vision_model.encoder.layers",
                attention_output="self_attn.projection",
                heads="self_attn.num_heads",
                mlp="mlp",
                final_norm="vision_model.post_layernorm",
                projection="vision_proj",
            ),
            encode=_encode_image,
            weights=("vision_model.", "vision_proj."),
        ),
        text=Tower(Anatomy("", "", "", "", ""), _encode_text, ("text_encoder.", "text_proj.")),
        no_text_parts="it is a BERT, whose blocks norm after each sum (post-norm)",
        image_size=image_size,
        settings=activation,
        preprocess=lambda module: Preprocess(image_size(module), None),
        tokenize=longest(_TEXT_LENGTH),
        saved_as={"blip": "BlipForImageTextRetrieval"},
        tuning_batch=32,
    ),
)
