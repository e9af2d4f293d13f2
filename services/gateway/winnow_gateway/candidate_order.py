"""The order of one search's candidates, while the reranker's scores come in. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from winnow_gateway.mixing import Floats, ScoreMixing, first_stage_features, mixed_scores
from winnow_gateway.ordering import Mixing, Placed, splice
from winnow_gateway.planning import RetrievalKind
from winnow_gateway.ports import Candidate, RerankerModel
from winnow_gateway.queries import RankingPolicy, SearchQuery
from winnow_rpc.faults import FailedPrecondition


def needs_model(query: SearchQuery) -> bool:
    """Whether what orders the candidates depends on what the reranker's model recommends."""
    return query.policy is RankingPolicy.RECOMMENDED or (query.policy is RankingPolicy.MIXED and query.mixing is None)


def chosen_mixing(query: SearchQuery, model: RerankerModel | None, kind: RetrievalKind) -> Mixing | ScoreMixing | None:
    """What mixes both stages; None: the reranker orders alone. `model` is None where it is not needed.

    Raises FailedPrecondition, reason NO_MIXING, if they are to be mixed and nobody says how.
    """
    if model is None:
        return query.mixing if query.policy is RankingPolicy.MIXED else None
    recommended = model.score_mixings.get(kind.value) or model.mixing
    if query.policy is RankingPolicy.MIXED and recommended is None:
        raise FailedPrecondition(
            f"the reranker's model {model.id} recommends no mixing; give one with the request",
            reason="NO_MIXING",
            metadata={"model": model.id},
        )
    return recommended


class CandidateOrder:
    """Orders candidates, which are in retrieval order, by what there is of the reranker's scores."""

    def __init__(self, candidates: Sequence[Candidate] = (), *, min_rerank_score: float | None = None) -> None:
        self._candidates = candidates
        self._min_rerank_score = min_rerank_score
        self._activation = ""
        self._features: Floats | None = None
        self.mixing: Mixing | ScoreMixing | None = None
        """How both stages are mixed; None: the reranker orders alone."""

    def mix(self, mixing: Mixing | ScoreMixing | None, model: RerankerModel | None) -> None:
        """Orders so from now on. `model` makes the scores; None: they are mixed by their ranks, if at all."""
        self.mixing = mixing
        self._activation = model.activation if model else ""

    def place(self, scores: Mapping[int, float]) -> list[Placed]:
        """The order with these scores, by position."""
        mixing = self.mixing
        return splice(
            [candidate.score for candidate in self._candidates],
            scores,
            mixing=mixing if isinstance(mixing, Mixing) else None,
            mixed_scores=self._mixed(scores, mixing) if isinstance(mixing, ScoreMixing) else None,
            min_rerank_score=self._min_rerank_score,
        )

    def _mixed(self, scores: Mapping[int, float], mixing: ScoreMixing) -> Mapping[int, float]:
        if self._features is None:
            # What the first stage says stays as it is; the reranker's scores come batch by batch.
            self._features = first_stage_features(
                [candidate.dense for candidate in self._candidates],
                [candidate.lexical for candidate in self._candidates],
            )
        return mixed_scores(self._features, scores, mixing=mixing, activation=self._activation)
