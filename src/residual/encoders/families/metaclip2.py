"""MetaCLIP 2 as in transformers: CLIP's parts under names of its own, and texts in many languages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from residual.encoders.families import clip
from residual.encoders.pooling import EndPool


def _end(module: Any, ids: Tensor) -> Tensor:
    """Where the first end-of-text token is, whatever its id (2 in the released weights)."""
    return (ids == module.config.text_config.eos_token_id).int().argmax(-1)


_BOTH, _VISION, _FEATURES = clip.FAMILIES
_TEXT = clip.TEXT

FAMILIES = (
    replace(
        _BOTH,
        name="transformers MetaCLIP 2",
        classes=("transformers.MetaClip2Model",),
        text=replace(_TEXT, anatomy=replace(_TEXT.anatomy, pool=EndPool(_end))),
        saved_as={"metaclip_2": "MetaClip2Model"},
    ),
    replace(
        _VISION,
        name="transformers MetaCLIP 2 vision",
        classes=("transformers.MetaClip2VisionModelWithProjection",),
        saved_as={"metaclip_2_vision_model": "MetaClip2VisionModelWithProjection"},
    ),
    replace(
        _FEATURES,
        name="transformers MetaCLIP 2 vision without projection",
        classes=("transformers.MetaClip2VisionModel",),
        saved_as={"metaclip_2_vision_model": "MetaClip2VisionModel"},
    ),
)
