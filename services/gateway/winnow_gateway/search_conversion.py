"""Messages of searches to our values and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import TypeVar

from winnow.search.v1 import search_pb2
from winnow_gateway import planning, validation
from winnow_gateway.conversion import read_filter, read_view, write_document
from winnow_gateway.documents import DocumentView
from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import DEFAULT_FUSION, Fusion, Mixing, StagePlace
from winnow_gateway.outcomes import DegradationKind, Hit, SearchOutcome
from winnow_gateway.planning import DepthPolicy, Effort, RetrievalKind, SearchMode
from winnow_gateway.queries import RankingPolicy, SearchQuery
from winnow_rpc.faults import InvalidArgument

_E = TypeVar("_E", bound=Enum)

MODES = {
    SearchMode.RETRIEVE: search_pb2.SEARCH_MODE_RETRIEVE,
    SearchMode.TWO_STAGE: search_pb2.SEARCH_MODE_TWO_STAGE,
    SearchMode.EXHAUSTIVE: search_pb2.SEARCH_MODE_EXHAUSTIVE,
    SearchMode.LEXICAL: search_pb2.SEARCH_MODE_LEXICAL,
    SearchMode.AUTO: search_pb2.SEARCH_MODE_AUTO,
}
POLICIES = {
    RankingPolicy.RECOMMENDED: search_pb2.RANKING_POLICY_UNSPECIFIED,
    RankingPolicy.RERANKER: search_pb2.RANKING_POLICY_RERANKER,
    RankingPolicy.MIXED: search_pb2.RANKING_POLICY_MIXED,
}
KINDS = {
    RetrievalKind.DENSE: search_pb2.RETRIEVAL_KIND_DENSE,
    RetrievalKind.HYBRID: search_pb2.RETRIEVAL_KIND_HYBRID,
    RetrievalKind.LEXICAL: search_pb2.RETRIEVAL_KIND_LEXICAL,
}
DEPTH_POLICIES = {
    DepthPolicy.WISH: search_pb2.DEPTH_POLICY_WISH,
    DepthPolicy.FLOOR: search_pb2.DEPTH_POLICY_FLOOR,
}
EFFORTS = {
    Effort.FULL: search_pb2.EFFORT_FULL,
    Effort.ECONOMY: search_pb2.EFFORT_ECONOMY,
}
DEGRADATIONS = {
    DegradationKind.RERANK_PARTIAL: search_pb2.DEGRADATION_KIND_RERANK_PARTIAL,
    DegradationKind.RERANK_SKIPPED: search_pb2.DEGRADATION_KIND_RERANK_SKIPPED,
    DegradationKind.EMBEDDER_UNAVAILABLE: search_pb2.DEGRADATION_KIND_EMBEDDER_UNAVAILABLE,
    DegradationKind.INDEX_PARTIAL: search_pb2.DEGRADATION_KIND_INDEX_PARTIAL,
    DegradationKind.QUERY_TRUNCATED: search_pb2.DEGRADATION_KIND_QUERY_TRUNCATED,
}

_AUTO = search_pb2.SEARCH_MODE_AUTO
_WISH = search_pb2.DEPTH_POLICY_WISH
_FULL = search_pb2.EFFORT_FULL


def read_search(message: search_pb2.SearchRequest, *, timeout: float) -> SearchQuery:
    """A search request, checked. `timeout`: seconds until the caller gives up."""
    limit = validation.checked_count(
        message.limit, field="limit", default=planning.DEFAULT_LIMIT, maximum=planning.MAX_LIMIT
    )
    depth = validation.checked_count(
        message.depth, field="depth", default=planning.DEFAULT_DEPTH, maximum=planning.MAX_DEPTH
    )
    retrieval = message.retrieval
    minima = {
        name: validation.checked_score(getattr(message, name), field=name) if message.HasField(name) else None
        for name in ("min_retrieval_score", "min_rerank_score")
    }
    return SearchQuery(
        collection=validation.checked_collection_name(message.collection),
        query=validation.checked_query(message.query),
        limit=limit,
        depth=depth if message.depth else None,
        depth_policy=_named(DEPTH_POLICIES, message.depth_policy or _WISH, field="depth_policy"),
        effort=_named(EFFORTS, message.effort or _FULL, field="effort"),
        require_rerank=message.require_rerank,
        mode=_named(MODES, message.mode or _AUTO, field="mode"),
        kind=_read_kind(retrieval.kind),
        fusion=_read_fusion(retrieval),
        filter=read_filter(message.filter),
        view=read_view(message.view),
        ef=validation.checked_count(retrieval.ef, field="retrieval.ef", default=1, maximum=4096)
        if retrieval.ef
        else None,
        exact=retrieval.exact,
        policy=_named(POLICIES, message.ranking_policy, field="ranking_policy"),
        mixing=_read_mixing(message.mixing) if message.HasField("mixing") else None,
        timeout=timeout,
        min_probability=validation.checked_probability(message.min_probability, field="min_probability")
        if message.HasField("min_probability")
        else None,
        budget=validation.checked_budget(message.budget_micros) if message.HasField("budget_micros") else None,
        **minima,
    )


def _named(table: Mapping[_E, int], number: int, *, field: str) -> _E:
    for value, known in table.items():
        if known == number:
            return value
    raise InvalidArgument(f"{field} has the unknown value {number}", field=field, reason="UNKNOWN_VALUE")


def _read_kind(number: int) -> RetrievalKind | None:
    if not number:
        return None
    kind = _named(KINDS, number, field="retrieval.kind")
    if kind is RetrievalKind.LEXICAL:
        raise InvalidArgument(
            "BM25 alone is a mode of its own, LEXICAL", field="retrieval.kind", reason="LEXICAL_IS_A_MODE"
        )
    return kind


def _read_fusion(message: search_pb2.RetrievalOptions) -> Fusion:
    if not message.HasField("fusion"):
        return DEFAULT_FUSION
    given = message.fusion
    fusion = Fusion(given.k, given.dense_weight, given.lexical_weight)
    return validation.checked_fusion(fusion, field="retrieval.fusion")


def _read_mixing(message: search_pb2.RankMixing) -> Mixing:
    if not (1 <= message.k < float("inf")):
        raise InvalidArgument(f"mixing.k is {message.k}: at least 1", field="mixing.k", reason="OUT_OF_RANGE")
    for name, least_allowed in (("retrieval_weight", True), ("rerank_weight", False)):
        weight = getattr(message, name)
        if not (0 <= weight < float("inf")) or (weight == 0 and not least_allowed):
            bound = "0 or more" if least_allowed else "above 0"
            raise InvalidArgument(f"mixing.{name} is {weight}: {bound}", field=f"mixing.{name}", reason="OUT_OF_RANGE")
    return Mixing(message.k, message.retrieval_weight, message.rerank_weight)


def write_search(outcome: SearchOutcome, view: DocumentView) -> search_pb2.SearchResponse:
    """The answer to a search."""
    timing = outcome.timing
    response = search_pb2.SearchResponse(
        hits=[_write_hit(hit, rank, view) for rank, hit in enumerate(outcome.hits, start=1)],
        mode=MODES[outcome.mode],
        mode_reason=outcome.mode_reason,
        candidate_count=outcome.candidate_count,
        reranked_count=outcome.reranked_count,
        timing=search_pb2.SearchTiming(
            total_micros=timing.total_micros,
            embed_micros=timing.embed_micros,
            retrieve_micros=timing.retrieve_micros,
            rerank_micros=timing.rerank_micros,
            gateway_micros=timing.gateway_micros,
            embed_inference_micros=timing.embed_inference_micros,
            rerank_inference_micros=timing.rerank_inference_micros,
            embed_token_count=timing.embed_token_count,
            rerank_token_count=timing.rerank_token_count,
        ),
        degradations=[
            search_pb2.Degradation(
                kind=DEGRADATIONS[each.kind],
                reason=each.reason,
                message=each.message,
                affected_count=each.affected_count,
            )
            for each in outcome.degradations
        ],
        embedder_fingerprint=outcome.embedder_fingerprint,
        reranker_fingerprint=outcome.reranker_fingerprint,
        retrieval_kind=KINDS[outcome.kind],
        planned_depth=outcome.planned_depth,
    )
    if isinstance(outcome.mixing, ScoreMixing):
        response.score_mixing.CopyFrom(search_pb2.ScoreMixing(**asdict(outcome.mixing)))
    elif outcome.mixing:
        response.mixing.CopyFrom(
            search_pb2.RankMixing(
                k=outcome.mixing.k,
                retrieval_weight=outcome.mixing.retrieval_weight,
                rerank_weight=outcome.mixing.rerank_weight,
            )
        )
    return response


def _write_hit(hit: Hit, rank: int, view: DocumentView) -> search_pb2.Hit:
    return search_pb2.Hit(
        document=write_document(hit.document, view),
        rank=rank,
        score=hit.place.score,
        retrieval=_write_place(hit.place.retrieval),
        rerank=_write_place(hit.place.rerank),
        dense=_write_place(hit.dense),
        lexical=_write_place(hit.lexical),
        probability=hit.probability,
    )


def _write_place(place: StagePlace | None) -> search_pb2.StageResult | None:
    return search_pb2.StageResult(score=place.score, rank=place.rank) if place else None
