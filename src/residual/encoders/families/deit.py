"""DeiT as in transformers, and with its distillation token in timm, too.

Logits are the average of two classifiers, one of the class token and one of the distillation token. Without
them timm averages the two tokens; transformers' `DeiTModel` leaves them, and the class token is taken.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from residual.encoders.anatomy import Anatomy
from residual.encoders.families import timm, vit
from residual.encoders.family import Tower
from residual.encoders.pooling import AttentionPool, MeanPool, TokenHeads
from residual.encoders.preprocess import HALF, Preprocess
from residual.encoders.transformers_models import image_size, named


class _TimmHeads(TokenHeads):
    needs = ("head", "head_dist")


class _Classifiers(TokenHeads):
    needs = ("cls_classifier", "distillation_classifier")


def _timm_anatomy(module: Any, anatomy: Anatomy) -> Anatomy:
    pool = AttentionPool("", _TimmHeads, 0, 2) if module.num_classes else MeanPool(0, True, 2)
    return replace(anatomy, pool=pool)


def _logits(module: Any, pixels: Tensor) -> Tensor:
    first, second = named(module.deit, pixel_values=pixels).last_hidden_state[:, :2].unbind(1)
    return (module.cls_classifier(first) + module.distillation_classifier(second)) / 2


def _preprocess(module: Any) -> Preprocess:
    """An eighth is cut off."""
    crop = image_size(module)
    height, width = (side * 8 // 7 for side in crop)
    return Preprocess((height, width), crop, mean=HALF, std=HALF)


_ANATOMY = replace(vit.ANATOMY, prefix=2)
_FEATURES = replace(
    vit.FEATURES,
    name="transformers DeiT",
    classes=("transformers.DeiTModel",),
    image=replace(vit.FEATURES.image, anatomy=_ANATOMY),
    preprocess=_preprocess,
    saved_as={"deit": "DeiTModel"},
)
_LOGITS = replace(
    _FEATURES,
    name="transformers DeiT with both classifiers",
    classes=("transformers.DeiTForImageClassificationWithTeacher",),
    image=Tower(
        anatomy=replace(_ANATOMY.under("deit"), pool=AttentionPool("", _Classifiers, 0, 2)),
        encode=_logits,
    ),
    saved_as={},
    saved_with_classifier={"deit": "DeiTForImageClassificationWithTeacher"},
)
_OF_CLASS_TOKEN = replace(
    _FEATURES,
    name="transformers DeiT with the classifier of its class token",
    classes=("transformers.DeiTForImageClassification",),
    image=Tower(
        anatomy=replace(_ANATOMY.under("deit"), projection="classifier"),
        encode=lambda module, pixels: module.classifier(_FEATURES.image.encode(module.deit, pixels)),
    ),
    saved_as={},
    saved_with_classifier={"deit": "DeiTForImageClassification"},
)
_TIMM = replace(
    timm.FAMILIES[0],
    name="timm DeiT with a distillation token",
    classes=("timm.VisionTransformerDistilled",),
    image=Tower(
        anatomy=replace(timm.ANATOMY, prefix=2),
        encode=timm.FAMILIES[0].image.encode,
        adjust=_timm_anatomy,
    ),
)

FAMILIES = (_TIMM, _FEATURES, _LOGITS, _OF_CLASS_TOKEN)
