"""A tiny random model of every family, built from its config: norms, biases, scales far from defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import open_clip
import timm
import torch
import torchvision
import transformers
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from tiny import tiny_clip, tiny_vision

IMAGE, PATCH = 32, 16
PATCHES = (IMAGE // PATCH) ** 2


@dataclass(frozen=True)
class Case:
    """A model of a family, and what the library must find in it.

    `pool` says that it pools in a way of its own, without an MLP; `allowed`, how far its own library's output
    may be from the sum of units in float64, since AIMv2's norms round to float32.
    """

    make: Callable[..., torch.nn.Module]
    prefix: int = 1
    class_token: bool = True
    pool_mlp: bool = False
    pool: bool = False
    allowed: float = 1e-12
    text: bool = False
    output: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] | None = None


def randomized(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Matrices of unit gain, vectors of order one, weights of norms and layer scales around one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.endswith(("logit_scale", "logit_bias")):
                continue
            noise = torch.randn(value.shape, generator=generator)
            around_one = ("norm" in name or "ln_" in name) and name.endswith("weight")
            if around_one or name.endswith(
                (".gamma", ".lambda1", "gamma_1", "gamma_2", "lambda_1", "lambda_2")
            ):
                value.copy_(1 + 0.5 * noise)
            elif value.ndim < 2:
                value.copy_(0.5 * noise)
            else:
                value.copy_(noise / value[0].numel() ** 0.5)
    return module.eval()


def open_clip_model(layers: int = 2, heads: int = 3, width: int = 24, seed: int = 0, **vision: Any) -> Any:
    quick = vision.pop("quick_gelu", False)
    custom = vision.pop("custom_text", False)
    text = {"context_length": 10, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2}
    text |= vision.pop("text", {})
    config = {"layers": layers, "width": width, "head_width": width // heads}
    size = vision.pop("image_size", IMAGE)
    vision_cfg = CLIPVisionCfg(image_size=size, patch_size=PATCH, **(config | vision))
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    return randomized(kind(12, vision_cfg, CLIPTextCfg(**text), quick_gelu=quick), seed)


def timm_model(layers: int = 2, heads: int = 3, width: int = 24, seed: int = 0, **how: Any) -> Any:
    size, kind = how.pop("image_size", IMAGE), how.pop("kind", timm.models.VisionTransformer)
    settings = {
        "img_size": size,
        "patch_size": PATCH,
        "embed_dim": width,
        "depth": layers,
        "num_heads": heads,
    }
    settings |= {"num_classes": 0}
    return randomized(kind(**(settings | how)), seed)


def deit_model(layers: int = 2, heads: int = 3, width: int = 24, seed: int = 0, **how: Any) -> Any:
    return timm_model(layers, heads, width, seed, kind=timm.models.deit.VisionTransformerDistilled, **how)


def eva_model(**how: Any) -> Any:
    return timm_model(kind=timm.models.Eva, **how)


def _vision_settings(layers: int, heads: int, width: int, size: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": size,
        "patch_size": PATCH,
    }


def transformers_model(
    kind: str,
    layers: int = 2,
    heads: int = 3,
    width: int = 24,
    image_size: int = IMAGE,
    seed: int = 0,
    **how: Any,
) -> Any:
    """Of the class `kind`."""
    vision = _vision_settings(layers, heads, width, image_size)
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 64,
        "max_position_embeddings": how.pop("positions", 10),
    }
    if kind.startswith(("Beit", "Data2VecVision")):
        name, how = kind.partition("Model")[0].partition("For")[0], {"layer_scale_init_value": 0.1} | how
        config = getattr(transformers, f"{name}Config")(**vision, **how)
    elif kind.startswith(("ViT", "DeiT")):
        config = getattr(transformers, f"{kind[:3] if kind[0] == 'V' else kind[:4]}Config")(**vision, **how)
    elif kind == "DINOv3ViTModel":
        config = transformers.DINOv3ViTConfig(**vision, **how)
    elif kind in ("MetaClip2Model", "Aimv2Model"):
        text |= {"eos_token_id": 63} | ({"pad_token_id": 0} if kind[0] == "M" else {})
        name = kind.removesuffix("Model")
        config = getattr(transformers, f"{name}Config")(
            text_config=text, vision_config=vision, projection_dim=12
        )
    elif kind.startswith(("MetaClip2VisionModel", "Aimv2VisionModel", "CLIPVisionModel")):
        config = getattr(transformers, f"{kind.partition('Model')[0]}Config")(**vision, **how)
    elif kind.startswith("Siglip2"):
        vision |= {"num_patches": (image_size // PATCH) ** 2}
        text |= {"projection_size": width}
        if kind == "Siglip2Model":
            config = transformers.Siglip2Config(text_config=text, vision_config=vision)
        else:
            config = transformers.Siglip2VisionConfig(**vision)
    elif kind == "Dinov2WithRegistersModel":
        config = transformers.Dinov2WithRegistersConfig(**vision, **how)
    elif kind == "Dinov2Model":
        config = transformers.Dinov2Config(**vision, **how)
    elif kind == "SiglipVisionModel":
        config = transformers.SiglipVisionConfig(**vision, **how)
    elif kind == "SiglipModel":
        config = transformers.SiglipConfig(
            text_config=text | {"projection_size": width}, vision_config=vision
        )
    elif kind == "BlipForImageTextRetrieval":
        text |= {"encoder_hidden_size": width, "pad_token_id": 0, "bos_token_id": 1, "sep_token_id": 2}
        config = transformers.BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=12)
    more = {"add_pooling_layer": True} if kind == "Data2VecVisionModel" else {}
    return randomized(getattr(transformers, kind)(config, **more), seed)


def beit_model(**how: Any) -> Any:
    return timm_model(kind=timm.models.Beit, **how)


def torchvision_model(
    layers: int = 2, heads: int = 3, width: int = 24, image_size: int = IMAGE, seed: int = 0, **how: Any
) -> Any:
    sizes = {"num_layers": layers, "num_heads": heads, "hidden_dim": width, "mlp_dim": 2 * width}
    sizes |= {"image_size": image_size, "patch_size": PATCH}
    return randomized(torchvision.models.VisionTransformer(**(sizes | {"num_classes": 7} | how)), seed)


def _clip(
    make: Callable[..., Any],
    layers: int = 2,
    heads: int = 3,
    width: int = 24,
    image_size: int = IMAGE,
    seed: int = 0,
) -> Any:
    sizes = {"layers": layers, "heads": heads, "head_width": width // heads, "image": image_size}
    return randomized(make(dtype=torch.float32, patch=PATCH, **sizes), seed)


CASES: dict[str, Case] = {
    "clip": Case(partial(_clip, tiny_clip), text=True),
    "clip vision": Case(partial(_clip, tiny_vision)),
    "clip vision without projection": Case(partial(transformers_model, "CLIPVisionModel")),
    "open_clip": Case(open_clip_model, text=True),
    "open_clip quick-gelu": Case(partial(open_clip_model, quick_gelu=True), text=True),
    "open_clip layer scale": Case(partial(open_clip_model, ls_init_value=0.1), text=True),
    "open_clip average": Case(partial(open_clip_model, pool_type="avg"), text=True),
    "open_clip norm after average": Case(
        partial(open_clip_model, pool_type="avg", final_ln_after_pool=True, no_ln_pre=True), text=True
    ),
    "open_clip custom text": Case(
        partial(
            open_clip_model,
            custom_text=True,
            text={"pool_type": "last", "proj_bias": True, "no_causal_mask": True},
        ),
        text=True,
    ),
    "open_clip text eos": Case(
        partial(open_clip_model, custom_text=True, text={"pool_type": "eos", "eos_id": 63}), text=True
    ),
    "open_clip visual": Case(lambda **how: open_clip_model(**how).visual),
    "siglip": Case(
        partial(transformers_model, "SiglipModel"), prefix=0, class_token=False, pool_mlp=True, text=True
    ),
    "siglip vision": Case(
        partial(transformers_model, "SiglipVisionModel"), prefix=0, class_token=False, pool_mlp=True
    ),
    "blip": Case(partial(transformers_model, "BlipForImageTextRetrieval")),
    "vit": Case(partial(transformers_model, "ViTModel")),
    "vit classifier": Case(partial(transformers_model, "ViTForImageClassification", num_labels=7)),
    "vit without biases": Case(partial(transformers_model, "ViTModel", qkv_bias=False)),
    "dinov2": Case(partial(transformers_model, "Dinov2Model")),
    "dinov2 swiglu": Case(partial(transformers_model, "Dinov2Model", use_swiglu_ffn=True)),
    "dinov2 registers": Case(
        partial(transformers_model, "Dinov2WithRegistersModel", num_register_tokens=3), prefix=4
    ),
    "timm": Case(timm_model),
    "timm classifier": Case(partial(timm_model, num_classes=7)),
    "timm layer scale, registers": Case(
        partial(timm_model, init_values=0.1, reg_tokens=2, no_embed_class=True), prefix=3
    ),
    "timm norm after average": Case(partial(timm_model, global_pool="avg", num_classes=7)),
    "timm average of normed": Case(partial(timm_model, global_pool="avg", fc_norm=False)),
    "timm average, no class token": Case(
        partial(timm_model, global_pool="avg", class_token=False), prefix=0, class_token=False
    ),
    "timm average of all": Case(partial(timm_model, global_pool="avg", pool_include_prefix=True)),
    "timm class token, norm after": Case(partial(timm_model, fc_norm=True)),
    "timm pre-norm": Case(partial(timm_model, pre_norm=True, qk_norm=True, scale_attn_norm=True)),
    "timm attention pool": Case(
        partial(timm_model, global_pool="map", class_token=False, num_classes=5),
        prefix=0,
        class_token=False,
        pool_mlp=True,
    ),
    "metaclip2": Case(partial(transformers_model, "MetaClip2Model"), text=True),
    "siglip2": Case(
        partial(transformers_model, "Siglip2Model"), prefix=0, class_token=False, pool_mlp=True, text=True
    ),
    "dinov3": Case(
        partial(transformers_model, "DINOv3ViTModel", num_register_tokens=2, use_gated_mlp=True), prefix=3
    ),
    "aimv2": Case(
        partial(transformers_model, "Aimv2Model"),
        prefix=0,
        class_token=False,
        pool=True,
        allowed=1e-6,
        text=True,
    ),
    "aimv2 vision average": Case(
        partial(transformers_model, "Aimv2VisionModel", use_head=False),
        prefix=0,
        class_token=False,
        allowed=1e-6,
    ),
    "deit": Case(partial(transformers_model, "DeiTModel"), prefix=2),
    "deit classifiers": Case(
        partial(transformers_model, "DeiTForImageClassificationWithTeacher", num_labels=7),
        prefix=2,
        pool=True,
    ),
    "deit classifier": Case(
        partial(transformers_model, "DeiTForImageClassification", num_labels=7), prefix=2
    ),
    "beit": Case(
        partial(
            transformers_model, "BeitForImageClassification", use_relative_position_bias=True, num_labels=7
        )
    ),
    "beit class token": Case(
        partial(
            transformers_model,
            "BeitModel",
            use_mean_pooling=False,
            use_shared_relative_position_bias=True,
            use_absolute_position_embeddings=True,
            layer_scale_init_value=0.0,
        )
    ),
    "data2vec": Case(partial(transformers_model, "Data2VecVisionModel", use_relative_position_bias=True)),
    "timm beit": Case(partial(beit_model, use_rel_pos_bias=True, init_values=0.1, num_classes=7)),
    "timm beit class token": Case(
        partial(beit_model, global_pool="token", use_shared_rel_pos_bias=True, swiglu_mlp=True)
    ),
    "torchvision": Case(torchvision_model),
    "timm deit": Case(deit_model, prefix=2, pool=True),
    "timm deit classifiers": Case(partial(deit_model, num_classes=7), prefix=2, pool=True),
    "timm aimv2 average": Case(
        partial(
            timm_model,
            global_pool="avg",
            class_token=False,
            fc_norm=False,
            qkv_bias=False,
            proj_bias=False,
            act_layer="silu",
            norm_layer=timm.layers.RmsNorm,
            embed_norm_layer=timm.layers.RmsNorm,
            mlp_layer=timm.layers.SwiGLU,
        ),
        prefix=0,
        class_token=False,
    ),
    "eva02": Case(
        partial(
            eva_model,
            global_pool="token",
            qkv_fused=False,
            swiglu_mlp=True,
            scale_mlp=True,
            scale_attn_inner=True,
            use_rot_pos_emb=True,
            ref_feat_shape=(3, 3),
            num_classes=7,
        )
    ),
    "eva average": Case(partial(eva_model, init_values=0.1)),
    "eva dinov3 average": Case(
        partial(
            eva_model,
            dynamic_img_size=True,
            qkv_bias=False,
            init_values=0.1,
            rope_type="dinov3",
            rope_temperature=100,
            rope_rotate_half=True,
            use_rot_pos_emb=True,
            use_abs_pos_emb=False,
            num_reg_tokens=2,
            use_fc_norm=False,
        ),
        prefix=3,
    ),
    "eva perception": Case(
        partial(
            eva_model,
            global_pool="map",
            attn_type="rope",
            use_pre_transformer_norm=True,
            use_rot_pos_emb=True,
            ref_feat_shape=(3, 3),
            rope_grid_offset=1.0,
            rope_grid_indexing="xy",
            attn_pool_num_heads=4,
            num_classes=7,
        ),
        pool_mlp=True,
    ),
    "timm attention pool past a class token": Case(partial(timm_model, global_pool="map"), pool_mlp=True),
}
SPLIT_TEXT = [name for name, case in CASES.items() if case.text]
