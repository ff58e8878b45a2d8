"""What transformers' configs say of a vision model, alone or inside a model with text."""

from __future__ import annotations

from typing import Any


def vision_config(module: Any) -> Any:
    """The vision part of a model's config."""
    return getattr(module.config, "vision_config", module.config)


def image_size(module: Any) -> tuple[int, int]:
    """`(height, width)` of its images."""
    size = vision_config(module).image_size
    return (size, size) if isinstance(size, int) else tuple(size)


def activation(module: Any) -> str:
    """The function between the layers of its MLPs."""
    return vision_config(module).hidden_act


def logit_scale(module: Any) -> float:
    """The logarithm of the factor on cosines."""
    return module.logit_scale.item()
