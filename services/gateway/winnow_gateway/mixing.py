"""Both stages' scores mixed by learned weights. Pure; the same features are learned from and served.

What each feature is, is said once, in the contract: `ScoreMixing` of winnow.search.v1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from winnow_gateway.ordering import StagePlace

Floats = NDArray[np.float64]

# Scores are float32: nearer to 0 or 1 than this a probability says nothing more.
_LEAST_PROBABILITY = 1e-7
_RANK_K = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreMixing:
    """Weights of a linear mixing; each field is the weight of the feature of its name."""

    rerank: float = 0.0
    rerank_sigmoid: float = 0.0
    dense: float = 0.0
    lexical: float = 0.0
    retrieval_rank: float = 0.0
    dense_absent: float = 0.0
    lexical_absent: float = 0.0


FEATURES = tuple(field.name for field in fields(ScoreMixing))
"""Names of the features: those of the reranker, then those of the first stage, in the order of their columns."""

ScoreMixings = Mapping[str, ScoreMixing]
"""Value of a `RetrievalKind` → the mixing for what was retrieved so; a kind that was not learned is not there."""


def log_odds(scores: ArrayLike, activation: str) -> Floats:
    """A reranker's scores on the scale that is mixed and calibrated: log-odds where its activation is the sigmoid."""
    values = np.asarray(scores, dtype=np.float64)
    if activation != "sigmoid":
        return values
    clipped = np.clip(values, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    logits: Floats = np.log(clipped) - np.log1p(-clipped)
    return logits


def rerank_features(scores: ArrayLike, activation: str) -> Floats:
    """The reranker's features, float64 [candidates, 2], of its scores."""
    logits = log_odds(scores, activation)
    return np.stack((logits, 0.5 * (1 + np.tanh(0.5 * logits))), axis=1)


def first_stage_features(dense: Sequence[StagePlace | None], lexical: Sequence[StagePlace | None]) -> Floats:
    """The first stage's features, float64 [candidates, 5], of each candidate's place in its orders, best retrieved
    first."""
    retrieval_rank = _RANK_K / (_RANK_K + np.arange(1, len(dense) + 1))
    dense_score, dense_absent = _order_features(dense)
    lexical_score, lexical_absent = _order_features(lexical)
    return np.stack((dense_score, lexical_score, retrieval_rank, dense_absent, lexical_absent), axis=1)


def mixed_scores(
    first_stage: Floats, rerank_scores: Mapping[int, float], *, mixing: ScoreMixing, activation: str
) -> dict[int, float]:
    """The mixed score of each candidate that was reranked, by its position.

    `first_stage` are the features of all candidates. What is not reranked yet changes nothing of the others' scores.
    """
    positions = np.fromiter(rerank_scores.keys(), dtype=np.intp, count=len(rerank_scores))
    reranker = rerank_features(np.fromiter(rerank_scores.values(), dtype=np.float64), activation)
    mixed = np.hstack((reranker, first_stage[positions])) @ np.array(astuple(mixing))
    return dict(zip(positions.tolist(), mixed.tolist(), strict=True))


def _order_features(places: Sequence[StagePlace | None]) -> tuple[Floats, Floats]:
    """Standardised scores, and what the order did not find."""
    absent = np.array([place is None for place in places], dtype=np.float64)
    found = [place.score for place in places if place]
    least = min(found, default=0.0)
    scores = np.array([place.score if place else least for place in places], dtype=np.float64)
    centred = scores - scores.mean() if places else scores
    deviation = centred.std() if places else 0.0
    # Equal scores differ by rounding alone.
    if not deviation > 1e-9 * max(1.0, abs(least)):
        return np.zeros(len(places)), absent
    return centred / deviation, absent
