"""What a search can be told, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

from winnow_client.documents import Document
from winnow_client.filters import Filter


class SearchMode(StrEnum):
    """Which stages answer a query."""

    UNKNOWN = "unknown"
    """The gateway said something that this version does not know."""
    RETRIEVE = "retrieve"
    """The first stage alone: vectors, or vectors and BM25."""
    TWO_STAGE = "two-stage"
    """The first stage finds the candidates, the cross-encoder orders them."""
    EXHAUSTIVE = "exhaustive"
    """The cross-encoder over every document of a small collection."""
    LEXICAL = "lexical"
    """BM25 alone; for collections that have it."""
    AUTO = "auto"
    """The gateway chooses, and says which and why."""


class RetrievalKind(StrEnum):
    """What the first stage looks at."""

    UNKNOWN = "unknown"
    """The gateway said something that this version does not know."""
    DENSE = "dense"
    """Vectors alone."""
    HYBRID = "hybrid"
    """Vectors and BM25, their ranks fused; for collections that have BM25."""
    LEXICAL = "lexical"
    """BM25 alone. Only ever answered: what asks for it is the mode LEXICAL."""


class RankingPolicy(StrEnum):
    """How reranked candidates are ordered."""

    UNKNOWN = "unknown"
    """The gateway said something that this version does not know."""
    RERANKER = "reranker"
    """By the reranker's score alone."""
    MIXED = "mixed"
    """By both stages mixed: as the request says, or else as the reranker's model recommends."""


class DepthPolicy(StrEnum):
    """What a depth means where time is short."""

    UNKNOWN = "unknown"
    """The gateway said something that this version does not know."""
    WISH = "wish"
    """As many as the time allows, up to the depth."""
    FLOOR = "floor"
    """At least the depth, or as many as there are; otherwise an error: FailedPrecondition (DEPTH_UNAFFORDABLE) before
    any work, DeadlineExceeded (FLOOR_NOT_REACHED), or Unavailable where the reranker or the index is why."""


class Effort(StrEnum):
    """How much reranking is worth."""

    UNKNOWN = "unknown"
    """The gateway said something that this version does not know."""
    FULL = "full"
    """Rerank down to the planned depth."""
    ECONOMY = "economy"
    """Stop earlier when the first hits have not changed over several batches."""


class DegradationKind(StrEnum):
    """A way in which an answer is less than what was asked for."""

    UNKNOWN = "unknown"
    """The gateway said something that this version does not know."""
    RERANK_PARTIAL = "rerank-partial"
    """The reranker's time ran out before all candidates were scored."""
    RERANK_SKIPPED = "rerank-skipped"
    """Nothing was reranked; the order is that of retrieval."""
    EMBEDDER_UNAVAILABLE = "embedder-unavailable"
    """The query could not be embedded; BM25 alone answered."""
    INDEX_PARTIAL = "index-partial"
    """Part of the index did not answer."""
    QUERY_TRUNCATED = "query-truncated"
    """The query was longer than a model reads, and was cut."""


@dataclass(frozen=True, kw_only=True)
class RankFusion:
    """Fusion of the order by vectors and the order by BM25, by weighted reciprocal ranks.

    Each order gives a document 1 / (rank / weight + k - 1), ranks from 1; an order that did not find it gives nothing.
    """

    k: int
    """The constant k, 1 to 1,000,000: the larger, the less the first ranks stand out."""
    dense_weight: float
    """Weight of the order by vectors, above 0."""
    lexical_weight: float
    """Weight of the order by BM25, above 0."""


@dataclass(frozen=True, kw_only=True)
class RankMixing:
    """Mixing of two orders by weighted reciprocal rank fusion.

    A document's mixed score is retrieval_weight / (k + its retrieval rank) + rerank_weight / (k + its reranking rank).
    """

    k: float
    """The constant k, at least 1."""
    retrieval_weight: float
    """Weight of the retrieval order, 0 or more."""
    rerank_weight: float
    """Weight of the reranked order, above 0."""


