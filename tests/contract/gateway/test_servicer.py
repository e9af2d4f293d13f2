"""The search contract, over a real connection: what each call answers, and how it refuses what is wrong."""

import math
from collections.abc import Awaitable, Iterable
from typing import Any

import grpc
import pytest

from tests.contract.gateway.conftest import Gateway
from tests.fakes.backends import FakeEmbedder
from winnow.search.v1 import collections_pb2 as c
from winnow.search.v1 import documents_pb2 as d
from winnow.search.v1 import search_pb2 as s
from winnow_gateway.ordering import Mixing
from winnow_rpc import faults
from winnow_rpc.status import fault_from_rpc_error, fault_of

TEXTS = {
    "cats": "the cat sat on the mat",
    "dogs": "the dog chased the cat up a tree",
    "foxes": "a quick brown fox jumped over it",
    "birds": "birds sing in the tree",
}


async def fault(call: Awaitable[Any]) -> faults.Fault:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return fault_from_rpc_error(caught.value)


def violated(came: faults.Fault) -> str:
    assert isinstance(came, faults.InvalidArgument), came
    (violation,) = came.violations
    return violation.field


async def ingest(gateway: Gateway, *batches: Iterable[d.Document], name: str = "docs") -> list[d.IngestAcknowledgement]:
    requests = [d.IngestDocumentsRequest(header=d.IngestHeader(collection=name))]
    requests += [d.IngestDocumentsRequest(batch=d.DocumentBatch(documents=batch)) for batch in batches]
    call = gateway.stub.IngestDocuments(iter(requests), timeout=10)
    return [acknowledged async for response in call for acknowledged in response.acknowledgements]


async def fill(gateway: Gateway) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    documents = [d.Document(id=id_, text=text) for id_, text in TEXTS.items()]
    for position, document in enumerate(documents):
        document.metadata.update({"number": position, "kind": "animal"})
    acknowledged = await ingest(gateway, documents)
    assert {each.outcome for each in acknowledged} == {d.INGEST_OUTCOME_INDEXED}


def search(**fields: Any) -> s.SearchRequest:
    return s.SearchRequest(**{"collection": "docs", "query": "cat tree", **fields})


# Collections


async def test_a_collection_is_bound_to_the_model_that_is_served(gateway: Gateway) -> None:
    request = c.CreateCollectionRequest(
        name="docs",
        description="all of them",
        metadata_fields=[c.MetadataField(key="year", type=c.METADATA_TYPE_INTEGER)],
        hnsw=c.HnswConfig(m=32),
    )
    made = (await gateway.stub.CreateCollection(request)).collection
    assert made.embedder_fingerprint == gateway.embedder.served.fingerprint
    assert made.hnsw == c.HnswConfig(m=32, ef_construct=128)
    assert (made.similarity, made.dimension) == (c.SIMILARITY_COSINE, 64)
    got = (await gateway.stub.GetCollection(c.GetCollectionRequest(name="docs"))).collection
    assert got == made


async def test_collections_are_listed_by_name_in_pages(gateway: Gateway) -> None:
    for name in ("c", "a", "e", "b", "d"):
        await gateway.stub.CreateCollection(c.CreateCollectionRequest(name=name))
    names: list[list[str]] = []
    token = ""
    while True:
        page = await gateway.stub.ListCollections(c.ListCollectionsRequest(page_size=2, page_token=token))
        names.append([each.name for each in page.collections])
        token = page.next_page_token
        if not token:
            break
    assert names == [["a", "b"], ["c", "d"], ["e"]]


async def test_deleting_a_collection_says_how_much_was_in_it(gateway: Gateway) -> None:
    await fill(gateway)
    deleted = await gateway.stub.DeleteCollection(c.DeleteCollectionRequest(name="docs"))
    assert deleted.deleted_document_count == len(TEXTS)
    assert isinstance(await fault(gateway.stub.GetCollection(c.GetCollectionRequest(name="docs"))), faults.NotFound)


