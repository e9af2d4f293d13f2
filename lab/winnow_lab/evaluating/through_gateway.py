"""Answers through a running gateway: what a caller of it would get, and the scores that all depths are made of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.progress import Progress

from winnow_client import (
    AsyncClient,
    DegradationKind,
    LexicalConfig,
    RankFusion,
    RetrievalKind,
    SearchMode,
    SearchResult,
    ids,
)
from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import Mixing
from winnow_gateway.planning import MAX_LIMIT
from winnow_lab.data.beir import JudgedQuery
from winnow_lab.evaluating.answers import BM25, DENSE, HYBRID, Answer, AnyMixing, Asking, Order, Recommended
from winnow_lab.evaluating.mapping import in_order
from winnow_lab.evaluating.sets import JudgedSet
from winnow_lab.filling import collection_of, fill
from winnow_rpc.faults import FailedPrecondition, Unavailable

_FIRST_STAGES = {
    DENSE: (SearchMode.RETRIEVE, RetrievalKind.DENSE),
    BM25: (SearchMode.LEXICAL, None),
    HYBRID: (SearchMode.RETRIEVE, RetrievalKind.HYBRID),
}
_QUERIES_AT_ONCE = 2
# Enough for a machine that does other work beside: nobody waits for one answer here.
CALL_SECONDS = 900.0
"""Bound of one call."""


@dataclass
class ThroughGateway:
    """A gateway's client, and what was learned of what it serves."""

    client: AsyncClient
    where: str
    """The gateway's address, for the report."""
    collection: str = ""
    """Searched as it is; empty: one is made of the set's documents, named after it."""
    _mixings: dict[str, AnyMixing] = field(default_factory=dict)
    _models: dict[str, str] = field(default_factory=dict)

    @property
    def description(self) -> Mapping[str, str]:
        """What answered, for the report."""
        return {"how": f"through the gateway at {self.where}", **self._models}

    @property
    def recommended(self) -> Recommended:
        """What the reranker's model recommends, once `identify` was called; nobody says what makes its scores."""
        return Recommended(self._mixings, activation="")

    async def identify(self, judged: JudgedSet, asking: Asking, progress: Progress) -> Mapping[str, str]:
        """What answers, whatever its address. What is not in the collection yet is ingested first."""
        collection = self.collection or collection_name(judged, asking)
        if not self.collection:
            lexical = LexicalConfig(language=asking.language, average_words=asking.average_words)
            await fill(self.client, collection, judged.documents, progress, lexical=lexical)
        found = await self.client.get_collection(collection)
        self._check_model("bi_encoder", found.embedder_fingerprint)
        for stage in asking.rerank_over if asking.rerank_depth else [DENSE] * asking.exhaustive:
            await self._learn(collection, judged.queries[0], stage)
        as_it_is = {"collection": f"{collection}, {found.document_count:,} documents"} if self.collection else {}
        return {"how": "through a gateway", **as_it_is, **self._models}

    async def answers(self, judged: JudgedSet, asking: Asking, progress: Progress) -> AsyncGenerator[Answer, None]:
        """One answer a query, in the set's order, out of the collection that `identify` filled."""
        collection = self.collection or collection_name(judged, asking)
        task = progress.add_task(f"search {judged.name}", total=len(judged.queries))

        async def work(query: JudgedQuery) -> Answer:
            return await self._answer(collection, query, asking)

        async for answer in in_order(judged.queries, work, at_once=_QUERIES_AT_ONCE):
            yield answer
            progress.advance(task)

    async def _learn(self, collection: str, query: JudgedQuery, stage: str) -> None:
        """How answers over a first stage are mixed by default, and by what model: one search says it."""
        kind = _FIRST_STAGES[stage][1]
        found = await self._reranked(collection, query, mode=SearchMode.TWO_STAGE, kind=kind, limit=1, depth=1)
        if found.score_mixing:
            self._mixings[stage] = ScoreMixing(**asdict(found.score_mixing))
        elif found.mixing:
            self._mixings[stage] = Mixing(**asdict(found.mixing))

    def _check_model(self, kind: str, fingerprint: str) -> None:
        """Raises FailedPrecondition if it is not the one that answered before."""
        before = self._models.setdefault(kind, fingerprint[:12])
        if before != fingerprint[:12]:
            raise FailedPrecondition(
                f"another {kind.replace('_', '-')} answers than a moment ago ({fingerprint[:12]}, not {before}): "
                f"evaluate again while the services stay as they are",
                reason="MODEL_CHANGED",
            )

    async def _answer(self, collection: str, query: JudgedQuery, asking: Asking) -> Answer:
        stages = {}
        fusion = RankFusion(
            k=asking.fusion.k, dense_weight=asking.fusion.dense_weight, lexical_weight=asking.fusion.lexical_weight
        )
        for name, (mode, kind) in _FIRST_STAGES.items():
            found = await self.client.search(
                collection,
                query.text,
                limit=asking.first_depth,
                mode=mode,
                retrieval=kind,
                fusion=fusion if kind is RetrievalKind.HYBRID else None,
                omit_text=True,
                omit_metadata=True,
            )
            _check(found)
            if found.embedder_fingerprint:
                self._check_model("bi_encoder", found.embedder_fingerprint)
            stages[name] = _order(found)
        scores: dict[str, float] = {}
        exhaustive = None
        if asking.exhaustive:
            found = await self._reranked(collection, query, mode=SearchMode.EXHAUSTIVE, limit=MAX_LIMIT)
            exhaustive = _order(found)
            scores = dict(zip(exhaustive.ids, exhaustive.scores, strict=True))
        missing = [id_ for id_ in asking.candidates(stages) if id_ not in scores]
        if missing:
            scores |= await self._scores(collection, query, missing)
        return Answer(query=query, first_stages=stages, rerank_scores=scores, exhaustive=exhaustive)

    async def _scores(self, collection: str, query: JudgedQuery, candidates: Sequence[str]) -> dict[str, float]:
        """The reranker's score of every candidate, by one search among these documents alone."""
        found = await self._reranked(collection, query, mode=SearchMode.TWO_STAGE, among=candidates)
        scores = {hit.document.id: hit.rerank.score for hit in found.hits if hit.rerank}
        if left := [id_ for id_ in candidates if id_ not in scores]:
            raise FailedPrecondition(
                f"the reranker scored {len(scores)} of {len(candidates)} candidates of the query {query.id}; "
                f"{left[0]} is among those without a score",
                reason="NOT_SCORED",
            )
        return scores

    async def _reranked(
        self,
        collection: str,
        query: JudgedQuery,
        *,
        mode: SearchMode,
        kind: RetrievalKind | None = RetrievalKind.DENSE,
        among: Sequence[str] = (),
        limit: int | None = None,
        depth: int | None = None,
    ) -> SearchResult:
        found = await self.client.search(
            collection,
            query.text,
            limit=limit or len(among),
            depth=depth or len(among) or None,
            mode=mode,
            retrieval=kind,
            exact=True,
            where=ids(*among) if among else None,
            require_rerank=True,
            omit_text=True,
            omit_metadata=True,
        )
        _check(found)
        self._check_model("cross_encoder", found.reranker_fingerprint)
        return found


