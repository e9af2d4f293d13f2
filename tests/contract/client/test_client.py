from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from tests.contract.client.gateway_fake import FakeGateway, Served, until
from winnow_client import (
    AsyncClient,
    Client,
    ClientConfig,
    DepthPolicy,
    Document,
    Effort,
    HnswConfig,
    LexicalConfig,
    MetadataField,
    MetadataType,
    RankFusion,
    RankingPolicy,
    RankMixing,
    Retries,
    RetrievalKind,
    SearchMode,
    field,
    ids,
)
from winnow_client.asynchronous import SERVICE
from winnow_rpc.faults import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)

DOCUMENTS = [
    Document(id="a", title="Graphs", text="graphs of small worlds", metadata={"year": 2016, "lang": "en"}),
    Document(id="b", title="Words", text="weights of words", metadata={"year": 1994, "lang": "en"}),
    Document(id="c", title="Graphen", text="kleine welt", metadata={"year": 1967, "lang": "de"}),
]


async def filled(client: AsyncClient) -> None:
    await client.create_collection("papers")
    outcomes = [each.outcome async for each in client.ingest("papers", DOCUMENTS)]
    assert outcomes == ["indexed"] * 3


async def test_every_rpc_of_the_contract_is_called_by_its_method(client: AsyncClient, gateway: FakeGateway) -> None:
    await filled(client)
    await client.get_collection("papers")
    assert [each.name async for each in client.list_collections()] == ["papers"]
    await client.get_document("papers", "a")
    assert [each.id async for each in client.list_documents("papers")] == ["a", "b", "c"]
    await client.search("papers", "graphs")
    assert [state.final async for state in client.stream_search("papers", "graphs")] == [False, True]
    assert [progress async for progress in client.reembed_collection("papers")][-1].complete
    assert await client.delete_documents("papers", ids=["a", "unknown"]) == 1
    assert await client.delete_collection("papers") == 2
    assert set(gateway.calls) == {method.name for method in SERVICE.methods}


def test_the_blocking_client_calls_every_rpc_as_well(blocking: Client, gateway: FakeGateway) -> None:
    blocking.create_collection("papers")
    assert [each.outcome for each in blocking.ingest("papers", DOCUMENTS)] == ["indexed"] * 3
    assert blocking.get_collection("papers").document_count == 3
    assert [each.name for each in blocking.list_collections()] == ["papers"]
    assert blocking.get_document("papers", "a").document == DOCUMENTS[0]
    assert list(blocking.list_documents("papers", page_size=2)) == DOCUMENTS
    assert blocking.search("papers", "graphs").hits[0].document == DOCUMENTS[0]
    assert [state.final for state in blocking.stream_search("papers", "graphs")] == [False, True]
    assert list(blocking.reembed_collection("papers"))[-1].complete
    assert blocking.delete_documents("papers", where=field("lang") == "de") == 1
    assert blocking.delete_collection("papers") == 2
    assert set(gateway.calls) == {method.name for method in SERVICE.methods}


async def test_a_collection_is_made_as_it_was_asked_for(client: AsyncClient) -> None:
    made = await client.create_collection(
        "papers",
        description="about graphs",
        metadata_fields=[MetadataField("year", MetadataType.INTEGER)],
        hnsw=HnswConfig(m=32, ef_construct=200),
    )
    assert made == await client.get_collection("papers")
    assert (made.name, made.description, made.dimension, made.document_count) == ("papers", "about graphs", 3, 0)
    assert made.metadata_fields == (MetadataField("year", MetadataType.INTEGER),)
    assert made.hnsw == HnswConfig(m=32, ef_construct=200)
    assert made.create_time == datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert (made.similarity, made.index_state) == ("cosine", "ready")


async def test_a_collection_has_bm25_unless_that_is_declined(client: AsyncClient) -> None:
    made = await client.create_collection("a", lexical=LexicalConfig(language="german", average_words=10))
    assert made.lexical == LexicalConfig(language="german", average_words=10)
    assert (await client.create_collection("b")).lexical == LexicalConfig(language="english", average_words=128)
    assert (await client.create_collection("c", without_lexical=True)).lexical is None


