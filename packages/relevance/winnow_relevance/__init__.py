"""How good a ranking is, against judgements. Pure functions of ids and grades; numpy only.

A ranking is the ids of an answer, best first. Judgements map ids to grades above 0; ids without one are not relevant.
Every function is of one query; average over queries yourself, so that per-query results can be kept and compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["PairedDifference", "ndcg", "paired_difference", "recall", "reciprocal_rank"]


def ndcg(ranking: Sequence[str], judgements: Mapping[str, float], *, k: int) -> float:
    """Normalised discounted cumulative gain of the first k, 0 to 1, with linear gain; 0 without judgements.

    The gain of an id is its grade, discounted by log2(rank + 1); the sum is divided by that of the best possible
    ranking (Järvelin and Kekäläinen 2002, in the form of trec_eval's ndcg_cut).
    """
    gains = np.array([judgements.get(id_, 0.0) for id_ in ranking[:k]])
    best = np.sort(np.array(list(judgements.values()), dtype=float))[::-1][:k]
    ideal = _discounted(best)
    return _discounted(gains) / ideal if ideal > 0 else 0.0


def reciprocal_rank(ranking: Sequence[str], judgements: Mapping[str, float], *, k: int) -> float:
    """1 / rank of the first relevant id among the first k; 0 if there is none. Its mean over queries is MRR@k."""
    for rank, id_ in enumerate(ranking[:k], start=1):
        if judgements.get(id_, 0.0) > 0:
            return 1.0 / rank
    return 0.0


def recall(ranking: Sequence[str], judgements: Mapping[str, float], *, k: int) -> float:
    """Share of the relevant ids that are among the first k; 0 without judgements."""
    relevant = {id_ for id_, grade in judgements.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much one system is ahead of another on the same queries."""

    mean: float
    standard_error: float
    """Standard error of the mean; 0 for fewer than two queries."""


def paired_difference(ahead: ArrayLike, behind: ArrayLike) -> PairedDifference:
    """Mean and standard error of per-query differences; both of shape [queries], in the same order."""
    difference = np.asarray(ahead, dtype=float) - np.asarray(behind, dtype=float)
    if difference.size < 2:
        return PairedDifference(float(difference.mean()) if difference.size else 0.0, 0.0)
    return PairedDifference(float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(difference.size)))


def _discounted(gains: NDArray[np.float64]) -> float:
    return float((gains / np.log2(np.arange(2, gains.size + 2))).sum())
