"""Load a vision (and text) encoder by name; one file a family, each declares its Anatomy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residual.encoders.names import ALIASES
from residual.libraries import lazily

if TYPE_CHECKING:
    from residual.encoders.anatomy import Anatomy
    from residual.encoders.encoder import Encoder
    from residual.encoders.family import Family, Tower
    from residual.encoders.load import load_encoder, wrap_encoder
    from residual.encoders.pooling import AttentionPool, EndPool, MeanPool, TokenPool
    from residual.encoders.preprocess import Preprocess

__all__ = [
    "ALIASES",
    "Anatomy",
    "AttentionPool",
    "Encoder",
    "EndPool",
    "Family",
    "MeanPool",
    "Preprocess",
    "TokenPool",
    "Tower",
    "load_encoder",
    "wrap_encoder",
]

__getattr__ = lazily(__name__, ("load", "family", "pooling", "preprocess"), __all__)
