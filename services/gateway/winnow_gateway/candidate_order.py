"""The order of one search's candidates, while the reranker's scores come in. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from winnow_gateway.mixing import Floats, ScoreMixing, first_stage_features, mixed_scores
from winnow_gateway.ordering import Mixing, Placed, splice
from winnow_gateway.planning import RetrievalKind
from winnow_gateway.ports import Candidate, RerankerModel
from winnow_gateway.queries import RankingPolicy, SearchQuery
from winnow_rpc.faults import FailedPrecondition


def needs_model(query: SearchQuery) -> bool:
    """Whether the order depends on the reranker's model: on the mixing that it recommends, or its being calibrated."""
    if query.min_probability is not None:
        return True
    return query.policy is RankingPolicy.RECOMMENDED or (query.policy is RankingPolicy.MIXED and query.mixing is None)


def chosen_mixing(query: SearchQuery, model: RerankerModel | None, kind: RetrievalKind) -> Mixing | ScoreMixing | None:
    """What mixes both stages; None: the reranker orders alone. `model` is None where it is not needed.

    Raises FailedPrecondition: NO_MIXING if they are to be mixed and nobody says how, NOT_CALIBRATED if hits are to be
    judged by a probability that the model does not give.
    """
    if model and query.min_probability is not None and not model.calibrated:
        raise FailedPrecondition(
            f"the reranker's model {model.id} has no calibrator, so min_probability cannot be judged; "
            "`winnow calibrate` makes one",
            reason="NOT_CALIBRATED",
            metadata={"model": model.id},
        )
    if query.policy is RankingPolicy.RERANKER:
        return None
    if model is None or (query.policy is RankingPolicy.MIXED and query.mixing):
        return query.mixing
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

    def __init__(
        self,
        candidates: Sequence[Candidate] = (),
        *,
        min_rerank_score: float | None = None,
        min_probability: float | None = None,
    ) -> None:
        """Reranked candidates under either minimum are left out; the others are not judged by them."""
        self._candidates = candidates
        self._min_rerank_score = min_rerank_score
        self._min_probability = min_probability
        self._model: RerankerModel | None = None
        self._features: Floats | None = None
        self.mixing: Mixing | ScoreMixing | None = None
        """How both stages are mixed; None: the reranker orders alone."""

    def mix(self, mixing: Mixing | ScoreMixing | None, model: RerankerModel | None) -> None:
        """Orders so from now on. `model` makes the scores; None: they are mixed by their ranks, if at all."""
        self.mixing = mixing
        self._model = model

    def fits(self, fingerprint: str) -> bool:
        """Whether scores of the reranker's model with this fingerprint are those that it mixes."""
        return self._model is None or self._model.fingerprint == fingerprint

    def place(self, scores: Mapping[int, float], probabilities: Mapping[int, float] | None = None) -> list[Placed]:
        """The order with these scores and probabilities, by position."""
        mixing, least = self.mixing, self._min_probability
        unlikely: Container[int] = ()
        if least is not None:
            unlikely = {position for position, chance in (probabilities or {}).items() if chance < least}
        return splice(
            [candidate.score for candidate in self._candidates],
            scores,
            mixing=mixing if isinstance(mixing, Mixing) else None,
            mixed_scores=self._mixed(scores, mixing) if isinstance(mixing, ScoreMixing) else None,
            min_rerank_score=self._min_rerank_score,
            left_out=unlikely,
        )

    def _mixed(self, scores: Mapping[int, float], mixing: ScoreMixing) -> Mapping[int, float]:
        if self._features is None:
            # What the first stage says stays as it is; the reranker's scores come batch by batch.
            self._features = first_stage_features(
                [candidate.dense for candidate in self._candidates],
                [candidate.lexical for candidate in self._candidates],
            )
        activation = self._model.activation if self._model else ""
        return mixed_scores(self._features, scores, mixing=mixing, activation=activation)
