"""What was found and scored for a query: all that every system's order is made of. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from winnow_gateway.collections import LexicalConfig
from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import DEFAULT_FUSION, Fusion, Mixing
from winnow_lab.data.beir import JudgedQuery

_USUAL = LexicalConfig()

DENSE, BM25, HYBRID = "dense", "BM25", "hybrid"
"""First stages: vectors alone, words alone, and both fused."""


AnyMixing = Mixing | ScoreMixing
"""Of ranks, or of scores by learned weights."""


@dataclass(frozen=True, slots=True)
class Recommended:
    """How a cross-encoder's configuration says that both stages are mixed."""

    mixings: Mapping[str, AnyMixing] = field(default_factory=dict)
    """First stage → what mixes it with the reranker's order; without one the reranker orders alone."""
    activation: str = "identity"
    """Name of the function that makes the reranker's scores, by which they are mixed; empty: not known."""


@dataclass(frozen=True, slots=True)
class Order:
    """Documents, best first, with the scores that placed them."""

    ids: Sequence[str]
    scores: Sequence[float]

    def first(self, count: int) -> Order:
        """No more than the first `count`."""
        return Order(self.ids[:count], self.scores[:count])


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was found and scored for one query."""

    query: JudgedQuery
    first_stages: Mapping[str, Order]
    """DENSE, BM25 and HYBRID, each as deep as `Asking.first_depth`."""
    rerank_scores: Mapping[str, float] = field(default_factory=dict)
    """Document → the reranker's score, for every candidate of the stages that are reranked; each was scored once."""
    exhaustive: Order | None = None
    """By the reranker's scores of every document; None if that was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is to be found and scored for each query."""

    first_depth: int = 100
    """Documents that each first stage is asked for."""
    rerank_depth: int = 0
    """How many of them the reranker scores; 0: none."""
    rerank_over: Sequence[str] = (DENSE, HYBRID)
    """First stages whose candidates it scores."""
    exhaustive: bool = False
    """Whether it scores every document."""
    fusion: Fusion = DEFAULT_FUSION
    """What makes HYBRID of the other two."""
    language: str = _USUAL.language
    """Of the words, for BM25's stemmer and stop words; "none" for neither."""
    average_words: int = _USUAL.average_words
    """Words of a usual document, for BM25."""

    def candidates(self, first_stages: Mapping[str, Order]) -> list[str]:
        """The documents that the reranker scores, each once."""
        depths = [first_stages[stage].ids[: self.rerank_depth] for stage in self.rerank_over]
        return list(dict.fromkeys(id_ for ids in depths for id_ in ids))


def activation_told(answers: Iterable[Answer]) -> str:
    """What makes the reranker's scores where nobody says it: all of them between 0 and 1 are a sigmoid's."""
    every = (score for answer in answers for score in answer.rerank_scores.values())
    return "sigmoid" if all(0 <= score <= 1 for score in every) else "identity"


def fuse(fusion: Fusion, dense: Order, lexical: Order) -> Order:
    """Two orders as one, as the index fuses them; ties by id, as the gateway breaks them."""
    scores: dict[str, float] = {}
    for weight, order in ((fusion.dense_weight, dense), (fusion.lexical_weight, lexical)):
        for rank, id_ in enumerate(order.ids, start=1):
            scores[id_] = scores.get(id_, 0.0) + fusion.share(rank, weight)
    ids = sorted(scores, key=lambda id_: (-scores[id_], id_))
    return Order(ids, [scores[id_] for id_ in ids])
