"""ResiDual and its baselines: re-weight the principal components of units, in the space of their scores."""

from residual.adapters.adapted_encoder import AdaptedEncoder
from residual.adapters.adapter import Adapter
from residual.adapters.adapter_settings import AdapterSettings, Reference
from residual.adapters.card import TrainingRecord
from residual.adapters.early_stopping import FitResult
from residual.adapters.features import FeatureFit, FeatureFits, fit_features
from residual.adapters.fine_tuning import fine_tune
from residual.adapters.fit import adapted_output, evaluate, fit, fit_many
from residual.adapters.fit_settings import FitSettings, TrainSettings
from residual.adapters.folding import FoldedMap
from residual.adapters.inspection import Component, strongest_components, unit_gains
from residual.adapters.matching import few_shot
from residual.adapters.methods import (
    Coarse,
    Edited,
    LinearMap,
    ReleasedCoarse,
    ReleasedLinearMap,
    ReleasedResiDual,
    ReleasedSpectralMap,
    ResiDual,
    ResiDualStar,
    SpectralMap,
    UnitEdit,
    make_adapter,
)
from residual.adapters.recipes import RECIPES, Fitting, Recipe, fitting
from residual.adapters.scores import Scores, compute_scores

__all__ = [
    "RECIPES",
    "AdaptedEncoder",
    "Adapter",
    "AdapterSettings",
    "Coarse",
    "Component",
    "Edited",
    "FeatureFit",
    "FeatureFits",
    "FitResult",
    "FitSettings",
    "Fitting",
    "FoldedMap",
    "LinearMap",
    "Recipe",
    "Reference",
    "ReleasedCoarse",
    "ReleasedLinearMap",
    "ReleasedResiDual",
    "ReleasedSpectralMap",
    "ResiDual",
    "ResiDualStar",
    "Scores",
    "SpectralMap",
    "TrainSettings",
    "TrainingRecord",
    "UnitEdit",
    "adapted_output",
    "compute_scores",
    "evaluate",
    "few_shot",
    "fine_tune",
    "fit",
    "fit_features",
    "fit_many",
    "fitting",
    "make_adapter",
    "strongest_components",
    "unit_gains",
]
