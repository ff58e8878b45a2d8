"""ResiDual: re-weight the principal components of units, in the space of their scores."""

from residual.adapters.fit import FitResult, FitSettings, evaluate, fit
from residual.adapters.residual import ResiDual, residual_full, residual_star
from residual.adapters.scores import Scores, compute_scores

__all__ = [
    "FitResult",
    "FitSettings",
    "ResiDual",
    "Scores",
    "compute_scores",
    "evaluate",
    "fit",
    "residual_full",
    "residual_star",
]
