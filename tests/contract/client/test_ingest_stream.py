from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from tests.contract.client.gateway_fake import FakeGateway, Served, until
from winnow_client import AsyncClient, Client, ClientConfig, Document, IngestConfig, IngestOutcome
from winnow_rpc.faults import Internal, InvalidArgument, NotFound, Unavailable


def document(number: int, text: str = "words") -> Document:
    return Document(id=str(number), text=f"{text} {number}")


def configured(served: Served, **ingest: float) -> AsyncClient:
    return AsyncClient(config=ClientConfig(target=served.address, ingest=IngestConfig(**ingest)))  # type: ignore[arg-type]


def falls_silent(gateway: FakeGateway) -> bool:
    """Whether batches stop coming, within ten seconds, for half a second."""
    for _ in range(20):
        count = len(gateway.batches)
        time.sleep(0.5)
        if len(gateway.batches) == count:
            return True
    return False


@pytest.fixture
async def ready(client: AsyncClient) -> AsyncClient:
    await client.create_collection("c")
    return client


async def test_documents_may_come_from_an_ordinary_or_an_asynchronous_iterable(ready: AsyncClient) -> None:
    async def numbers() -> AsyncIterator[Document]:
        for number in range(150):
            await asyncio.sleep(0)
            yield document(number)

    first = [each async for each in ready.ingest("c", (document(number) for number in range(100)))]
    assert [(each.sequence, each.id, each.outcome) for each in first] == [
        (number, str(number), IngestOutcome.INDEXED) for number in range(100)
    ]
    second = [each.outcome async for each in ready.ingest("c", numbers())]
    assert second == [IngestOutcome.UNCHANGED] * 100 + [IngestOutcome.INDEXED] * 50


async def test_an_iterable_that_was_cancelled_within_itself_says_so(ready: AsyncClient) -> None:
    async def documents() -> AsyncIterator[Document]:
        yield document(0)
        waited_for = asyncio.get_running_loop().create_future()
        waited_for.cancel()
        await waited_for

    acknowledged: list[str] = []
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(30):
            async for each in ready.ingest("c", documents()):
                acknowledged.append(each.id)
    assert acknowledged == ["0"]


@pytest.mark.parametrize("name", ["batch_count", "batch_bytes", "max_document_bytes", "max_outstanding_count"])
def test_a_configuration_that_would_never_send_anything_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} is 0; it must be at least 1"):
        IngestConfig(**{name: 0})
    with pytest.raises(InvalidArgument, match=f"{name} is inf; it must be a finite number of at least 1"):
        IngestConfig(**{name: math.inf})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [2**31, 0, -2])
def test_a_message_size_that_grpc_does_not_take_is_refused(size: int) -> None:
    with pytest.raises(InvalidArgument):
        ClientConfig(max_message_bytes=size)


async def test_messages_may_be_of_any_size(served: Served) -> None:
    async with AsyncClient(served.address, config=ClientConfig(max_message_bytes=-1)) as client:
        await client.create_collection("c")
        assert (await client.get_collection("c")).name == "c"


async def test_nothing_to_ingest_is_no_error_but_a_missing_collection_is(ready: AsyncClient) -> None:
    assert [each async for each in ready.ingest("c", [])] == []
    with pytest.raises(NotFound) as caught:
        await anext(ready.ingest("absent", [document(1)]))
    assert caught.value.metadata["acknowledged_count"] == "0"


async def test_a_refused_document_refuses_only_itself_whoever_refuses_it(served: Served, gateway: FakeGateway) -> None:
    documents = [
        Document(id="fine", text="x"),
        Document(id="blank", text=" "),
        Document(id="nan", text="x", metadata={"score": float("nan")}),
        Document(id="half", text="\ud800"),
        Document(id="huge", text="x" * 5000),
        Document(id="last", text="x " * 300),
    ]
    async with configured(served, max_document_bytes=4000) as client:
        await client.create_collection("c")
        acknowledged = [each async for each in client.ingest("c", documents)]
    assert [(each.sequence, each.id) for each in acknowledged] == list(enumerate(each.id for each in documents))
    reasons = [each.refusal.reason if each.refusal else None for each in acknowledged]
    assert reasons == [None, "EMPTY_TEXT", "METADATA_NOT_REPRESENTABLE", "NOT_UTF8", "DOCUMENT_TOO_LARGE", None]
    assert acknowledged[-1].dropped_token_count == 300 - 256
    assert gateway.batches == [["fine", "blank", "last"]]


