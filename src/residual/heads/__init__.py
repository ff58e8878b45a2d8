"""Which units a task needs: scores, selections, ablations; and what heads mean."""

from residual.heads.accuracy import correct_by_selection, correct_by_unit, mean_contributions
from residual.heads.comparison import Scoreboard, ScoreboardSettings, scoreboard
from residual.heads.contributions import ablate, unit_accuracy, unit_correlation
from residual.heads.describe import describe_heads, unit_texts
from residual.heads.descriptions import DescribeSettings, HeadDescription, UnitTexts
from residual.heads.scores import SCORES, pursuit_scores, score_units
from residual.heads.selections import (
    SHARES,
    ablations,
    count_of,
    jaccard,
    jaccard_table,
    kept_layers,
    random_share,
    top_share,
)
from residual.tracing.ablated import AblatedEncoder

__all__ = [
    "SCORES",
    "SHARES",
    "AblatedEncoder",
    "DescribeSettings",
    "HeadDescription",
    "Scoreboard",
    "ScoreboardSettings",
    "UnitTexts",
    "ablate",
    "ablations",
    "correct_by_selection",
    "correct_by_unit",
    "count_of",
    "describe_heads",
    "jaccard",
    "jaccard_table",
    "kept_layers",
    "mean_contributions",
    "pursuit_scores",
    "random_share",
    "score_units",
    "scoreboard",
    "top_share",
    "unit_accuracy",
    "unit_correlation",
    "unit_texts",
]
