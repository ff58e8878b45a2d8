"""SigLIP 2 with patches of any number (NaFlex) as in transformers; those of one size are in SigLIP's form.

A picture may have any whole number of patches in height and width, all of a batch the same. `preprocess`
makes a square of as many patches as the model was trained with at most, and warns of pictures that aren't:
forms of their own would need a mask at every token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from residual.encoders.families import siglip
from residual.encoders.preprocess import HALF, Squared
from residual.encoders.transformers_models import activation, named

_BOTH, _VISION = siglip.FAMILIES


def _encode(vision: Any, pixels: Tensor) -> Tensor:
    side = vision.config.patch_size
    rows, columns = (length // side for length in pixels.shape[2:])
    whole = pixels[:, :, : rows * side, : columns * side]
    cut = whole.unflatten(3, (columns, side)).unflatten(2, (rows, side))  # (n, 3, rows, side, columns, side)
    patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (n, rows columns, side side 3)
    shapes = torch.tensor([[rows, columns]], device=pixels.device).expand(len(pixels), 2)
    return named(vision, patches, None, shapes).pooler_output  # None: no patch is padding


def _square(module: Any) -> Squared:
    vision = getattr(module.config, "vision_config", module.config)
    return Squared.of(vision.num_patches, vision.patch_size, interpolation=2, mean=HALF, std=HALF)


def _any_size(module: Any) -> None:
    return None


FAMILIES = (
    replace(
        _BOTH,
        name="transformers SigLIP 2",
        classes=("transformers.Siglip2Model",),
        image=replace(_BOTH.image, encode=lambda module, pixels: _encode(module.vision_model, pixels)),
        image_size=_any_size,
        settings=activation,
        preprocess=_square,
        saved_as={"siglip2": "Siglip2Model"},
    ),
    replace(
        _VISION,
        name="transformers SigLIP 2 vision",
        classes=("transformers.Siglip2VisionModel",),
        image=replace(_VISION.image, encode=_encode),
        image_size=_any_size,
        settings=activation,
        preprocess=_square,
        saved_as={"siglip2_vision_model": "Siglip2VisionModel"},
    ),
)
