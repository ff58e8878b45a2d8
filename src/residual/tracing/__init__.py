"""Capture a forward pass, split it into units, a head by the tokens it attends to; project to the output."""

from residual.tracing.ablated import AblatedEncoder, ChangedEncoder
from residual.tracing.capture import capture
from residual.tracing.coordinates import Coordinates, SourcedCoordinates
from residual.tracing.decompose import Decomposition, decompose
from residual.tracing.linearization import Linearization
from residual.tracing.sources import SourceScores, Tokens, attention_weights, source_scores
from residual.tracing.trace import trace
from residual.tracing.units import Units

__all__ = [
    "AblatedEncoder",
    "ChangedEncoder",
    "Coordinates",
    "Decomposition",
    "Linearization",
    "SourceScores",
    "SourcedCoordinates",
    "Tokens",
    "Units",
    "attention_weights",
    "capture",
    "decompose",
    "source_scores",
    "trace",
]
