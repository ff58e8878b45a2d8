"""Which units a task needs: scores, selections and ablations."""

from residual.heads.ablated_encoder import AblatedEncoder
from residual.heads.agreement import Agreement, agreement_of, mean_contributions
from residual.heads.contributions import ablate, unit_accuracy, unit_correlation
from residual.heads.describe import describe_heads, parse_heads
from residual.heads.description import DescribeSettings, HeadDescription
from residual.heads.hits import selection_hits, solo_hits
from residual.heads.scores import SCORES, pursuit_scores, score_units
from residual.heads.selections import (
    SHARES,
    ablations,
    jaccard,
    jaccard_table,
    random_share,
    top_share,
)

__all__ = [
    "SCORES",
    "SHARES",
    "AblatedEncoder",
    "Agreement",
    "DescribeSettings",
    "HeadDescription",
    "ablate",
    "ablations",
    "agreement_of",
    "describe_heads",
    "jaccard",
    "jaccard_table",
    "mean_contributions",
    "parse_heads",
    "pursuit_scores",
    "random_share",
    "score_units",
    "selection_hits",
    "solo_hits",
    "top_share",
    "unit_accuracy",
    "unit_correlation",
]