@pytest.mark.parametrize("name", ["", "-a", "a/b", "ä", "a" * 129, "a b"])
async def test_a_bad_collection_name_is_refused(gateway: Gateway, name: str) -> None:
    assert violated(await fault(gateway.stub.CreateCollection(c.CreateCollectionRequest(name=name)))) == "name"


async def test_a_name_that_is_taken_is_refused(gateway: Gateway) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    came = await fault(gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs")))
    assert isinstance(came, faults.AlreadyExists)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (c.CreateCollectionRequest(name="x", hnsw=c.HnswConfig(m=3)), "hnsw.m"),
        (c.CreateCollectionRequest(name="x", hnsw=c.HnswConfig(ef_construct=5000)), "hnsw.ef_construct"),
        (c.CreateCollectionRequest(name="x", description="d" * 1025), "description"),
        (c.CreateCollectionRequest(name="x", metadata_fields=[c.MetadataField(key="k")]), "metadata_fields[0].type"),
        (
            c.CreateCollectionRequest(name="x", metadata_fields=[c.MetadataField(key="a..b", type=1)]),
            "metadata_fields[0].key",
        ),
        (
            c.CreateCollectionRequest(name="x", metadata_fields=[c.MetadataField(key="k", type=1)] * 2),
            "metadata_fields[1].key",
        ),
        (
            c.CreateCollectionRequest(
                name="x", metadata_fields=[c.MetadataField(key=f"k{i}", type=1) for i in range(65)]
            ),
            "metadata_fields",
        ),
    ],
)
async def test_a_bad_collection_is_refused_by_field(
    gateway: Gateway, request_: c.CreateCollectionRequest, field: str
) -> None:
    assert violated(await fault(gateway.stub.CreateCollection(request_))) == field


# Documents


async def test_a_document_comes_back_with_its_metadata_whole(gateway: Gateway) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    document = d.Document(id="ä/1 #?", title="Title", text="Text ☕")
    document.metadata.update({"int": 3, "float": 0.5, "list": [1, None, {"deep": True}], "big": 2.0**60})
    await ingest(gateway, [document])
    response = await gateway.stub.GetDocument(d.GetDocumentRequest(collection="docs", id="ä/1 #?"))
    assert response.document == document
    assert response.update_time.seconds > 0
    stored = gateway.index.held["docs"].points["ä/1 #?"][0].document.metadata
    assert isinstance(stored["int"], int)
    assert isinstance(stored["big"], float)


async def test_a_document_that_is_not_there_is_not_found(gateway: Gateway) -> None:
    await fill(gateway)
    came = await fault(gateway.stub.GetDocument(d.GetDocumentRequest(collection="docs", id="unknown")))
    assert isinstance(came, faults.NotFound)
    assert came.reason == "NO_DOCUMENT"
    assert came.metadata == {"collection": "docs", "id": "unknown"}


async def test_documents_are_listed_in_pages_with_what_was_asked_for(gateway: Gateway) -> None:
    await fill(gateway)
    seen: list[str] = []
    token = ""
    while True:
        page = await gateway.stub.ListDocuments(
            d.ListDocumentsRequest(
                collection="docs", page_size=3, page_token=token, view=d.DocumentView(omit_text=True)
            )
        )
        assert all(not each.text and each.metadata["kind"] == "animal" for each in page.documents)
        seen += [each.id for each in page.documents]
        token = page.next_page_token
        if not token:
            break
    assert sorted(seen) == sorted(TEXTS)


async def test_documents_are_deleted_by_id_or_by_filter(gateway: Gateway) -> None:
    await fill(gateway)
    by_id = d.DeleteDocumentsRequest(collection="docs", ids=["cats", "unknown", "cats"])
    assert (await gateway.stub.DeleteDocuments(by_id)).deleted_document_count == 1
    large = d.Condition(range=d.RangeCondition(key="number", at_least=2))
    by_filter = d.DeleteDocumentsRequest(collection="docs", filter=d.Filter(must=[large]))
    assert (await gateway.stub.DeleteDocuments(by_filter)).deleted_document_count == 2
    assert list(gateway.index.held["docs"].points) == ["dogs"]