async def test_faults_of_the_gateway_are_raised_as_they_were(client: AsyncClient) -> None:
    with pytest.raises(NotFound) as missing:
        await client.get_collection("papers")
    assert missing.value.reason == "COLLECTION_NOT_FOUND"
    await client.create_collection("papers")
    with pytest.raises(AlreadyExists):
        await client.create_collection("papers")
    with pytest.raises(InvalidArgument) as invalid:
        await client.create_collection("")
    assert [violation.field for violation in invalid.value.violations] == ["name"]


async def test_pages_are_fetched_as_they_are_needed(client: AsyncClient, gateway: FakeGateway) -> None:
    await filled(client)
    found = client.list_documents("papers", page_size=1, omit_text=True, omit_metadata=True)
    first = await anext(found)
    assert first == Document(id="a", title="Graphs")
    assert gateway.calls.count("ListDocuments") == 1
    assert [each.id async for each in found] == ["b", "c"]
    assert gateway.calls.count("ListDocuments") == 3
    for name in ("x", "y"):
        await client.create_collection(name)
    assert [each.name async for each in client.list_collections(page_size=2)] == ["papers", "x", "y"]


async def test_a_search_says_everything_it_was_told(client: AsyncClient, gateway: FakeGateway) -> None:
    await filled(client)
    result = await client.search(
        "papers",
        "graphs",
        limit=2,
        mode=SearchMode.RETRIEVE,
        depth=50,
        where=field("year") >= 1990,
        omit_text=True,
        ef=64,
        exact=True,
        retrieval=RetrievalKind.HYBRID,
        fusion=RankFusion(k=5, dense_weight=1, lexical_weight=0.5),
        ranking_policy=RankingPolicy.MIXED,
        mixing=RankMixing(k=2, retrieval_weight=1, rerank_weight=0.5),
        min_retrieval_score=0.0,
        min_rerank_score=-1.5,
        min_probability=0.25,
        budget=0.25,
        depth_policy=DepthPolicy.FLOOR,
        effort=Effort.ECONOMY,
        require_rerank=True,
    )
    request = gateway.requests[-1]
    assert (request.limit, request.depth, request.retrieval.ef, request.retrieval.exact) == (2, 50, 64, True)
    assert (request.HasField("min_retrieval_score"), request.min_rerank_score) == (True, -1.5)
    assert (request.ranking_policy, request.mixing.k) == (2, 2)
    assert (request.budget_micros, request.depth_policy, request.effort) == (250_000, 2, 2)
    assert request.require_rerank
    assert request.min_probability == 0.25
    assert (request.retrieval.kind, request.retrieval.fusion.k, request.retrieval.fusion.lexical_weight) == (2, 5, 0.5)
    assert [hit.document.id for hit in result.hits] == ["a", "b"]
    assert (result.mode, result.retrieval_kind) == (SearchMode.RETRIEVE, RetrievalKind.HYBRID)
    assert result.hits[0].rerank is None
    assert result.hits[0].document.text == ""
    await client.search("papers", "graphs")
    request = gateway.requests[-1]
    assert (request.limit, request.mode, request.HasField("filter"), request.HasField("mixing")) == (0, 0, False, False)
    assert not request.HasField("min_retrieval_score")
    assert not request.HasField("budget_micros")


@pytest.mark.parametrize("budget", [0.0, -1.0, math.inf, math.nan])
async def test_a_budget_that_is_no_time_is_refused(client: AsyncClient, budget: float) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await client.search("papers", "graphs", budget=budget)
    assert [violation.field for violation in caught.value.violations] == ["budget"]


async def test_a_watched_search_ends_with_what_search_returns(client: AsyncClient, gateway: FakeGateway) -> None:
    await filled(client)
    states = [state async for state in client.stream_search("papers", "graphs", limit=2, budget=0.5)]
    assert [(state.final, state.result.reranked_count) for state in states] == [(False, 0), (True, 2)]
    assert states[0].result.hits[0].rerank is None
    assert states[-1].result == await client.search("papers", "graphs", limit=2, budget=0.5)
    assert gateway.requests[-1] == gateway.requests[-2]
    gateway.fail["StreamSearch half-way"] = 1
    with pytest.raises(Unavailable) as caught:
        _ = [state async for state in client.stream_search("papers", "graphs")]
    assert caught.value.reason == "TOLD_TO"
    with pytest.raises(NotFound):
        _ = [state async for state in client.stream_search("nothing", "graphs")]


async def test_a_watched_search_that_is_left_early_is_stopped(client: AsyncClient) -> None:
    await filled(client)
    states = client.stream_search("papers", "graphs")
    await anext(states)
    await states.aclose()
    assert (await client.search("papers", "graphs")).hits


