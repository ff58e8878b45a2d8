"""ViT as in transformers: `ViTModel` gives the normed class token, `ViTForImageClassification` the logits."""

from __future__ import annotations

from dataclasses import replace

from residual.encoders.anatomy import Anatomy
from residual.encoders.family import Family, Tower
from residual.encoders.preprocess import HALF, Preprocess
from residual.encoders.transformers_models import activation, image_size, named

ANATOMY = Anatomy(
    blocks=("layers", "encoder.layer"),
    attention_output=("attention.o_proj", "attention.output.dense"),
    heads=("attention.num_attention_heads", "attention.attention.num_attention_heads"),
    mlp=("mlp", "output.dense"),
    final_norm="layernorm",
)
FEATURES = Family(
    name="transformers ViT",
    classes=("transformers.ViTModel",),
    image=Tower(
        anatomy=ANATOMY,
        encode=lambda module, pixels: named(module, pixel_values=pixels).last_hidden_state[:, 0],
        weights=("embeddings.", "layers.", "encoder.", "layernorm."),
    ),
    image_size=image_size,
    settings=activation,
    preprocess=lambda module: Preprocess(image_size(module), None, interpolation=2, mean=HALF, std=HALF),
    saved_as={"vit": "ViTModel"},
)
_LOGITS = replace(
    FEATURES,
    name="transformers ViT with classifier",
    classes=("transformers.ViTForImageClassification",),
    image=Tower(
        anatomy=replace(ANATOMY.under("vit"), projection="classifier"),
        encode=lambda module, pixels: module.classifier(FEATURES.image.encode(module.vit, pixels)),
    ),
    saved_as={},
    saved_with_classifier={"vit": "ViTForImageClassification"},
)

FAMILIES = (FEATURES, _LOGITS)