def collection_name(judged: JudgedSet, asking: Asking) -> str:
    """Of the collection that a set is ingested into: other documents or another BM25 are another collection."""
    usual = Asking()
    parts = [judged.name]
    if judged.prefix:
        parts.append(judged.prefix.strip("-_"))
    if asking.average_words != usual.average_words:
        parts.append(f"{asking.average_words}-words")
    if asking.language != usual.language:
        parts.append(asking.language)
    return collection_of("-".join(parts))


def _order(found: SearchResult) -> Order:
    """Ids by the score that counts: the reranker's where it scored, that of retrieval else."""
    hits = [(hit.document.id, hit.rerank.score if hit.rerank else hit.score) for hit in found.hits]
    if any(hit.rerank for hit in found.hits):
        # Mixed, the answer is in another order.
        hits.sort(key=lambda hit: (-hit[1], hit[0]))
    return Order([id_ for id_, _ in hits], [score for _, score in hits])


def _check(found: SearchResult) -> None:
    """Raises Unavailable for an answer that is less than what was asked for; that a query was cut is none such."""
    for degradation in found.degradations:
        if degradation.kind is not DegradationKind.QUERY_TRUNCATED:
            raise Unavailable(
                f"an answer was degraded and cannot be measured: {degradation.message}", reason="DEGRADED"
            )
