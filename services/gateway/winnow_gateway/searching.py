"""A search: plan, embed the query, retrieve, rerank, order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import Enum

from winnow_gateway.catalog import Catalog
from winnow_gateway.collections import CollectionSpec
from winnow_gateway.documents import WHOLE_DOCUMENT, Document, DocumentView
from winnow_gateway.filters import NO_FILTER, Filter, filtered_keys
from winnow_gateway.ordering import DEFAULT_FUSION, Fusion, Mixing, Placed, splice
from winnow_gateway.planning import RetrievalKind, SearchMode, choose_kind, plan_search
from winnow_gateway.ports import Candidate, EmbeddedTexts, Embedder, Index, Reranker, no_lexical_index
from winnow_rpc.faults import DeadlineExceeded, FailedPrecondition, NotFound


class RankingPolicy(Enum):
    """How reranked candidates are ordered."""

    RECOMMENDED = "recommended"
    RERANKER = "reranker"
    MIXED = "mixed"


class DegradationKind(Enum):
    """A way in which an answer is less than what was asked for."""

    QUERY_TRUNCATED = "query-truncated"


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way in which an answer is less than what was asked for, for machines and for a person."""

    kind: DegradationKind
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """A search that passed validation."""

    collection: str
    query: str
    limit: int
    depth: int
    mode: SearchMode | None = None
    kind: RetrievalKind | None = None
    """What the first stage is to look at; None: all there is."""
    fusion: Fusion = DEFAULT_FUSION
    filter: Filter = NO_FILTER
    view: DocumentView = WHOLE_DOCUMENT
    ef: int | None = None
    exact: bool = False
    policy: RankingPolicy = RankingPolicy.RECOMMENDED
    mixing: Mixing | None = None
    min_retrieval_score: float | None = None
    min_rerank_score: float | None = None
    timeout: float | None = None
    """Seconds that the caller has left; None: no limit."""


