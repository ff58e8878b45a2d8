"""The paper's experiments: what is measured, cell by cell, and drawn; `experiments/` holds their settings."""

from residual.experiments.adapters import Adapters
from residual.experiments.base import Experiment, run_experiment
from residual.experiments.dimension import Dimension
from residual.experiments.head_pages import part_of
from residual.experiments.heads import Heads
from residual.experiments.plan import Plan
from residual.experiments.preflight import Preflight, look_up
from residual.experiments.results import Results, read_results
from residual.experiments.similarity import ClassToken, Similarity

EXPERIMENTS: dict[str, type[Experiment]] = {
    "1": Dimension,
    "2": Similarity,
    "3": Heads,
    "4": Adapters,
    "class-token": ClassToken,
}

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Plan",
    "Preflight",
    "Results",
    "look_up",
    "part_of",
    "read_results",
    "run_experiment",
]
