"""What orders of documents are worth against judgements, side by side. Pure: knows neither services nor files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from winnow_client import Hit
from winnow_gateway.ordering import Fusion, Mixing, splice
from winnow_lab.data.beir import JudgedQuery
from winnow_relevance import ndcg, paired_difference, recall

DENSE, BM25, HYBRID = "dense", "BM25", "hybrid"
"""First stages: vectors alone, words alone, and both as the gateway fuses them by itself."""

MIXINGS: dict[str, Mixing | None] = {
    "reranked alone": None,
    "mixed, k = 2": Mixing(k=2),
    "mixed, k = 10": Mixing(k=10),
    "mixed, k = 60": Mixing(k=60),
    "mixed, k = 10, first stage twice": Mixing(k=10, retrieval_weight=2),
    "mixed, k = 10, reranker twice": Mixing(k=10, rerank_weight=2),
}
"""What is made of the reranker's scores."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for one query."""

    query: JudgedQuery
    first_stages: Mapping[str, Sequence[str]]
    """Name of a first stage → ids of documents, best first."""
    reranked: Sequence[Hit] = ()
    """Candidates of the hybrid first stage, all of them reranked; none if reranking is not measured."""


@dataclass(frozen=True, slots=True)
class Row:
    """One order's quality over the queries."""

    order: str
    ndcg_at_10: float
    against: str
    """The order that it is compared with; empty for the first."""
    gain: float
    """Mean difference to that order, query by query."""
    gain_standard_error: float
    recall: float | None
    """Share of the relevant documents that a first stage found at all; None for reranked orders."""


@dataclass(frozen=True, slots=True)
class Report:
    """Quality on one set."""

    name: str
    split: str
    query_count: int
    document_count: int
    first_depth: int
    """How many documents each first stage was asked for."""
    rerank_depth: int
    """How many of them were reranked; 0: none."""
    ceiling: float
    """nDCG@10 of the best order of the candidates that were reranked; 0 if none were."""
    rows: list[Row] = field(default_factory=list)


def fuse(fusion: Fusion, dense: Sequence[str], lexical: Sequence[str]) -> list[str]:
    """Two orders as one, as the index fuses them; ties by id."""
    scores: dict[str, float] = {}
    for weight, order in ((fusion.dense_weight, dense), (fusion.lexical_weight, lexical)):
        for rank, id_ in enumerate(order, start=1):
            scores[id_] = scores.get(id_, 0.0) + fusion.share(rank, weight)
    return sorted(scores, key=lambda id_: (-scores[id_], id_))


def fusion_name(fusion: Fusion) -> str:
    """What a row of the table calls a fusion."""
    return f"fused, k = {fusion.k}, weights {fusion.dense_weight:g} : {fusion.lexical_weight:g}"


def order_by(hits: Sequence[Hit], mixing: Mixing | None) -> list[str]:
    """Document ids of an answer in which every hit was reranked, ordered anew."""
    retrieved = _by_retrieval(hits)
    scores = {position: hit.rerank.score for position, hit in enumerate(retrieved) if hit.rerank}
    placed = splice([hit.retrieval.score if hit.retrieval else 0.0 for hit in retrieved], scores, mixing=mixing)
    return [retrieved[each.position].document.id for each in placed]


def _by_retrieval(hits: Sequence[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: hit.retrieval.rank if hit.retrieval else 0)


def judge(
    answers: Sequence[Answer],
    *,
    name: str,
    split: str,
    documents: int,
    first_depth: int,
    fusions: Sequence[Fusion] = (),
) -> Report:
    """The report over the answers of all queries."""
    judgements = [answer.query.judgements for answer in answers]

    def quality(orders: Sequence[Sequence[str]]) -> list[float]:
        return [ndcg(ids, judged, k=10) for ids, judged in zip(orders, judgements, strict=True)]

    def row(order: str, orders: Sequence[Sequence[str]], base: tuple[str, list[float]], *, first: bool) -> Row:
        values = quality(orders)
        difference = paired_difference(values, base[1])
        found = [recall(ids, judged, k=first_depth) for ids, judged in zip(orders, judgements, strict=True)]
        return Row(
            order=order,
            ndcg_at_10=float(np.mean(values)),
            against="" if order == base[0] else base[0],
            gain=difference.mean,
            gain_standard_error=difference.standard_error,
            recall=float(np.mean(found)) if first else None,
        )

    stages = {stage: [answer.first_stages[stage] for answer in answers] for stage in (DENSE, BM25, HYBRID)}
    base = (DENSE, quality(stages[DENSE]))
    rows = [row(stage, orders, base, first=True) for stage, orders in stages.items()]
    for fusion in fusions:
        fused = [fuse(fusion, *both) for both in zip(stages[DENSE], stages[BM25], strict=True)]
        rows.append(row(fusion_name(fusion), [ids[:first_depth] for ids in fused], base, first=True))

    depth = max((len(answer.reranked) for answer in answers), default=0)
    ceiling = 0.0
    if depth:
        candidates = [[hit.document.id for hit in _by_retrieval(answer.reranked)] for answer in answers]
        pairs = zip(candidates, judgements, strict=True)
        best = [sorted(ids, key=lambda id_: -judged.get(id_, 0)) for ids, judged in pairs]
        ceiling = float(np.mean(quality(best)))
        hybrid = (HYBRID, quality(stages[HYBRID]))
        for order, mixing in MIXINGS.items():
            reordered = [order_by(answer.reranked, mixing) for answer in answers]
            rows.append(row(f"{HYBRID}, {order}", reordered, hybrid, first=False))
    return Report(
        name=name,
        split=split,
        query_count=len(answers),
        document_count=documents,
        first_depth=first_depth,
        rerank_depth=depth,
        ceiling=ceiling,
        rows=rows,
    )
