"""The paper's experiments: what is measured, cell by cell, and drawn; `experiments/` holds their settings."""

from residual.errors import unknown_name
from residual.experiments.adapters import Adapters
from residual.experiments.base import Experiment
from residual.experiments.dimension import Dimension
from residual.experiments.head_pages import part_of
from residual.experiments.heads import Heads
from residual.experiments.plan import Plan
from residual.experiments.preflight import Preflight, look_up
from residual.experiments.results import Results, read_results
from residual.experiments.running import run_experiment
from residual.experiments.similarity import ClassToken, Similarity

EXPERIMENTS: dict[str, type[Experiment]] = {
    "1": Dimension,
    "2": Similarity,
    "3": Heads,
    "4": Adapters,
    "class-token": ClassToken,
}


def experiment_of(name: str) -> tuple[str, type[Experiment]]:
    """An experiment, with its name in `EXPERIMENTS`: by that or by its folder's, with or without the number.

    Raises:
        ResidualError: there is no such experiment.

    Example:
        >>> experiment_of("adapters")[0], experiment_of("4_adapters")[0], experiment_of("class_token")[0]
        ('4', '4', 'class-token')
    """
    names = {}
    for number, kind in EXPERIMENTS.items():
        names |= dict.fromkeys((number, kind.folder.removeprefix(f"{number}_").replace("_", "-")), number)
    found = name.replace("_", "-")
    if found not in names:
        found = found.partition("-")[2] if found[:2] in [f"{number}-" for number in EXPERIMENTS] else found
    if found not in names:
        raise unknown_name("experiment", name, names)
    return names[found], EXPERIMENTS[names[found]]


__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Plan",
    "Preflight",
    "Results",
    "experiment_of",
    "look_up",
    "part_of",
    "read_results",
    "run_experiment",
]
