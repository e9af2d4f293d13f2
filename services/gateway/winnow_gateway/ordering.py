"""From scores of two stages to one order. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fusion:
    """Weighted reciprocal rank fusion of the order by vectors and the order by BM25, which the index does.

    Each order gives a document 1 / (rank / weight + k - 1), ranks from 1, which is Qdrant's form; an order that did not
    find it gives nothing. The defaults were chosen on judged sets: docs/decisions/0011.
    """

    k: int = 3
    dense_weight: float = 3.0
    lexical_weight: float = 1.0

    def share(self, rank: int, weight: float) -> float:
        """What an order of this weight gives the document at this rank."""
        return 1 / (rank / weight + self.k - 1)


DEFAULT_FUSION = Fusion()
"""How orders are fused where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Mixing:
    """Weighted reciprocal rank fusion of both stages' orders.

    Score = retrieval_weight / (k + retrieval rank) + rerank_weight / (k + reranking rank), ranks from 1. Reciprocal
    rank fusion is due to Cormack, Clarke and Büttcher (SIGIR 2009), there unweighted and with k = 60.
    """

    k: float = 60.0
    retrieval_weight: float = 1.0
    rerank_weight: float = 1.0

    def score(self, *, retrieval_rank: int, rerank_rank: int) -> float:
        """The mixed score of a document with these ranks."""
        return self.retrieval_weight / (self.k + retrieval_rank) + self.rerank_weight / (self.k + rerank_rank)


@dataclass(frozen=True, slots=True)
class StagePlace:
    """A place after one stage: the stage's score, and the rank by it, from 1."""

    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A candidate's place in the answer."""

    position: int
    """Its position among the candidates, from 0."""
    score: float
    """The score that placed it."""
    retrieval: StagePlace
    rerank: StagePlace | None
    """None if it was not reranked."""


def splice(
    retrieval_scores: Sequence[float],
    rerank_scores: Mapping[int, float],
    *,
    mixing: Mixing | None = None,
    min_rerank_score: float | None = None,
) -> list[Placed]:
    """Orders candidates: the reranked ones first, by the reranker's score or mixed, then the others as retrieved.

    `retrieval_scores` are in retrieval order; `rerank_scores` maps positions in it to scores. Ties keep the retrieval
    order, so the result is the same on every run. Reranked candidates under `min_rerank_score` are left out; those that
    were not reranked are not judged by it.
    """
    retrieval = [StagePlace(score, rank) for rank, score in enumerate(retrieval_scores, start=1)]
    by_reranker = sorted(rerank_scores, key=lambda position: (-rerank_scores[position], position))
    reranked = []
    for rank, position in enumerate(by_reranker, start=1):
        place = StagePlace(rerank_scores[position], rank)
        if min_rerank_score is not None and place.score < min_rerank_score:
            continue
        score = mixing.score(retrieval_rank=position + 1, rerank_rank=rank) if mixing else place.score
        reranked.append(Placed(position, score, retrieval[position], place))
    reranked.sort(key=lambda placed: (-placed.score, placed.position))
    rest = [
        Placed(position, place.score, place, None)
        for position, place in enumerate(retrieval)
        if position not in rerank_scores
    ]
    return reranked + rest
