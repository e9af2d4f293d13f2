"""What the first stage looks at: vectors, BM25, or both, over a real connection."""

import pytest

from tests.contract.gateway.calls import TEXTS, fault, fill, ingest, search
from tests.contract.gateway.conftest import Gateway
from tests.fakes.backends import FakeEmbedder
from winnow.search.v1 import collections_pb2 as c
from winnow.search.v1 import documents_pb2 as d
from winnow.search.v1 import search_pb2 as s
from winnow_gateway.ordering import DEFAULT_FUSION
from winnow_rpc import faults

DENSE = s.RetrievalOptions(kind=s.RETRIEVAL_KIND_DENSE)
HYBRID = s.RetrievalOptions(kind=s.RETRIEVAL_KIND_HYBRID)


async def fill_without_bm25(gateway: Gateway) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs", without_lexical=True))
    await ingest(gateway, [d.Document(id=id_, text=text) for id_, text in TEXTS.items()])


async def test_the_first_stage_is_hybrid_where_the_collection_has_bm25(gateway: Gateway) -> None:
    await fill(gateway)
    for mode in (s.SEARCH_MODE_RETRIEVE, s.SEARCH_MODE_TWO_STAGE):
        response = await gateway.stub.Search(search(mode=mode))
        assert response.retrieval_kind == s.RETRIEVAL_KIND_HYBRID
        # First by vectors and by BM25: "dogs" alone holds both words.
        best = next(hit for hit in response.hits if hit.retrieval.rank == 1)
        fusion = DEFAULT_FUSION
        shares = [fusion.share(1, weight) for weight in (fusion.dense_weight, fusion.lexical_weight)]
        assert (best.document.id, best.retrieval.score) == ("dogs", pytest.approx(sum(shares)))


async def test_vectors_alone_answer_by_request(gateway: Gateway) -> None:
    await fill(gateway)
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_RETRIEVE, retrieval=DENSE))
    assert response.retrieval_kind == s.RETRIEVAL_KIND_DENSE
    assert len(response.hits) == len(TEXTS)
    assert all(-1.001 <= hit.retrieval.score <= 1.001 for hit in response.hits)


async def test_the_request_may_say_how_to_fuse(gateway: Gateway) -> None:
    await fill(gateway)
    fusion = s.RankFusion(k=7, dense_weight=1, lexical_weight=4)
    retrieval = s.RetrievalOptions(fusion=fusion)
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_RETRIEVE, retrieval=retrieval))
    assert response.hits[0].score == pytest.approx(1 / (1 + 6) + 1 / (1 / 4 + 6))


async def test_bm25_alone_needs_neither_embedder_nor_reranker(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.embedder.failures.append(faults.Unavailable("the embedder cannot be reached"))
    gateway.embedder.served = FakeEmbedder("0" * 64).served
    gateway.reranker.failure = faults.Unavailable("the reranker cannot be reached")
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_LEXICAL, min_retrieval_score=1000.0))
    assert (response.mode, response.retrieval_kind) == (s.SEARCH_MODE_LEXICAL, s.RETRIEVAL_KIND_LEXICAL)
    assert [hit.document.id for hit in response.hits] == ["dogs", "birds", "cats"]
    assert (response.embedder_fingerprint, response.reranked_count) == ("", 0)
    assert (response.timing.embed_micros, response.timing.rerank_micros) == (0, 0)


async def test_a_collection_without_bm25_is_searched_by_vectors(gateway: Gateway) -> None:
    await fill_without_bm25(gateway)
    for fields in ({}, {"retrieval": DENSE}):
        response = await gateway.stub.Search(search(**fields))
        assert response.retrieval_kind == s.RETRIEVAL_KIND_DENSE
        assert response.hits[0].document.id == "dogs"


async def test_bm25_of_a_collection_without_it_is_a_failed_precondition(gateway: Gateway) -> None:
    await fill_without_bm25(gateway)
    for request in (search(retrieval=HYBRID), search(mode=s.SEARCH_MODE_LEXICAL)):
        came = await fault(gateway.stub.Search(request))
        assert isinstance(came, faults.FailedPrecondition)
        assert came.reason == "NO_LEXICAL_INDEX"
        assert came.metadata["collection"] == "docs"


async def test_words_that_vectors_miss_are_found_by_bm25(gateway: Gateway) -> None:
    await fill(gateway)
    filler = " ".join(f"word{n}" for n in range(gateway.embedder.max_words))
    # The embedder reads the beginning alone; BM25 reads all of it.
    await ingest(gateway, [d.Document(id="long", text=f"{filler} zyzzyva")])
    request = search(query="zyzzyva", mode=s.SEARCH_MODE_RETRIEVE, min_retrieval_score=0.9)
    assert [hit.document.id for hit in (await gateway.stub.Search(request)).hits] == ["long"]
    request.retrieval.kind = s.RETRIEVAL_KIND_DENSE
    assert not (await gateway.stub.Search(request)).hits