@pytest.mark.parametrize("request_", [
    d.DeleteDocumentsRequest(collection="docs"),
    d.DeleteDocumentsRequest(collection="docs", filter=d.Filter()),
    d.DeleteDocumentsRequest(
        collection="docs", ids=["a"], filter=d.Filter(must=[d.Condition(exists=d.ExistsCondition(key="k"))])
    ),
])  # fmt: skip
async def test_deleting_wants_ids_or_a_filter_and_not_both(
    gateway: Gateway, request_: d.DeleteDocumentsRequest
) -> None:
    assert violated(await fault(gateway.stub.DeleteDocuments(request_))) == "ids"


# Ingest


async def test_each_bad_document_is_refused_with_its_field_and_the_others_are_written(gateway: Gateway) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    nan, deep, big = (d.Document(id=id_, text="x") for id_ in ("nan", "deep", "big"))
    nan.metadata.update({"score": math.nan})
    value: Any = 1
    for _ in range(20):
        value = [value]
    deep.metadata.update({"d": value})
    big.metadata.update({"blob": "x" * 70_000})
    acknowledged = await ingest(
        gateway,
        [
            d.Document(id="good", text="fine"),
            d.Document(text="no id"),
            d.Document(id="i" * 513, text="x"),
            d.Document(id="blank", text=" \n\t"),
            d.Document(id="long", text="x" * (1024 * 1024 + 1)),
            d.Document(id="title", title="x" * 4097, text="x"),
            nan,
            deep,
            big,
            d.Document(id="good", text="again"),
            d.Document(id="fine too", title="a title is enough"),
        ],
    )
    places = [
        "",
        "id",
        "id",
        "text",
        "text",
        "title",
        "metadata.score",
        "metadata.d" + "[0]" * 16,
        "metadata",
        "id",
        "",
    ]
    for position, (each, place) in enumerate(zip(acknowledged, places, strict=True)):
        assert each.sequence == position
        if not place:
            assert each.outcome == d.INGEST_OUTCOME_INDEXED
            continue
        assert each.outcome == d.INGEST_OUTCOME_REFUSED
        assert violated(fault_of(each.refusal)) == f"batch.documents[{position}].{place}"
    assert sorted(gateway.index.held["docs"].points) == ["fine too", "good"]
    assert gateway.index.held["docs"].points["good"][0].document.text == "fine"


async def test_a_second_ingest_of_the_same_documents_embeds_nothing(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.embedder.embedded_passages.clear()
    documents = [d.Document(id=id_, text=text) for id_, text in TEXTS.items()]
    for position, document in enumerate(documents):
        document.metadata.update({"kind": "animal", "number": position})
    acknowledged = await ingest(gateway, documents[:2], documents[2:])
    assert {each.outcome for each in acknowledged} == {d.INGEST_OUTCOME_UNCHANGED}
    assert gateway.embedder.embedded_passages == []


async def test_an_ingest_must_begin_with_its_header(gateway: Gateway) -> None:
    batch = d.IngestDocumentsRequest(batch=d.DocumentBatch(documents=[d.Document(id="a", text="x")]))
    header = d.IngestDocumentsRequest(header=d.IngestHeader(collection="docs"))
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    for requests, field in (([], "header"), ([batch], "header"), ([header, header], "batch")):
        call = gateway.stub.IngestDocuments(iter(requests), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert violated(fault_from_rpc_error(caught.value)) == field


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_of_a_wrong_size_is_refused(gateway: Gateway, count: int) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ingest(gateway, [d.Document(id=str(i), text="x") for i in range(count)])
    assert violated(fault_from_rpc_error(caught.value)) == "batch.documents"


async def test_an_ingest_into_an_unknown_collection_is_not_found(gateway: Gateway) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ingest(gateway, [d.Document(id="a", text="x")], name="nope")
    assert isinstance(fault_from_rpc_error(caught.value), faults.NotFound)


# Search


async def test_retrieval_alone_shows_its_scores_and_ranks(gateway: Gateway) -> None:
    await fill(gateway)
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_RETRIEVE, limit=3))
    assert response.mode == s.SEARCH_MODE_RETRIEVE
    assert [hit.rank for hit in response.hits] == [1, 2, 3]
    assert [hit.retrieval.rank for hit in response.hits] == [1, 2, 3]
    assert not any(hit.HasField("rerank") for hit in response.hits)
    assert all(hit.score == hit.retrieval.score for hit in response.hits)
    assert (response.candidate_count, response.reranked_count) == (3, 0)
    assert not response.reranker_fingerprint
    assert gateway.reranker.passages == []


