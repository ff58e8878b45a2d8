"""ResiDual: re-weight the principal components of units, in the space of their scores."""

from residual.adapters.adapted import AdaptedEncoder
from residual.adapters.adapter import Adapter
from residual.adapters.coarse import Coarse
from residual.adapters.fit import FitResult, adapted_output, evaluate, fit, fit_many
from residual.adapters.fit_settings import FitSettings
from residual.adapters.folding import FoldedMap, fold
from residual.adapters.inspection import Component, strongest_components, unit_gains
from residual.adapters.matching import few_shot
from residual.adapters.methods import AdapterSettings, Reference, make_adapter
from residual.adapters.output_maps import LinearMap, SpectralMap
from residual.adapters.residual import ResiDual, residual_full, residual_star
from residual.adapters.scores import Scores, compute_scores
from residual.adapters.training import TrainSettings, fine_tune, train
from residual.adapters.training_record import TrainingRecord

__all__ = [
    "AdaptedEncoder",
    "Adapter",
    "AdapterSettings",
    "Coarse",
    "Component",
    "FitResult",
    "FitSettings",
    "FoldedMap",
    "LinearMap",
    "Reference",
    "ResiDual",
    "Scores",
    "SpectralMap",
    "TrainSettings",
    "TrainingRecord",
    "adapted_output",
    "compute_scores",
    "evaluate",
    "few_shot",
    "fine_tune",
    "fit",
    "fit_many",
    "fold",
    "make_adapter",
    "residual_full",
    "residual_star",
    "strongest_components",
    "train",
    "unit_gains",
]
