"""How good rankings are, against judgements, and how sure that is. Pure functions of ids and numbers; numpy only.

`measures` are of one query each: average over queries yourself, so that per-query values can be kept and compared.
`significance` says how sure a mean or a difference of means is; `correlation` compares scores with a person's.
"""

from winnow_relevance.correlation import correlation_interval, pearson, spearman
from winnow_relevance.measures import average_precision, best_ndcg, ndcg, precision, recall, reciprocal_rank
from winnow_relevance.significance import (
    CONFIDENCE,
    ROUNDS,
    Difference,
    Estimate,
    PairedDifference,
    detectable_difference,
    difference,
    differences,
    estimate,
    estimates,
    paired_difference,
    queries_needed,
    randomization_p,
)

__all__ = [
    "CONFIDENCE",
    "ROUNDS",
    "Difference",
    "Estimate",
    "PairedDifference",
    "average_precision",
    "best_ndcg",
    "correlation_interval",
    "detectable_difference",
    "difference",
    "differences",
    "estimate",
    "estimates",
    "ndcg",
    "paired_difference",
    "pearson",
    "precision",
    "queries_needed",
    "randomization_p",
    "recall",
    "reciprocal_rank",
    "spearman",
]
