"""From scores of two stages to one order. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
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


def scored_prefix(rerank_scores: Mapping[int, float], count: int) -> dict[int, float]:
    """The scores of the first candidates up to the first, of `count`, that has none.

    Batches that run side by side may end in another order than they began. What came out of turn must not go before a
    better candidate whose score is still to come: that would sink it for no fault of its own.
    """
    length = 0
    while length < count and length in rerank_scores:
        length += 1
    return {position: rerank_scores[position] for position in range(length)}


def splice(
    retrieval_scores: Sequence[float],
    rerank_scores: Mapping[int, float],
    *,
    mixing: Mixing | None = None,
    mixed_scores: Mapping[int, float] | None = None,
    min_rerank_score: float | None = None,
    left_out: Container[int] = (),
) -> list[Placed]:
    """Orders candidates: the reranked ones first, by the reranker's score or mixed, then the others as retrieved.

    Mixed: by `mixing` of ranks, or by `mixed_scores`, which has one for every candidate that has a reranking score.

    `retrieval_scores` are in retrieval order; `rerank_scores` maps positions in it to scores. Ties keep the retrieval
    order, so the result is the same on every run. Reranked candidates under `min_rerank_score` and those at the
    positions `left_out` are not in it; those that were not reranked are not judged.

    The score never rises down the list. By ranks mixed, one that was not reranked gets what its retrieval rank gives
    it, which is less than any of a reranked prefix has. Otherwise its retrieval score is of another scale: all of them
    are moved down together, by the least that keeps the first of them under the last reranked one.
    """
    retrieval = [StagePlace(score, rank) for rank, score in enumerate(retrieval_scores, start=1)]
    by_reranker = sorted(rerank_scores, key=lambda position: (-rerank_scores[position], position))
    reranked = []
    for rank, position in enumerate(by_reranker, start=1):
        place = StagePlace(rerank_scores[position], rank)
        if position in left_out or (min_rerank_score is not None and place.score < min_rerank_score):
            continue
        if mixing:
            score = mixing.score(retrieval_rank=position + 1, rerank_rank=rank)
        else:
            score = mixed_scores[position] if mixed_scores else place.score
        reranked.append(Placed(position, score, retrieval[position], place))
    reranked.sort(key=lambda placed: (-placed.score, placed.position))
    rest = [place for position, place in enumerate(retrieval) if position not in rerank_scores]
    scores = [
        mixing.retrieval_weight / (mixing.k + place.rank) if mixing and reranked else place.score for place in rest
    ]
    descent = max(0.0, scores[0] - reranked[-1].score) if scores and reranked else 0.0
    return reranked + [
        # The bound holds exactly, where the difference alone would be rounded.
        Placed(place.rank - 1, min(score - descent, reranked[-1].score) if reranked else score, place, None)
        for place, score in zip(rest, scores, strict=True)
    ]


class SettledTop:
    """Tells when the first hits have stopped changing."""

    def __init__(self, *, limit: int, batches: int) -> None:
        """Settled: the first `limit` were the same, in the same order, after each of `batches` more batches."""
        self._limit = limit
        self._batches = batches
        self._top: list[int] | None = None
        self._unchanged = 0

    def settled(self, placed: Sequence[Placed]) -> bool:
        """Takes in the order after one more batch."""
        top = [each.position for each in placed[: self._limit]]
        self._unchanged = self._unchanged + 1 if top == self._top else 0
        self._top = top
        return self._unchanged >= self._batches
