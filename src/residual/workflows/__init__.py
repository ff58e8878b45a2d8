"""What a command or an experiment does: the rooms of the library strung together.

`task` has the steps of a task, `store_origin` what is behind a store, and one module each the commands:
`encode` (and bases), `run`, `train`, `evaluate`, `analyze`, `heads`, `describe`, `map`.
"""

from residual.workflows.analyze import Analysis, analyze_store
from residual.workflows.describe import StoreDescription, describe_store
from residual.workflows.encode import bases_of, encode_split
from residual.workflows.evaluate import Evaluation, evaluate_adapter, evaluate_encoder
from residual.workflows.heads import StoreScoreboard, scoreboard_of_stores
from residual.workflows.map import MapRequest, PictureMaps, map_pictures
from residual.workflows.run import RUN_METHODS, Run, run_tasks
from residual.workflows.store_origin import classifier_of, dataset_of, encoder_of
from residual.workflows.task import Adapted, Task, adapt, encode_task, reference_from
from residual.workflows.train import Trained, train_adapter, train_encoder, train_on

__all__ = [
    "RUN_METHODS",
    "Adapted",
    "Analysis",
    "Evaluation",
    "MapRequest",
    "PictureMaps",
    "Run",
    "StoreDescription",
    "StoreScoreboard",
    "Task",
    "Trained",
    "adapt",
    "analyze_store",
    "bases_of",
    "classifier_of",
    "dataset_of",
    "describe_store",
    "encode_split",
    "encode_task",
    "encoder_of",
    "evaluate_adapter",
    "evaluate_encoder",
    "map_pictures",
    "reference_from",
    "run_tasks",
    "scoreboard_of_stores",
    "train_adapter",
    "train_encoder",
    "train_on",
]
