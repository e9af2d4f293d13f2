"""Measures of one query's ranking.

A ranking is the ids of an answer, best first, each once: whoever makes it has broken its ties. Judgements map ids to
grades; an id is relevant if its grade is above 0, and ids without one are not. Every function gives 0 where nothing is
relevant. The values are those of trec_eval on a run whose scores fall strictly; where scores are equal, trec_eval puts
the greater document id first, whatever the ranking says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def ndcg(ranking: Sequence[str], judgements: Mapping[str, float], *, k: int) -> float:
    """Normalised discounted cumulative gain of the first k, 0 to 1, with linear gain; trec_eval's ndcg_cut.

    The gain of an id is its grade, discounted by log2(rank + 1); the sum is divided by that of the best possible
    ranking (Järvelin and Kekäläinen, TOIS 2002).
    """
    # The sum of the best order is over all that is judged, found or not.
    gains = np.array([max(0.0, judgements.get(id_, 0.0)) for id_ in ranking[:k]])
    best = np.sort(np.maximum(np.array(list(judgements.values()), dtype=float), 0.0))[::-1][:k]
    ideal = _discounted(best)
    return _discounted(gains) / ideal if ideal > 0 else 0.0


def best_ndcg(candidates: Sequence[str], judgements: Mapping[str, float], *, k: int) -> float:
    """nDCG of the best order that can be made of some candidates: the ceiling of whatever reorders them."""
    return ndcg(sorted(candidates, key=lambda id_: -judgements.get(id_, 0.0)), judgements, k=k)


def reciprocal_rank(ranking: Sequence[str], judgements: Mapping[str, float], *, k: int) -> float:
    """1 / rank of the first relevant id among the first k. Its mean over queries is MRR@k."""
    for rank, id_ in enumerate(ranking[:k], start=1):
        if judgements.get(id_, 0.0) > 0:
            return 1.0 / rank
    return 0.0


def recall(ranking: Sequence[str], judgements: Mapping[str, float], *, k: int) -> float:
    """Share of the relevant ids that are among the first k; trec_eval's recall."""
    relevant = _relevant(judgements)
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def precision(ranking: Sequence[str], judgements: Mapping[str, float], *, k: int) -> float:
    """Share of relevant ids among the first k, of k even where the ranking is shorter; trec_eval's P."""
    return len(_relevant(judgements).intersection(ranking[:k])) / k


def average_precision(ranking: Sequence[str], judgements: Mapping[str, float], *, k: int) -> float:
    """Mean over the relevant ids of the precision at the rank of each, 0 for those that are not among the first k.

    trec_eval's map_cut, and its map where k is no less than the length of the run. Its mean over queries is MAP.
    """
    relevant = _relevant(judgements)
    found, total = 0, 0.0
    for rank, id_ in enumerate(ranking[:k], start=1):
        if id_ in relevant:
            found += 1
            total += found / rank
    return total / len(relevant) if relevant else 0.0


def _relevant(judgements: Mapping[str, float]) -> set[str]:
    return {id_ for id_, grade in judgements.items() if grade > 0}


def _discounted(gains: NDArray[np.float64]) -> float:
    return float((gains / np.log2(np.arange(2, gains.size + 2))).sum())