async def test_many_refused_here_in_a_row_are_acknowledged_without_the_gateway(served: Served) -> None:
    bad = (Document(id=str(number), text="\ud800") for number in range(3000))
    async with configured(served, max_outstanding_count=100) as client:
        await client.create_collection("c")
        async with asyncio.timeout(20):
            outcomes = [each.outcome async for each in client.ingest("c", bad)]
    assert outcomes == [IngestOutcome.REFUSED] * 3000


async def test_messages_are_bounded_by_count_and_by_bytes(served: Served, gateway: FakeGateway) -> None:
    documents = [Document(id=str(number), text="x" * (1000 if number < 10 else 10)) for number in range(40)]
    async with configured(served, batch_count=20, batch_bytes=2500, linger_seconds=5) as client:
        await client.create_collection("c")
        assert len([each async for each in client.ingest("c", documents)]) == 40
    sizes = [sum(1000 if int(id_) < 10 else 10 for id_ in batch) for batch in gateway.batches]
    assert max(sizes) <= 2500
    assert max(map(len, gateway.batches)) <= 20
    assert len(gateway.batches) < 12
    assert [id_ for batch in gateway.batches for id_ in batch] == [each.id for each in documents]


async def test_an_id_that_comes_again_replaces_the_document(ready: AsyncClient, gateway: FakeGateway) -> None:
    documents = [Document(id="a", text="first"), Document(id="b", text="x"), Document(id="a", text="second")]
    assert {each.outcome async for each in ready.ingest("c", documents)} == {IngestOutcome.INDEXED}
    assert (await ready.get_document("c", "a")).document.text == "second"
    assert gateway.batches == [["a", "b"], ["a"]]


async def test_documents_are_read_no_further_ahead_than_allowed(served: Served) -> None:
    read = 0

    def endless() -> Iterator[Document]:
        nonlocal read
        while True:
            read += 1
            yield document(read)

    async with configured(served, max_outstanding_count=200) as client:
        await client.create_collection("c")
        async with aclosing(client.ingest("c", endless())) as acknowledgements:
            for taken in range(1, 500):
                await anext(acknowledgements)
                # Acknowledgements not taken, one message over, one being made, and one document in hand.
                assert read - taken <= 200 + 64 + 64 + 64 + 1
            await asyncio.sleep(0.3)
            assert read - taken <= 200 + 64 + 64 + 64 + 1


async def test_a_slow_source_does_not_hold_back_what_it_gave(ready: AsyncClient) -> None:
    gate = threading.Event()

    def slow() -> Iterator[Document]:
        yield document(1)
        assert gate.wait(timeout=20)
        yield document(2)

    async with asyncio.timeout(10):
        stream = ready.ingest("c", slow())
        first = await anext(stream)
        assert first.id == "1"
        gate.set()
        assert [each.id async for each in stream] == ["2"]


async def test_a_lost_connection_says_how_many_were_acknowledged(ready: AsyncClient, gateway: FakeGateway) -> None:
    gateway.break_after = [150]
    acknowledged = []
    with pytest.raises(Unavailable, match="broke off after 150 documents were acknowledged") as caught:
        async for each in ready.ingest("c", (document(number) for number in range(1000))):
            acknowledged.append(each.id)
    assert acknowledged == [str(number) for number in range(150)]
    assert caught.value.reason == "INDEX_UNAVAILABLE"
    assert caught.value.metadata["acknowledged_count"] == "150"


async def test_the_gateways_own_word_is_heard_even_if_a_write_fails_first(
    ready: AsyncClient, gateway: FakeGateway
) -> None:
    # More than half of these ends are hidden by gRPC behind an error of its own.
    for _ in range(20):
        with pytest.raises(NotFound) as missing:
            await anext(ready.ingest("absent", (document(number, "x" * 500) for number in range(1000))))
        assert missing.value.reason == "COLLECTION_NOT_FOUND"
        gateway.break_after = [100]
        with pytest.raises(Unavailable) as caught:
            async for _ in ready.ingest("c", (document(number, "x" * 500) for number in range(1000))):
                pass
        assert caught.value.reason == "INDEX_UNAVAILABLE"