@dataclass(slots=True)
class SearchTiming:
    """Where the time went, in microseconds; tokens beside it."""

    total_micros: int = 0
    embed_micros: int = 0
    retrieve_micros: int = 0
    rerank_micros: int = 0
    embed_inference_micros: int = 0
    rerank_inference_micros: int = 0
    embed_token_count: int = 0
    rerank_token_count: int = 0

    @property
    def gateway_micros(self) -> int:
        """What the gateway itself took: all that was not waiting for a stage."""
        return max(0, self.total_micros - self.embed_micros - self.retrieve_micros - self.rerank_micros)


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found, and its place after each stage."""

    document: Document
    place: Placed


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOutcome:
    """The answer to a search, and how it came about."""

    hits: Sequence[Hit]
    mode: SearchMode
    mode_reason: str
    kind: RetrievalKind
    candidate_count: int
    reranked_count: int
    timing: SearchTiming
    degradations: Sequence[Degradation]
    embedder_fingerprint: str
    reranker_fingerprint: str
    mixing: Mixing | None


@dataclass(slots=True)
class _Reranking:
    scores: dict[int, float] = field(default_factory=dict)
    fingerprint: str = ""
    mixing: Mixing | None = None


class Searcher:
    """Runs searches. Holds no state of its own."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        embedder: Embedder,
        reranker: Reranker,
        index: Index,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._catalog = catalog
        self._embedder = embedder
        self._reranker = reranker
        self._index = index
        self._clock = clock

    async def search(self, query: SearchQuery) -> SearchOutcome:
        """Answers a search. Raises what a stage raises: no stage's failure is hidden."""
        began = self._clock()
        timing = SearchTiming()
        plan = plan_search(mode=query.mode, limit=query.limit, depth=query.depth)
        # Mostly from memory; when not, it is the index and the embedder that are waited for.
        spec = await self._catalog.spec(query.collection)
        timing.retrieve_micros = self._micros_since(began)
        kind = choose_kind(mode=plan.mode, asked=query.kind, lexical=spec.lexical is not None)
        if kind is None:
            raise no_lexical_index(spec.name)

        # A graph whose index does not know the field of a filter loses most of what fits; a scan loses nothing.
        indexed = {field.key for field in spec.metadata_fields}
        if not indexed.issuperset(filtered_keys(query.filter)):
            query = replace(query, exact=True)

        embedded = None if kind is RetrievalKind.LEXICAL else await self._embed(query, spec, timing, began)
        candidates = await self._retrieve(query, kind, embedded, plan.candidates, plan.depth > 0, timing, began)
        reranking = _Reranking()
        if plan.depth and candidates:
            await self._rerank(query, candidates[: plan.depth], reranking, timing, began)

        placed = splice(
            [candidate.score for candidate in candidates],
            reranking.scores,
            mixing=reranking.mixing,
            min_rerank_score=query.min_rerank_score,
        )
        hits = [Hit(candidates[place.position].document, place) for place in placed[: query.limit]]
        long = [hit.document.id for hit in hits if candidates[hit.place.position].head_only]
        if long and query.view.text:
            hits = await self._with_whole_texts(query, hits, long, timing)
        timing.total_micros = self._micros_since(began)
        return SearchOutcome(
            hits=hits,
            mode=plan.mode,
            mode_reason=plan.reason,
            kind=kind,
            candidate_count=len(candidates),
            reranked_count=len(reranking.scores),
            timing=timing,
            degradations=_query_degradations(embedded),
            embedder_fingerprint=embedded.model_fingerprint if embedded else "",
            reranker_fingerprint=reranking.fingerprint,
            mixing=reranking.mixing,
        )

    async def _embed(
        self, query: SearchQuery, spec: CollectionSpec, timing: SearchTiming, began: float
    ) -> EmbeddedTexts:
        entered = self._clock()
        await self._catalog.require_served(spec)
        embedded = await self._embedder.embed_query(
            query.query, fingerprint=spec.embedder.fingerprint, timeout=self._left(query, began)
        )
        timing.embed_micros = self._micros_since(entered)
        timing.embed_inference_micros = embedded.inference_micros
        timing.embed_token_count = embedded.token_count
        return embedded

    async def _retrieve(
        self,
        query: SearchQuery,
        kind: RetrievalKind,
        embedded: EmbeddedTexts | None,
        count: int,
        texts_needed: bool,
        timing: SearchTiming,
        began: float,
    ) -> Sequence[Candidate]:
        entered = self._clock()
        view = DocumentView(text=query.view.text or texts_needed, metadata=query.view.metadata)
        try:
            candidates = await self._index.retrieve(
                query.collection,
                vector=embedded.vectors[0] if embedded else None,
                text=None if kind is RetrievalKind.DENSE else query.query,
                fusion=query.fusion,
                limit=count,
                filter_=query.filter,
                view=view,
                min_score=query.min_retrieval_score,
                ef=query.ef,
                exact=query.exact,
                timeout=self._left(query, began),
            )
        except NotFound:
            self._catalog.forget(query.collection)
            raise
        timing.retrieve_micros += self._micros_since(entered)
        return candidates

    async def _with_whole_texts(
        self, query: SearchQuery, hits: Sequence[Hit], long: Sequence[str], timing: SearchTiming
    ) -> list[Hit]:
        entered = self._clock()
        texts = await self._index.texts(query.collection, long)
        timing.retrieve_micros += self._micros_since(entered)
        # One that was deleted meanwhile keeps its head.
        return [
            Hit(replace(hit.document, text=texts.get(hit.document.id, hit.document.text)), hit.place) for hit in hits
        ]

    async def _rerank(
        self,
        query: SearchQuery,
        candidates: Sequence[Candidate],
        reranking: _Reranking,
        timing: SearchTiming,
        began: float,
    ) -> None:
        entered = self._clock()
        reranking.mixing = await self._mixing(query)
        passages = [candidate.document.passage for candidate in candidates]
        batches = self._reranker.rerank(query.query, passages, timeout=self._left(query, began))
        async with aclosing(batches) as stream:
            async for batch in stream:
                reranking.scores.update(batch.scores)
                reranking.fingerprint = batch.model_fingerprint
                timing.rerank_inference_micros += batch.inference_micros
                timing.rerank_token_count += batch.token_count
        timing.rerank_micros = self._micros_since(entered)

    async def _mixing(self, query: SearchQuery) -> Mixing | None:
        if query.policy is RankingPolicy.RERANKER:
            return None
        if query.policy is RankingPolicy.MIXED and query.mixing:
            return query.mixing
        model = await self._reranker.model()
        if query.policy is RankingPolicy.MIXED and model.mixing is None:
            raise FailedPrecondition(
                f"the reranker's model {model.id} recommends no mixing; give one with the request",
                reason="NO_MIXING",
                metadata={"model": model.id},
            )
        return model.mixing

    def _left(self, query: SearchQuery, began: float) -> float | None:
        if query.timeout is None:
            return None
        left = query.timeout - (self._clock() - began)
        if left <= 0:
            raise DeadlineExceeded("the caller's deadline passed before the search was done", reason="DEADLINE")
        return left

    def _micros_since(self, moment: float) -> int:
        return round((self._clock() - moment) * 1e6)


def _query_degradations(embedded: EmbeddedTexts | None) -> list[Degradation]:
    dropped = embedded.dropped_token_counts.get(0, 0) if embedded else 0
    if not dropped:
        return []
    message = f"the query is too long for the embedder: its last {dropped} tokens were not read"
    return [Degradation(DegradationKind.QUERY_TRUNCATED, "TOO_LONG", message)]
