"""Candidates as what is learned from: features and gains; and how good an order of them is. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from winnow_gateway.mixing import first_stage_features, log_odds, rerank_features
from winnow_gateway.ordering import Mixing, splice
from winnow_lab.calibrating.candidates import Candidate, JudgedCandidates

Floats = NDArray[np.float64]

KINDS = ("hybrid", "dense", "lexical")
"""What the first stage may look at: values of the gateway's `RetrievalKind`."""

DEPTH = 10
"""Ranks that count: nDCG@10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The candidates of one query in retrieval order."""

    domain: str
    """Name of the set that the query is of."""
    query_id: str
    features: Floats
    """[candidates, features], in the order of `winnow_gateway.mixing.FEATURES`."""
    logits: Floats
    """[candidates]: the reranker's scores as log-odds."""
    gains: Floats
    """[candidates]: the grade of each, 0 where it has none."""
    ideal: float
    """DCG@10 of the best order of all that is judged, found or not."""

    def ndcg(self, scores: Floats) -> float:
        """nDCG@10 of the order by falling score; equal ones in retrieval order."""
        best = np.argsort(-scores, kind="stable")[:DEPTH]
        return float(_dcg(self.gains[best]) / self.ideal)

    def retrieval_scores(self) -> Floats:
        """Scores that leave the order as it is."""
        return -np.arange(len(self.gains), dtype=np.float64)

    def rank_mixed_scores(self, mixing: Mixing) -> Floats:
        """Scores by ranks mixed, as the gateway mixes them."""
        scores = np.empty(len(self.gains))
        logits = dict(enumerate(self.logits.tolist()))
        for placed in splice(self.retrieval_scores().tolist(), logits, mixing=mixing):
            scores[placed.position] = placed.score
        return scores


def ranking(query: JudgedCandidates, *, domain: str, kind: str, activation: str) -> Ranking | None:
    """A query as one kind of retrieval would have it; None if that found nothing, or nothing is relevant.

    Retrieval by one order alone is taken to find those of the hybrid candidates that the order found, as it ranked
    them.
    """
    candidates = _found_by(kind, query.candidates)
    grades = sorted((grade for grade in query.judgements.values() if grade > 0), reverse=True)
    if not candidates or not grades:
        return None
    scores = [candidate.rerank for candidate in candidates]
    first_stage = first_stage_features(
        [candidate.dense if kind != "lexical" else None for candidate in candidates],
        [candidate.lexical if kind != "dense" else None for candidate in candidates],
    )
    return Ranking(
        domain=domain,
        query_id=query.query_id,
        features=np.hstack((rerank_features(scores, activation), first_stage)),
        logits=log_odds(scores, activation),
        gains=np.array([max(0.0, query.judgements.get(candidate.id, 0.0)) for candidate in candidates]),
        ideal=_dcg(np.array(grades[:DEPTH])),
    )


def by_domain(rankings: Sequence[Ranking]) -> Mapping[str, list[Ranking]]:
    """The rankings of each domain, in the order of the domains' first."""
    found: dict[str, list[Ranking]] = {}
    for each in rankings:
        found.setdefault(each.domain, []).append(each)
    return found


def _found_by(kind: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    match kind:
        case "dense":
            places = {candidate.id: candidate.dense for candidate in candidates}
        case "lexical":
            places = {candidate.id: candidate.lexical for candidate in candidates}
        case _:
            return list(candidates)
    ranks = {id_: place.rank for id_, place in places.items() if place}
    return sorted((each for each in candidates if each.id in ranks), key=lambda each: ranks[each.id])


def _dcg(gains: Floats) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())
