"""BEiT as in transformers (and Data2Vec's vision model, which is one) and in timm.

Its attention adds a bias for how two patches lie to each other, and its keys have none of their own. It pools
the average of its patches, normed after, or its class token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from residual.encoders.anatomy import Anatomy
from residual.encoders.families import timm, vit
from residual.encoders.family import Family, Tower
from residual.encoders.paths import at, follow
from residual.encoders.pooling import CLASS_TOKEN, MeanPool
from residual.encoders.preprocess import HALF, Preprocess
from residual.encoders.transformers_models import image_size, named
from residual.errors import ResidualError

_ANATOMY = replace(vit.ANATOMY, attention_scale="lambda_1", mlp_scale="lambda_2")
_SETTINGS = ("hidden_act", "use_mean_pooling")


def _adjusted(module: Any, anatomy: Anatomy) -> Anatomy:
    """With layer scales, if there are any, and the norm of what is pooled."""
    mean, (first, *_) = module.config.use_mean_pooling, follow(module, anatomy.blocks)
    return replace(
        anatomy,
        **_scales(first, attention_scale="lambda_1", mlp_scale="lambda_2"),
        final_norm=_norms(anatomy)[mean],
        pool=MeanPool(1, norm_first=False) if mean else CLASS_TOKEN,
    )


def _norms(anatomy: Anatomy) -> tuple[str, str]:
    """Of the class token, and of the average."""
    place = str(anatomy.final_norm).rpartition("layernorm")[0]
    return f"{place}layernorm", f"{place}pooler.layernorm"


def _scales(block: Any, **paths: str) -> dict[str, Any]:
    return {name: path if isinstance(at(block, path), Tensor) else None for name, path in paths.items()}


def _encode(module: Any, pixels: Tensor) -> Tensor:
    """The pooler averages and norms; a class token it only hands on, and may be left out."""
    output = named(module, pixel_values=pixels)
    return output.last_hidden_state[:, 0] if module.pooler is None else output.pooler_output


def _timm_anatomy(module: Any, anatomy: Anatomy) -> Anatomy:
    if module.global_pool not in ("avg", "token"):
        raise ResidualError(
            f"Beit can't be split: it pools by {module.global_pool!r}, which is no pooling. Can be split: "
            "avg, token (timm.create_model(…, global_pool=…))."
        )
    after = type(module.norm).__name__ == "Identity"
    return replace(
        anatomy,
        **_scales(module.blocks[0], attention_scale="gamma_1", mlp_scale="gamma_2"),
        final_norm="fc_norm" if after else "norm",
        projection="head" if module.num_classes else None,
        pool=MeanPool(1, norm_first=not after) if module.global_pool == "avg" else CLASS_TOKEN,
    )


_FEATURES = Family(
    name="transformers BEiT",
    classes=("transformers.BeitModel", "transformers.Data2VecVisionModel"),
    image=Tower(_ANATOMY, _encode, adjust=_adjusted),
    image_size=image_size,
    settings=lambda module: " ".join(str(getattr(module.config, name)) for name in _SETTINGS),
    preprocess=lambda module: Preprocess(image_size(module), None, mean=HALF, std=HALF),
    saved_as={"beit": "BeitModel", "data2vec-vision": "Data2VecVisionModel"},
)


def _logits(part: str, kind: str, saved: str) -> Family:
    """The model at `part` of one with a classifier behind it."""
    return replace(
        _FEATURES,
        name=f"{_FEATURES.name} with classifier ({part})",
        classes=(f"transformers.{kind}",),
        image=Tower(
            replace(_ANATOMY.under(part), projection="classifier"),
            lambda module, pixels: module.classifier(_encode(getattr(module, part), pixels)),
            adjust=_adjusted,
        ),
        saved_as={},
        saved_with_classifier={saved: kind},
    )


_TIMM = replace(
    timm.FAMILIES[0],
    name="timm Beit",
    classes=("timm.Beit",),
    image=Tower(timm.ANATOMY, timm.FAMILIES[0].image.encode, adjust=_timm_anatomy),
    image_size=lambda module: module.patch_embed.img_size,
    settings=lambda module: f"{getattr(module.blocks[0].mlp, 'act', '')!r}",
)

FAMILIES = (
    _FEATURES,
    _logits("beit", "BeitForImageClassification", "beit"),
    _logits("data2vec_vision", "Data2VecVisionForImageClassification", "data2vec-vision"),
    _TIMM,
)