@pytest.mark.parametrize("name", ["limit", "depth", "ef"])
async def test_a_count_of_0_is_refused_and_not_taken_for_the_default(client: AsyncClient, name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await client.search("papers", "graphs", **{name: 0})  # type: ignore[arg-type]
    assert caught.value.violations[0].field == name


async def test_a_value_that_no_message_can_hold_is_an_invalid_argument(client: AsyncClient) -> None:
    with pytest.raises(InvalidArgument):
        await client.search("papers", "graphs", limit=10**12)
    with pytest.raises(InvalidArgument):
        await client.search("papers", "half \ud800")
    with pytest.raises(InvalidArgument):
        await client.search("papers", "graphs", where=field("year") >= 10**400)
    before_year_1 = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    with pytest.raises(InvalidArgument):
        await client.search("papers", "graphs", where=field("time") >= before_year_1)
    with pytest.raises(InvalidArgument):
        await anext(client.ingest("half \ud800", []))
    with pytest.raises(TypeError):
        await client.search("papers", 7)  # type: ignore[arg-type]


async def test_deleting_takes_ids_or_a_filter(client: AsyncClient, gateway: FakeGateway) -> None:
    await filled(client)
    for wrong in ({}, {"ids": ["a"], "where": ids("a")}):
        with pytest.raises(InvalidArgument, match="exactly one"):
            await client.delete_documents("papers", **wrong)
    with pytest.raises(TypeError, match="not one string"):
        await client.delete_documents("papers", ids="abc")
    with pytest.raises(InvalidArgument, match="ids or a filter"):
        await client.delete_documents("papers", ids=[])
    many = [f"none-{number}" for number in range(20_001)]
    assert await client.delete_documents("papers", ids=[*many, "a"]) == 1
    assert [len(request.ids) for request in gateway.requests[-3:]] == [10_000, 10_000, 2]


async def test_calls_that_can_do_no_harm_twice_are_repeated(client: AsyncClient, gateway: FakeGateway) -> None:
    await filled(client)
    for method, call in {
        "GetCollection": lambda: client.get_collection("papers"),
        "ListCollections": lambda: anext(client.list_collections()),
        "GetDocument": lambda: client.get_document("papers", "a"),
        "ListDocuments": lambda: anext(client.list_documents("papers")),
        "DeleteDocuments": lambda: client.delete_documents("papers", ids=["x"]),
        "Search": lambda: client.search("papers", "graphs"),
    }.items():
        gateway.fail[method] = 2
        await call()
        assert gateway.calls[-3:] == [method] * 3


async def test_calls_that_could_do_harm_twice_are_not_repeated(client: AsyncClient, gateway: FakeGateway) -> None:
    await filled(client)
    for method, call in {
        "CreateCollection": lambda: client.create_collection("other"),
        "DeleteCollection": lambda: client.delete_collection("papers"),
        "IngestDocuments": lambda: anext(client.ingest("papers", DOCUMENTS)),
    }.items():
        gateway.calls.clear()
        gateway.fail[method] = 1
        with pytest.raises(Unavailable) as caught:
            await call()
        assert caught.value.reason == "TOLD_TO"
        assert gateway.calls == [method]


async def test_retries_can_be_turned_off(served: Served, gateway: FakeGateway) -> None:
    gateway.fail["GetCollection"] = 1
    config = ClientConfig(target=served.address, retries=Retries(max_attempts=1))
    async with AsyncClient(config=config) as client:
        with pytest.raises(Unavailable):
            await client.get_collection("papers")
    assert gateway.calls == ["GetCollection"]


async def test_every_call_has_a_deadline_and_may_have_its_own(served: Served, gateway: FakeGateway) -> None:
    async with AsyncClient(config=ClientConfig(target=served.address, timeout_seconds=20)) as client:
        await filled(client)
        await client.search("papers", "graphs")
        await client.search("papers", "graphs", timeout=5)
        await client.search("papers", "graphs", timeout=math.inf)
        left = dict(zip(gateway.calls, gateway.deadlines, strict=True))
        assert 15 < (left["CreateCollection"] or 0) <= 20.5  # gRPC rounds
        # A stream may last as long as its documents do.
        assert left["IngestDocuments"] is None
        usual, own, none = gateway.deadlines[-3:]
        assert usual is not None
        assert own is not None
        assert 15 < usual <= 20.5  # gRPC rounds
        assert 0 < own <= 5.5
        assert none is None
        gateway.delay = 20
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.1 seconds"):
            await client.search("papers", "graphs", timeout=0.1)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("timeout", [1e10, 1e300, sys.maxsize])
async def test_a_timeout_beyond_what_grpc_can_count_is_no_limit(
    client: AsyncClient, gateway: FakeGateway, timeout: float
) -> None:
    await filled(client)
    await client.get_collection("papers", timeout=timeout)
    assert gateway.deadlines[-1] is None


@pytest.mark.parametrize("timeout", [0, -1.5])
async def test_no_call_is_made_for_which_no_time_is_left(
    client: AsyncClient, gateway: FakeGateway, timeout: float
) -> None:
    with pytest.raises(DeadlineExceeded, match=rf"timeout is {timeout:g} seconds"):
        await client.create_collection("papers", timeout=timeout)
    with pytest.raises(DeadlineExceeded):
        await anext(client.ingest("papers", DOCUMENTS, timeout=timeout))
    with pytest.raises(DeadlineExceeded):
        await anext(client.stream_search("papers", "graphs", timeout=timeout))
    assert gateway.calls == []


async def test_a_timeout_that_is_no_number_is_refused(client: AsyncClient) -> None:
    with pytest.raises(InvalidArgument):
        await client.get_collection("papers", timeout=math.nan)


async def test_a_gateway_that_is_not_there_is_named() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(Unavailable, match=r"the gateway at 127\.0\.0\.1:1 cannot be reached") as caught:
            await client.get_collection("papers")
        assert caught.value.reason == "GATEWAY_UNREACHABLE"


async def test_a_client_finds_a_gateway_that_comes_back(served: Served, client: AsyncClient) -> None:
    await client.create_collection("papers")
    served.stop()
    with pytest.raises(Unavailable):
        await client.get_collection("papers")
    served.start()
    async with asyncio.timeout(10):
        while True:
            try:
                await client.get_collection("papers")
                break
            except Unavailable:
                await asyncio.sleep(0.1)


async def test_a_closed_client_says_so(served: Served, gateway: FakeGateway) -> None:
    client = AsyncClient(served.address)
    await filled(client)
    gateway.delay = 20
    running = asyncio.create_task(client.search("papers", "graphs"))
    await until(lambda: "Search" in gateway.calls)
    await client.close()
    await client.close()
    with pytest.raises(Cancelled, match="closed during the call"):
        await running
    with pytest.raises(FailedPrecondition, match="the client is closed"):
        await client.get_collection("papers")


async def test_a_client_may_be_made_where_no_loop_runs(served: Served) -> None:
    client = await asyncio.to_thread(AsyncClient, served.address)
    async with client:
        assert [each async for each in client.list_collections()] == []


def test_a_client_outlives_the_loop_that_it_was_used_in(served: Served) -> None:
    client = AsyncClient(served.address)

    async def names() -> list[str]:
        return [each.name async for each in client.list_collections()]

    for _ in range(3):
        assert asyncio.run(names()) == []
    asyncio.run(client.close())


def test_a_blocking_client_ends_its_calls_and_says_so_when_closed(served: Served) -> None:
    client = Client(served.address)
    client.create_collection("papers")
    found = client.list_collections(page_size=1)
    assert next(found).name == "papers"
    client.close()
    client.close()
    with pytest.raises(FailedPrecondition, match="the client is closed"):
        client.get_collection("papers")
    with pytest.raises(FailedPrecondition, match="the client is closed"):
        Client(served.address).close() or client.search("papers", "graphs")


def test_a_blocking_client_that_is_never_closed_keeps_no_process_alive(served: Served) -> None:
    code = (
        "import sys\nfrom winnow_client import Client\n"
        f"client = Client({served.address!r})\nprint(list(client.list_collections()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_threads_may_share_a_blocking_client(blocking: Client, gateway: FakeGateway) -> None:
    from concurrent.futures import ThreadPoolExecutor

    blocking.create_collection("papers")
    list(blocking.ingest("papers", DOCUMENTS))
    gateway.delay = 0.5
    began = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(lambda _: blocking.search("papers", "graphs"), range(10)))
    assert {result.hits[0].document.id for result in results} == {"a"}
    # One after another they would take five seconds.
    assert time.monotonic() - began < 4
