"""What a search can be told, as its message."""

from __future__ import annotations

import math
from typing import Unpack

from winnow.search.v1 import documents_pb2, search_pb2
from winnow_client import conversions
from winnow_client.searching import DepthPolicy, Effort, RankingPolicy, RetrievalKind, SearchMode, SearchOptions
from winnow_rpc.faults import InvalidArgument


def search_request(collection: str, query: str, **options: Unpack[SearchOptions]) -> search_pb2.SearchRequest:
    """The message. Raises InvalidArgument for a count or a budget of 0, and for what the contract cannot carry."""
    where, fusion, mixing = options.get("where"), options.get("fusion"), options.get("mixing")
    request = search_pb2.SearchRequest(
        collection=collection,
        query=query,
        limit=given(options.get("limit"), "limit"),
        depth=given(options.get("depth"), "depth"),
        filter=None if where is None else conversions.filter_to_proto(where),
        view=documents_pb2.DocumentView(
            omit_text=options.get("omit_text", False), omit_metadata=options.get("omit_metadata", False)
        ),
        retrieval=search_pb2.RetrievalOptions(
            ef=given(options.get("ef"), "ef"),
            exact=options.get("exact", False),
            fusion=None if fusion is None else conversions.fusion_to_proto(fusion),
        ),
        mixing=None if mixing is None else conversions.mixing_to_proto(mixing),
        min_retrieval_score=options.get("min_retrieval_score"),
        min_rerank_score=options.get("min_rerank_score"),
        min_probability=options.get("min_probability"),
        require_rerank=options.get("require_rerank", False),
        budget_micros=_micros(options.get("budget")),
    )
    if (mode := options.get("mode")) is not None:
        request.mode = conversions.enum_to_proto(SearchMode(mode))
    if (retrieval := options.get("retrieval")) is not None:
        request.retrieval.kind = conversions.enum_to_proto(RetrievalKind(retrieval))
    if (policy := options.get("ranking_policy")) is not None:
        request.ranking_policy = conversions.enum_to_proto(RankingPolicy(policy))
    if (depth_policy := options.get("depth_policy")) is not None:
        request.depth_policy = conversions.enum_to_proto(DepthPolicy(depth_policy))
    if (effort := options.get("effort")) is not None:
        request.effort = conversions.enum_to_proto(Effort(effort))
    return request


def given(value: int | None, name: str) -> int:
    """A number for a field whose 0 means the default; a 0 that the caller meant is refused instead."""
    if value is None:
        return 0
    if value == 0:
        raise InvalidArgument(f"{name} is 0; it must be at least 1", field=name, reason="OUT_OF_RANGE")
    return value


def _micros(budget: float | None) -> int | None:
    if budget is None:
        return None
    if not 0 < budget < math.inf:
        raise InvalidArgument(
            f"budget is {budget} s; it must be above 0 and finite", field="budget", reason="OUT_OF_RANGE"
        )
    return round(budget * 1e6)
