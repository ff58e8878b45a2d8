"""The encoder that the adapters in `old/` are of: its weights are the same on every machine."""

from __future__ import annotations

import numpy as np
import torch
from tiny import tiny_clip

from residual.encoders.encoder import Encoder
from residual.encoders.load import wrap_encoder


def old_encoder() -> Encoder:
    """Weights are multiples of 1/256 from numpy's generator, so that no rounding can change them."""
    module = tiny_clip(dtype=torch.float32, layers=2, heads=2, head_width=4, image=16, patch=8, output=6)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in module.parameters():
            values = rng.integers(-256, 257, parameter.shape) / 256
            parameter.copy_(torch.from_numpy(np.asarray(values)))
    return wrap_encoder(module, name="tiny")


def old_pixels() -> torch.Tensor:
    """Three pictures, as exact as the weights."""
    return torch.from_numpy(np.random.default_rng(1).integers(-256, 257, (3, 3, 16, 16)) / 256).float()
