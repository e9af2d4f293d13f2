"""Searches of a collection with BM25: both kinds of retrieval, and what is left when the embedder is not there."""

import time

import pytest

from tests.contract.gateway.calls import TEXTS, fault, ingest, search
from tests.contract.gateway.conftest import Gateway
from winnow.search.v1 import documents_pb2 as d
from winnow.search.v1 import search_pb2 as s
from winnow_gateway.collections import CollectionSpec, LexicalConfig
from winnow_rpc import faults

RETRIEVE = s.SEARCH_MODE_RETRIEVE


async def fill_lexical(gateway: Gateway) -> None:
    spec = CollectionSpec(name="docs", embedder=gateway.embedder.served, lexical=LexicalConfig())
    await gateway.index.create_collection(spec)
    await ingest(gateway, [d.Document(id=id_, text=text) for id_, text in TEXTS.items()])


def kind(which: s.RetrievalKind) -> s.RetrievalOptions:
    return s.RetrievalOptions(kind=which)


async def test_both_kinds_are_fused_unless_told_otherwise(gateway: Gateway) -> None:
    await fill_lexical(gateway)
    response = await gateway.stub.Search(search(mode=RETRIEVE))
    assert response.retrieval_kind == s.RETRIEVAL_KIND_HYBRID
    dense = await gateway.stub.Search(search(mode=RETRIEVE, retrieval=kind(s.RETRIEVAL_KIND_DENSE)))
    assert dense.retrieval_kind == s.RETRIEVAL_KIND_DENSE
    assert gateway.index.retrievals == [(True, True), (True, False)]


async def test_bm25_alone_embeds_nothing(gateway: Gateway) -> None:
    await fill_lexical(gateway)
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_LEXICAL))
    assert (response.mode, response.retrieval_kind) == (s.SEARCH_MODE_LEXICAL, s.RETRIEVAL_KIND_LEXICAL)
    assert [hit.document.id for hit in response.hits] == ["dogs", "birds", "cats"]
    assert not response.degradations
    assert (gateway.embedder.queries, gateway.reranker.calls) == (0, 0)
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_LEXICAL, min_retrieval_score=0.99))
    assert len(response.hits) == 3, "a least similarity does not judge BM25"


async def test_without_bm25_asking_for_it_is_a_failed_precondition(gateway: Gateway) -> None:
    await gateway.index.create_collection(CollectionSpec(name="docs", embedder=gateway.embedder.served))
    for asked in ({"mode": s.SEARCH_MODE_LEXICAL}, {"retrieval": kind(s.RETRIEVAL_KIND_HYBRID)}):
        came = await fault(gateway.stub.Search(search(**asked)))
        assert isinstance(came, faults.FailedPrecondition)
        assert came.reason == "NO_LEXICAL_INDEX"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (faults.Unavailable("it cannot be reached"), "UNAVAILABLE"),
        (faults.Internal("it broke"), "UNAVAILABLE"),
        (faults.ResourceExhausted("its queue is full"), "OVERLOADED"),
    ],
)
async def test_without_the_embedder_bm25_answers_and_says_so(
    gateway: Gateway, failure: faults.Fault, reason: str
) -> None:
    await fill_lexical(gateway)
    gateway.embedder.failures = [failure] * 2
    # Cosines are at most 1: a least score of theirs must not be held against BM25's.
    response = await gateway.stub.Search(search(min_retrieval_score=0.99, mode=s.SEARCH_MODE_TWO_STAGE))
    (degradation,) = response.degradations
    assert (degradation.kind, degradation.reason) == (s.DEGRADATION_KIND_EMBEDDER_UNAVAILABLE, reason)
    assert failure.message in degradation.message
    assert response.retrieval_kind == s.RETRIEVAL_KIND_LEXICAL
    assert (response.hits[0].document.id, response.reranked_count) == ("dogs", 3)
    assert not response.embedder_fingerprint
    response = await gateway.stub.Search(search(mode=RETRIEVE, retrieval=kind(s.RETRIEVAL_KIND_DENSE)))
    assert response.retrieval_kind == s.RETRIEVAL_KIND_LEXICAL
    assert len(response.degradations) == 1


async def test_an_embedder_that_keeps_failing_is_given_a_pause(gateway: Gateway) -> None:
    await fill_lexical(gateway)
    gateway.embedder.failures = [faults.Unavailable("it cannot be reached")] * 5
    reasons = []
    for _ in range(6):
        response = await gateway.stub.Search(search(mode=RETRIEVE))
        reasons += [each.reason for each in response.degradations]
    assert reasons == ["UNAVAILABLE"] * 5 + ["BREAKER_OPEN"]


async def test_an_embedder_that_takes_too_long_leaves_the_time_for_bm25(gateway: Gateway) -> None:
    await fill_lexical(gateway)
    gateway.embedder.delay = 1000
    began = time.perf_counter()
    response = await gateway.stub.Search(search(mode=RETRIEVE, budget_micros=200_000))
    assert time.perf_counter() - began < 5
    (degradation,) = response.degradations
    assert (degradation.kind, degradation.reason) == (s.DEGRADATION_KIND_EMBEDDER_UNAVAILABLE, "NO_TIME")
    assert response.hits


async def test_without_embedder_and_bm25_the_search_fails_with_the_reason(gateway: Gateway) -> None:
    await gateway.index.create_collection(CollectionSpec(name="docs", embedder=gateway.embedder.served))
    gateway.embedder.failures = [faults.Unavailable("it cannot be reached", reason="EMBEDDER_UNAVAILABLE")] * 5
    for reason in ["EMBEDDER_UNAVAILABLE"] * 5 + ["BREAKER_OPEN"]:
        came = await fault(gateway.stub.Search(search()))
        assert isinstance(came, faults.Unavailable)
        assert came.reason == reason


async def test_all_documents_are_reranked_though_bm25_names_only_some(gateway: Gateway) -> None:
    await fill_lexical(gateway)
    gateway.embedder.failures = [faults.Unavailable("it cannot be reached")]
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_EXHAUSTIVE))
    assert (response.retrieval_kind, response.reranked_count) == (s.RETRIEVAL_KIND_LEXICAL, 4)
    assert {hit.document.id: hit.retrieval.score for hit in response.hits}["foxes"] == 0.0


async def test_an_index_that_keeps_failing_is_refused_at_once(gateway: Gateway) -> None:
    await fill_lexical(gateway)
    gateway.index.read_failure = faults.Unavailable("the index cannot be reached", reason="INDEX_UNAVAILABLE")
    for reason in ["INDEX_UNAVAILABLE"] * 5 + ["BREAKER_OPEN"]:
        came = await fault(gateway.stub.Search(search()))
        assert isinstance(came, faults.Unavailable)
        assert came.reason == reason
    assert len(gateway.index.retrievals) == 5
