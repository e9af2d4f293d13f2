"""What a search can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from winnow_gateway.documents import WHOLE_DOCUMENT, DocumentView
from winnow_gateway.filters import NO_FILTER, Filter
from winnow_gateway.ordering import DEFAULT_FUSION, Fusion, Mixing
from winnow_gateway.planning import DEFAULT_LIMIT, DepthPolicy, Effort, RetrievalKind, SearchMode


class RankingPolicy(Enum):
    """How reranked candidates are ordered."""

    RECOMMENDED = "recommended"
    RERANKER = "reranker"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """A search that passed validation."""

    collection: str
    query: str
    limit: int = DEFAULT_LIMIT
    depth: int | None = None
    """Candidates to rerank; None: the caller did not say."""
    depth_policy: DepthPolicy = DepthPolicy.WISH
    effort: Effort = Effort.FULL
    require_rerank: bool = False
    mode: SearchMode = SearchMode.AUTO
    kind: RetrievalKind | None = None
    fusion: Fusion = DEFAULT_FUSION
    filter: Filter = NO_FILTER
    view: DocumentView = WHOLE_DOCUMENT
    ef: int | None = None
    exact: bool = False
    policy: RankingPolicy = RankingPolicy.RECOMMENDED
    mixing: Mixing | None = None
    min_retrieval_score: float | None = None
    min_rerank_score: float | None = None
    min_probability: float | None = None
    timeout: float = 30.0
    """Seconds until the caller gives up."""
    budget: float | None = None
    """Seconds after which he would like the answer; None: `timeout`."""