async def test_two_stages_order_by_the_reranker_and_show_both(gateway: Gateway) -> None:
    await fill(gateway)
    response = await gateway.stub.Search(search(limit=2))
    assert response.mode == s.SEARCH_MODE_TWO_STAGE
    # "dogs" alone holds both words of the query.
    assert response.hits[0].document.id == "dogs"
    assert response.hits[0].rerank == s.StageResult(score=2.0, rank=1)
    assert response.hits[0].score == 2.0
    assert (response.candidate_count, response.reranked_count, len(response.hits)) == (4, 4, 2)
    assert response.reranker_fingerprint == gateway.reranker.served.fingerprint
    assert not response.degradations
    assert not response.HasField("mixing")


async def test_only_the_best_candidates_to_the_depth_are_reranked_the_others_follow(gateway: Gateway) -> None:
    await fill(gateway)
    response = await gateway.stub.Search(search(limit=4, depth=2))
    assert (response.candidate_count, response.reranked_count) == (4, 2)
    assert [hit.HasField("rerank") for hit in response.hits] == [True, True, False, False]
    assert {hit.retrieval.rank for hit in response.hits[:2]} == {1, 2}


async def test_the_timing_adds_up(gateway: Gateway) -> None:
    await fill(gateway)
    timing = (await gateway.stub.Search(search())).timing
    stages = timing.embed_micros + timing.retrieve_micros + timing.rerank_micros
    assert timing.total_micros == stages + timing.gateway_micros
    assert min(timing.embed_micros, timing.retrieve_micros, timing.rerank_micros, timing.gateway_micros) > 0
    assert timing.embed_token_count == 2
    assert timing.rerank_token_count == 14


