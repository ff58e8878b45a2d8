"""Load a vision (and text) encoder by name; one file a family, each declares its Anatomy."""

from residual.encoders.anatomy import Anatomy
from residual.encoders.encoder import Encoder
from residual.encoders.family import Family, Tower
from residual.encoders.load import ALIASES, load_encoder, wrap_encoder
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
