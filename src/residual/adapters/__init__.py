"""ResiDual: re-weight the principal components of units, in the space of their scores."""

from residual.adapters.adapted import AdaptedEncoder
from residual.adapters.adapter import Adapter
from residual.adapters.coarse import Coarse
from residual.adapters.fit import FitResult, adapted_output, evaluate, fit, fit_many
from residual.adapters.folding import FoldedMap, fold
from residual.adapters.matching import few_shot
from residual.adapters.methods import AdapterSettings, Reference, make_adapter
from residual.adapters.output_maps import LinearMap, SpectralMap
from residual.adapters.reading import Component, strongest_components, unit_gains
from residual.adapters.record import TrainingRecord
from residual.adapters.residual import ResiDual, residual_full, residual_star
from residual.adapters.scores import Scores, compute_scores
from residual.adapters.settings import FitSettings
from residual.adapters.task import Adapted, Task, adapt, encode_task, reference_from
from residual.adapters.training import TrainSettings, fine_tune, train

__all__ = [
    "Adapted",
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
    "Task",
    "TrainSettings",
    "TrainingRecord",
    "adapt",
    "adapted_output",
    "compute_scores",
    "encode_task",
    "evaluate",
    "few_shot",
    "fine_tune",
    "fit",
    "fit_many",
    "fold",
    "make_adapter",
    "reference_from",
    "residual_full",
    "residual_star",
    "strongest_components",
    "train",
    "unit_gains",
]