async def test_the_models_mixing_is_the_default_and_the_request_may_say_otherwise(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.reranker.served = type(gateway.reranker.served)("m", "c" * 64, Mixing(10, 1, 2))
    default = await gateway.stub.Search(search())
    assert default.mixing == s.RankMixing(k=10, retrieval_weight=1, rerank_weight=2)
    best = default.hits[0]
    assert best.score == pytest.approx(1 / (10 + best.retrieval.rank) + 2 / (10 + best.rerank.rank), rel=1e-6)
    alone = await gateway.stub.Search(search(ranking_policy=s.RANKING_POLICY_RERANKER))
    assert not alone.HasField("mixing")
    mixing = s.RankMixing(k=1, retrieval_weight=5, rerank_weight=1)
    own = await gateway.stub.Search(search(ranking_policy=s.RANKING_POLICY_MIXED, mixing=mixing))
    assert own.mixing == mixing


async def test_a_mixing_that_nobody_gives_is_a_failed_precondition(gateway: Gateway) -> None:
    await fill(gateway)
    came = await fault(gateway.stub.Search(search(ranking_policy=s.RANKING_POLICY_MIXED)))
    assert isinstance(came, faults.FailedPrecondition)
    assert came.reason == "NO_MIXING"


async def test_a_filter_and_a_view_hold_for_searches(gateway: Gateway) -> None:
    await fill(gateway)
    small = d.Condition(range=d.RangeCondition(key="number", less_than=2))
    response = await gateway.stub.Search(
        search(filter=d.Filter(must=[small]), view=d.DocumentView(omit_text=True, omit_metadata=True))
    )
    assert sorted(hit.document.id for hit in response.hits) == ["cats", "dogs"]
    assert all(not hit.document.text and not hit.document.metadata for hit in response.hits)
    assert all(gateway.reranker.passages), "the reranker needs the texts even when the caller does not"


async def test_a_hit_has_its_whole_text_however_long(gateway: Gateway) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    await ingest(gateway, [d.Document(id="long", text="cat " * 10_000)])
    response = await gateway.stub.Search(search())
    assert response.hits[0].document.text == "cat " * 10_000
    assert len(gateway.reranker.passages[0].encode()) == 16 * 1024
    response = await gateway.stub.Search(search(view=d.DocumentView(omit_text=True)))
    assert response.hits[0].document.text == ""


async def test_least_scores_are_kept_per_stage(gateway: Gateway) -> None:
    await fill(gateway)
    assert (await gateway.stub.Search(search(min_retrieval_score=2.0))).candidate_count == 0
    response = await gateway.stub.Search(search(min_rerank_score=2.0))
    assert [hit.document.id for hit in response.hits] == ["dogs"]
    response = await gateway.stub.Search(search(min_rerank_score=2.0, mode=s.SEARCH_MODE_RETRIEVE))
    assert len(response.hits) == 4


async def test_an_empty_collection_gives_no_hits(gateway: Gateway) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    response = await gateway.stub.Search(search())
    assert (len(response.hits), response.candidate_count) == (0, 0)


async def test_a_query_that_was_cut_is_reported(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.embedder.max_words = 3
    response = await gateway.stub.Search(search(query="the cat sat on the mat"))
    (degradation,) = response.degradations
    assert degradation.kind == s.DEGRADATION_KIND_QUERY_TRUNCATED
    assert degradation.reason == "TOO_LONG"
    assert "3 tokens" in degradation.message


async def test_another_model_than_the_collections_is_refused_with_both_named(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.embedder.served = FakeEmbedder("0" * 64).served
    for call in (gateway.stub.Search(search()), ingest(gateway, [d.Document(id="a", text="x")])):
        came = await fault(call)
        assert isinstance(came, faults.FailedPrecondition)
        assert came.reason == "EMBEDDER_MISMATCH"
        assert came.metadata["collection_fingerprint"] == "f" * 64
        assert came.metadata["served_fingerprint"] == "0" * 64


@pytest.mark.parametrize("mode", [s.SEARCH_MODE_AUTO, s.SEARCH_MODE_EXHAUSTIVE, s.SEARCH_MODE_LEXICAL])
async def test_a_mode_that_is_not_there_is_unimplemented(gateway: Gateway, mode: s.SearchMode) -> None:
    await fill(gateway)
    assert isinstance(await fault(gateway.stub.Search(search(mode=mode))), faults.Unimplemented)


async def test_a_failing_reranker_fails_the_search_with_its_reason(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.reranker.failure = faults.Unavailable("the reranker cannot be reached", reason="RERANKER_UNAVAILABLE")
    came = await fault(gateway.stub.Search(search()))
    assert isinstance(came, faults.Unavailable)
    assert came.reason == "RERANKER_UNAVAILABLE"


def nested(depth: int) -> d.Filter:
    inner = d.Filter(must=[d.Condition(exists=d.ExistsCondition(key="k"))])
    for _ in range(depth):
        inner = d.Filter(must=[d.Condition(filter=inner)])
    return inner


def must(**condition: Any) -> d.Filter:
    return d.Filter(must=[d.Condition(**condition)])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"collection": ""}, "collection"),
        ({"query": ""}, "query"),
        ({"query": " \t\n"}, "query"),
        ({"query": "x" * 32_769}, "query"),
        ({"limit": -1}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"depth": -1}, "depth"),
        ({"depth": 1_000_000}, "depth"),
        ({"mode": 99}, "mode"),
        ({"ranking_policy": 99}, "ranking_policy"),
        ({"min_retrieval_score": math.nan}, "min_retrieval_score"),
        ({"min_rerank_score": math.inf}, "min_rerank_score"),
        ({"retrieval": s.RetrievalOptions(ef=5000)}, "retrieval.ef"),
        ({"retrieval": s.RetrievalOptions(ef=-5)}, "retrieval.ef"),
        ({"mixing": s.RankMixing(k=0, rerank_weight=1)}, "mixing.k"),
        ({"mixing": s.RankMixing(k=math.nan, rerank_weight=1)}, "mixing.k"),
        ({"mixing": s.RankMixing(k=1, rerank_weight=0)}, "mixing.rerank_weight"),
        ({"mixing": s.RankMixing(k=1, rerank_weight=1, retrieval_weight=-1)}, "mixing.retrieval_weight"),
        ({"filter": d.Filter(must=[d.Condition()])}, "filter.must[0]"),
        ({"filter": must(match=d.MatchCondition(key="k"))}, "filter.must[0].match.any_of"),
        ({"filter": must(match=d.MatchCondition(key="k", any_of=[d.MatchValue()]))}, "filter.must[0]"),
        (
            {"filter": must(match=d.MatchCondition(
                key="k", any_of=[d.MatchValue(bool_value=True), d.MatchValue(integer_value=1)]))},
            "filter.must[0].match.any_of",
        ),
        ({"filter": must(range=d.RangeCondition(key="k"))}, "filter.must[0].range"),
        ({"filter": must(range=d.RangeCondition(key="k", at_least=math.nan))}, "filter.must[0].range"),
        ({"filter": must(range=d.RangeCondition(key="", at_least=1))}, "filter.must[0].range.key"),
        ({"filter": must(time_range=d.TimeRangeCondition(key="k"))}, "filter.must[0].time_range"),
        ({"filter": must(exists=d.ExistsCondition(key="a[]"))}, "filter.must[0].exists.key"),
        ({"filter": must(ids=d.IdsCondition())}, "filter.must[0].ids.ids"),
        ({"filter": must(filter=d.Filter())}, "filter.must[0]"),
        ({"filter": nested(8)}, "filter" + ".must[0].filter" * 8),
        ({"filter": d.Filter(should=nested(0).must[:1] * 257)}, "filter"),
    ],
)  # fmt: skip
async def test_a_bad_search_is_refused_by_field(gateway: Gateway, fields: dict[str, Any], field: str) -> None:
    await fill(gateway)
    assert violated(await fault(gateway.stub.Search(search(**fields)))) == field


async def test_a_search_of_an_unknown_collection_is_not_found(gateway: Gateway) -> None:
    came = await fault(gateway.stub.Search(search(collection="nope")))
    assert isinstance(came, faults.NotFound)
    assert came.reason == "NO_COLLECTION"


async def test_a_collection_made_anew_for_another_model_is_seen_when_memory_fades(gateway: Gateway) -> None:
    await fill(gateway)
    await gateway.stub.Search(search())
    gateway.embedder.served = FakeEmbedder("0" * 64).served
    # As another gateway would do it, behind this one's back.
    spec = gateway.index.held["docs"].spec
    await gateway.index.delete_collection("docs")
    await gateway.index.create_collection(type(spec)(name="docs", embedder=gateway.embedder.served))
    assert isinstance(await fault(gateway.stub.Search(search())), faults.FailedPrecondition)
    gateway.now += 6
    assert (await gateway.stub.Search(search())).candidate_count == 0