@dataclass(frozen=True, kw_only=True)
class ScoreMixing:
    """Mixing of scores, learned on judgements: the sum of a hit's features, each times the weight of its name.

    What the features are, the contract says (`ScoreMixing` of winnow.search.v1).
    """

    rerank: float
    """Weight of the reranker's score, as log-odds if it is a probability."""
    rerank_sigmoid: float
    """Weight of the sigmoid of that."""
    dense: float
    """Weight of the similarity, standardised over the candidates."""
    lexical: float
    """Weight of the BM25 score, standardised over the candidates."""
    retrieval_rank: float
    """Weight of 10 / (10 + rank after retrieval)."""
    dense_absent: float
    """Weight of not being found by vectors."""
    lexical_absent: float
    """Weight of not being found by BM25."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """A document's place after one stage."""

    score: float
    """The stage's own score; scores of different stages cannot be compared."""
    rank: int
    """Its rank by that score, from 1."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One document found."""

    document: Document
    """The document, as far as it was asked for."""
    rank: int
    """Position in the answer, from 1."""
    score: float
    """The score that placed it: of retrieval, of the reranker, or mixed."""
    retrieval: StageResult | None
    """Its place after retrieval."""
    rerank: StageResult | None
    """Its place after reranking; None if it was not reranked."""
    dense: StageResult | None = None
    """Its place by vectors; None if they did not find it among their first, or were not asked."""
    lexical: StageResult | None = None
    """Its place by BM25, likewise."""
    probability: float | None = None
    """Calibrated probability that it is relevant, by the reranker's score alone; None if it was not reranked, or the
    model has no calibrator."""


@dataclass(frozen=True, kw_only=True)
class SearchTiming:
    """Where a search's time went, in microseconds. Stages that did not run are 0."""

    total_micros: int
    """From the arrival of the request until its answer was ready."""
    embed_micros: int
    """Embedding the query, as the gateway waited for it."""
    retrieve_micros: int
    """Retrieving candidates, as the gateway waited for it."""
    rerank_micros: int
    """Reranking, as the gateway waited for it."""
    gateway_micros: int
    """The rest: the gateway's own work."""
    embed_inference_micros: int
    """Model time within `embed_micros`."""
    rerank_inference_micros: int
    """Model time within `rerank_micros`."""
    embed_token_count: int
    """Tokens that the embedder read."""
    rerank_token_count: int
    """Tokens that the reranker read."""


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """A way in which an answer is less than what was asked for."""

    kind: DegradationKind
    """What kind."""
    reason: str
    """A stable code in capitals, for machines."""
    message: str
    """One sentence for a person."""
    affected_count: int = 0
    """How much it concerns: candidates not reranked, tokens cut; 0 where that says nothing."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The answer to a search, and how it came about."""

    hits: tuple[Hit, ...]
    """The hits, best first, by scores that never rise. Reranked ones come before those that were not."""
    mode: SearchMode
    """The mode that ran."""
    mode_reason: str
    """Why this mode ran, for a person."""
    candidate_count: int
    """Candidates that retrieval returned."""
    reranked_count: int
    """Candidates that the reranker scored."""
    timing: SearchTiming
    """Where the time went."""
    degradations: tuple[Degradation, ...]
    """In what the answer is less than what was asked for; empty when all went to plan."""
    embedder_fingerprint: str
    """Fingerprint of the model that embedded the query; empty if none did."""
    reranker_fingerprint: str
    """Fingerprint of the model that reranked; empty if nothing was."""
    mixing: RankMixing | None
    """The mixing of ranks that ordered the reranked hits; None if another way did, or nothing was reranked."""
    retrieval_kind: RetrievalKind
    """What the first stage looked at: `retrieval.score` of the hits is a similarity, a BM25 score, or a fused one."""
    planned_depth: int
    """Candidates that the gateway meant to rerank."""
    score_mixing: ScoreMixing | None = None
    """The mixing of scores that ordered the reranked hits; None if another way did, or nothing was reranked."""


@dataclass(frozen=True, kw_only=True)
class SearchState:
    """One state of a search that is watched."""

    result: SearchResult
    """The order so far; of texts that are very long it has the beginning until it is final."""
    final: bool
    """True for the last: this is what `search` would have returned."""


class SearchOptions(TypedDict, total=False):
    """What a search can be told, beside where and what to look for; the arguments of `search`."""

    limit: int | None
    mode: SearchMode | None
    depth: int | None
    depth_policy: DepthPolicy | None
    budget: float | None
    effort: Effort | None
    require_rerank: bool
    where: Filter | None
    omit_text: bool
    omit_metadata: bool
    retrieval: RetrievalKind | None
    fusion: RankFusion | None
    ef: int | None
    exact: bool
    ranking_policy: RankingPolicy | None
    mixing: RankMixing | None
    min_retrieval_score: float | None
    min_rerank_score: float | None
    min_probability: float | None
