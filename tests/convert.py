"""One CLIP's weights as three libraries name them: from open_clip's `CLIP` to transformers and to timm.

The shapes are those of `families.open_clip_model`: both towers of two layers, an MLP four times as wide.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
import torch
import transformers
from timm.layers import QuickGELU
from torch import Tensor

EPS = 1e-5  # of open_clip's LayerNorms; transformers' CLIP has the same, timm's ViT another
LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TIMM_LAYER = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "attn.out_proj": "attn.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def clip_in_transformers(model: Any, activation: str = "gelu", eos: int = 63) -> transformers.CLIPModel:
    """Both towers."""
    text = _layer_settings(model.transformer, activation)
    text |= {"vocab_size": model.vocab_size, "max_position_embeddings": model.context_length}
    text |= {"bos_token_id": 62, "eos_token_id": eos, "pad_token_id": 0}
    output = model.visual.proj.shape[1]
    config = transformers.CLIPConfig(
        text_config=text, vision_config=_vision_settings(model.visual, activation), projection_dim=output
    )
    made = transformers.CLIPModel(config)
    made.load_state_dict({**_vision(model), **_text(model), "logit_scale": model.logit_scale.detach()})
    return made.to(model.logit_scale.dtype).eval()


def vision_in_transformers(
    model: Any, activation: str = "gelu"
) -> transformers.CLIPVisionModelWithProjection:
    """The vision tower alone."""
    settings = _vision_settings(model.visual, activation) | {"projection_dim": model.visual.proj.shape[1]}
    made = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**settings))
    made.load_state_dict(_vision(model))
    return made.to(model.logit_scale.dtype).eval()


def vision_in_timm(model: Any, activation: str = "gelu") -> timm.models.VisionTransformer:
    """The vision tower, its projection as the classifier."""
    visual = model.visual
    own = visual.state_dict()
    width, output = visual.proj.shape
    weights = {
        "cls_token": own["class_embedding"].view(1, 1, -1),
        "pos_embed": own["positional_embedding"][None],
        "patch_embed.proj.weight": own["conv1.weight"],
        **_affine(own, "ln_pre", "norm_pre"),
        **_affine(own, "ln_post", "norm"),
        "head.weight": own["proj"].T,
        "head.bias": torch.zeros(output),
    }
    for index in range(len(visual.transformer.resblocks)):
        source, target = f"transformer.resblocks.{index}", f"blocks.{index}"
        for theirs, ours in TIMM_LAYER.items():
            weights |= _affine(own, f"{source}.{theirs}", f"{target}.{ours}")
        for kind in ("weight", "bias"):
            weights[f"{target}.attn.qkv.{kind}"] = own[f"{source}.attn.in_proj_{kind}"]
    made = timm.models.VisionTransformer(
        img_size=visual.image_size,
        patch_size=visual.patch_size,
        embed_dim=width,
        depth=len(visual.transformer.resblocks),
        num_heads=visual.transformer.resblocks[0].attn.num_heads,
        num_classes=output,
        pre_norm=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=EPS),
        act_layer=QuickGELU if activation == "quick_gelu" else torch.nn.GELU,
    )
    made.load_state_dict(weights)
    return made.to(model.logit_scale.dtype).eval()


def _layer_settings(transformer: Any, activation: str) -> dict[str, Any]:
    block = transformer.resblocks[0]
    return {
        "hidden_size": transformer.width,
        "intermediate_size": block.mlp.c_fc.out_features,
        "num_hidden_layers": len(transformer.resblocks),
        "num_attention_heads": block.attn.num_heads,
        "hidden_act": activation,
        "layer_norm_eps": EPS,
    }


def _vision_settings(visual: Any, activation: str) -> dict[str, Any]:
    sizes = {"image_size": visual.image_size[0], "patch_size": visual.patch_size[0]}
    return _layer_settings(visual.transformer, activation) | sizes


def _vision(model: Any) -> dict[str, Tensor]:
    own = model.visual.state_dict()
    at = "vision_model"
    return {
        f"{at}.embeddings.class_embedding": own["class_embedding"],
        f"{at}.embeddings.position_embedding.weight": own["positional_embedding"],
        f"{at}.embeddings.patch_embedding.weight": own["conv1.weight"],
        **_affine(own, "ln_pre", f"{at}.pre_layrnorm"),  # so spelt there
        **_layers(own, at),
        **_affine(own, "ln_post", f"{at}.post_layernorm"),
        "visual_projection.weight": own["proj"].T.contiguous(),
    }


def _text(model: Any) -> dict[str, Tensor]:
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("visual.")}
    at = "text_model"
    return {
        f"{at}.embeddings.token_embedding.weight": own["token_embedding.weight"],
        f"{at}.embeddings.position_embedding.weight": own["positional_embedding"],
        **_layers(own, at),
        **_affine(own, "ln_final", f"{at}.final_layer_norm"),
        "text_projection.weight": own["text_projection"].T.contiguous(),
    }


def _layers(own: dict[str, Tensor], at: str) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    count = len({name.split(".")[2] for name in own if name.startswith("transformer.resblocks.")})
    for index in range(count):
        source, target = f"transformer.resblocks.{index}", f"{at}.encoder.layers.{index}"
        for theirs, ours in LAYER.items():
            weights |= _affine(own, f"{source}.{theirs}", f"{target}.{ours}")
        for kind in ("weight", "bias"):
            joined = own[f"{source}.attn.in_proj_{kind}"].chunk(3)
            for letter, part in zip("qkv", joined, strict=True):
                weights[f"{target}.self_attn.{letter}_proj.{kind}"] = part
    return weights


def _affine(own: dict[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    return {f"{target}.{kind}": own[f"{source}.{kind}"] for kind in ("weight", "bias")}