async def test_a_gateway_that_stops_in_the_middle_breaks_the_stream(ready: AsyncClient, served: Served) -> None:
    def endless() -> Iterator[Document]:
        number = 0
        while True:
            number += 1
            time.sleep(0.001)
            yield document(number)

    count = 0
    with pytest.raises(Unavailable) as caught:
        async for _ in ready.ingest("c", endless()):
            count += 1
            if count == 100:
                await asyncio.to_thread(served.stop)
    assert caught.value.metadata["acknowledged_count"] == str(count)


async def test_a_gateway_that_ends_the_stream_too_early_is_found_out(ready: AsyncClient, gateway: FakeGateway) -> None:
    gateway.end_early = True
    with pytest.raises(Internal) as caught:
        await anext(ready.ingest("c", [document(1)]))
    assert caught.value.reason == "SHORT_STREAM"


@pytest.mark.parametrize("kind", ["ordinary", "asynchronous"])
async def test_what_the_source_raises_is_raised_after_what_came_before(ready: AsyncClient, kind: str) -> None:
    def ordinary() -> Iterator[Document]:
        yield document(1)
        raise ZeroDivisionError("mine")

    async def asynchronous() -> AsyncIterator[Document]:
        for each in ordinary():
            yield each

    acknowledged = []
    with pytest.raises(ZeroDivisionError, match="mine"):
        async for each in ready.ingest("c", ordinary() if kind == "ordinary" else asynchronous()):
            acknowledged.append(each.id)
    assert acknowledged == ["1"]


async def test_something_that_is_no_document_is_a_type_error(ready: AsyncClient) -> None:
    with pytest.raises(TypeError, match="not dict"):
        await anext(ready.ingest("c", [{"id": "1"}]))  # type: ignore[list-item]


async def test_ending_early_leaves_no_task_and_lets_go_of_the_source(ready: AsyncClient) -> None:
    let_go = asyncio.Event()

    async def endless() -> AsyncIterator[Document]:
        number = 0
        try:
            while True:
                number += 1
                yield document(number)
                await asyncio.sleep(0)
        finally:
            let_go.set()

    source = endless()
    before = asyncio.all_tasks()
    async with aclosing(ready.ingest("c", source)) as acknowledgements:
        await anext(acknowledgements)
    await asyncio.sleep(0.1)
    assert {task.get_name() for task in asyncio.all_tasks() - before if "winnow" in task.get_name()} == set()
    await source.aclose()  # type: ignore[attr-defined]
    assert let_go.is_set()
    assert len(asyncio.all_tasks() - before) == 0


async def test_a_source_that_never_answers_does_not_keep_an_early_end_waiting(ready: AsyncClient) -> None:
    gate = threading.Event()

    def stuck() -> Iterator[Document]:
        yield document(1)
        gate.wait(timeout=60)

    began = time.monotonic()
    async with aclosing(ready.ingest("c", stuck())) as acknowledgements:
        await anext(acknowledgements)
    assert time.monotonic() - began < 5
    gate.set()


async def test_cancelling_the_caller_ends_the_stream(ready: AsyncClient, gateway: FakeGateway) -> None:
    async def consume() -> None:
        async for _ in ready.ingest("c", (document(number) for number in range(10**9))):
            pass

    task = asyncio.create_task(consume())
    await until(lambda: bool(gateway.batches))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(falls_silent, gateway)


async def test_a_stream_may_have_a_deadline_of_its_own(ready: AsyncClient, gateway: FakeGateway) -> None:
    gateway.ingest_delay = 20
    with pytest.raises(Exception, match=r"did not answer within 0\.3 seconds"):
        await anext(ready.ingest("c", [document(1)], timeout=0.3))


def test_the_blocking_client_may_be_used_by_its_own_source(blocking: Client) -> None:
    blocking.create_collection("from")
    blocking.create_collection("to")
    assert len(list(blocking.ingest("from", (document(number) for number in range(250))))) == 250
    copied = blocking.ingest("to", blocking.list_documents("from", page_size=100))
    assert [each.outcome for each in copied] == [IngestOutcome.INDEXED] * 250


def test_leaving_a_blocking_ingest_early_ends_the_stream(blocking: Client, gateway: FakeGateway) -> None:
    blocking.create_collection("c")
    stream = blocking.ingest("c", (document(number) for number in range(10**9)))
    next(stream)
    stream.close()
    assert falls_silent(gateway)
    with pytest.raises(InvalidArgument):
        next(blocking.ingest("\ud800", []))
