"""Bulk streams: ordered, bounded in both directions, and of no harm to others."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
import pytest

from tests.contract.embedder.served import Stub, serving
from tests.models.gated_engine import GatedEngine
from winnow.embedder.v1 import embedder_pb2 as pb
from winnow_inference.models.facts import BiEncoderFacts
from winnow_inference.opening import OpenModel
from winnow_rpc.faults import InvalidArgument
from winnow_rpc.status import fault_from_rpc_error, fault_of

OPTIONS = pb.StreamEmbedTextsRequest(options=pb.EmbedOptions(input_type=pb.INPUT_TYPE_PASSAGE))


def batch(*texts: str) -> pb.StreamEmbedTextsRequest:
    return pb.StreamEmbedTextsRequest(batch=pb.TextBatch(texts=texts))


async def answers(stub: Stub, requests: Iterable[pb.StreamEmbedTextsRequest]) -> list[pb.StreamEmbedTextsResponse]:
    return [response async for response in stub.StreamEmbedTexts(iter(requests), timeout=30)]


async def test_answers_come_in_the_order_of_the_batches(tiny: Stub) -> None:
    counts = [1, 40, 3, 17, 2, 2, 60, 1, 5, 9]
    found = await answers(tiny, [OPTIONS, *(batch(*["bread"] * count) for count in counts)])
    assert [answer.batch_index for answer in found] == list(range(10))
    assert [answer.embedded.vectors.count for answer in found] == counts


async def test_a_streamed_batch_equals_a_single_one(tiny: Stub) -> None:
    (streamed,) = await answers(tiny, [OPTIONS, batch("bread", "the city of paris")])
    single = await tiny.EmbedTexts(pb.EmbedTextsRequest(texts=["bread", "the city of paris"], options=OPTIONS.options))
    assert streamed.embedded.vectors == single.vectors


async def test_a_refused_batch_harms_no_other(tiny: Stub) -> None:
    found = await answers(tiny, [OPTIONS, batch("bread"), batch("bread", " "), batch(), batch("cheese")])
    assert [answer.WhichOneof("outcome") for answer in found] == ["embedded", "refused", "refused", "embedded"]
    fault = fault_of(found[1].refused)
    assert isinstance(fault, InvalidArgument)
    assert fault.violations[0].field == "batch.texts[1]"


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([batch("bread")], "options"),
        ([pb.StreamEmbedTextsRequest()], "options"),
        ([pb.StreamEmbedTextsRequest(options=pb.EmbedOptions())], "options.input_type"),
        ([OPTIONS, OPTIONS], "batch"),
        ([OPTIONS, pb.StreamEmbedTextsRequest()], "batch"),
    ],
)
async def test_a_stream_out_of_order_is_refused(
    tiny: Stub, requests: list[pb.StreamEmbedTextsRequest], field: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        await answers(tiny, requests)
    fault = fault_from_rpc_error(refused.value)
    assert isinstance(fault, InvalidArgument)
    assert fault.violations[0].field == field


async def test_a_stream_of_nothing_has_no_answers(tiny: Stub) -> None:
    assert await answers(tiny, []) == []
    assert await answers(tiny, [OPTIONS]) == []


async def test_a_slow_reader_stops_its_own_stream_and_nobody_else_s(tiny_model: OpenModel[BiEncoderFacts]) -> None:
    # 1,000 vectors of 16 numbers are 64 KB an answer: a few fill what gRPC itself buffers.
    engine, batches, size = GatedEngine(16), 400, 1000

    async def requests() -> AsyncIterator[pb.StreamEmbedTextsRequest]:
        yield OPTIONS
        for _ in range(batches):
            yield batch(*["bread"] * size)

    async with serving(tiny_model, engine=engine, max_batch_tokens=100_000) as (stub, _):
        slow = stub.StreamEmbedTexts(requests(), timeout=60)
        await slow.read()
        seen = -1
        while seen != engine.sequences:
            seen = engine.sequences
            await asyncio.sleep(0.3)
        assert engine.sequences < batches * size / 2
        quick = await stub.EmbedTexts(pb.EmbedTextsRequest(texts=["cheese"], options=OPTIONS.options), timeout=5)
        assert quick.vectors.count == 1
        slow.cancel()


async def test_no_more_batches_than_the_read_ahead_are_in_work(tiny_model: OpenModel[BiEncoderFacts]) -> None:
    engine = GatedEngine(16)
    async with serving(tiny_model, engine=engine, stream_read_ahead=3) as (stub, _):
        engine.gate.clear()
        one = pb.EmbedTextsRequest(texts=["cheese"], options=OPTIONS.options)
        busy = asyncio.ensure_future(stub.EmbedTexts(one))
        await asyncio.to_thread(engine.began.acquire)
        bulk = asyncio.create_task(answers(stub, [OPTIONS, *[batch("bread")] * 20]))
        await asyncio.sleep(0.5)  # time enough for all of them to arrive
        engine.gate.set()
        await busy
        found = await bulk
        assert [answer.batch_index for answer in found] == list(range(20))
    # Those that waited behind the other call went together: as many as may be in work, and no more.
    assert engine.sizes[1] == 3
    assert max(engine.sizes) == 3


async def test_a_cancelled_stream_drops_its_queued_work(tiny_model: OpenModel[BiEncoderFacts]) -> None:
    engine = GatedEngine(16)
    settings = {"max_batch_tokens": 300}
    async with serving(tiny_model, engine=engine, **settings) as (stub, _):
        engine.gate.clear()
        call = stub.StreamEmbedTexts(iter([OPTIONS, *(batch(*["bread"] * 1000) for _ in range(3))]))
        await asyncio.to_thread(engine.began.acquire)
        await asyncio.sleep(0.1)  # the other batches arrive and queue
        call.cancel()
        await asyncio.sleep(0.3)
        engine.gate.set()
        await stub.EmbedTexts(pb.EmbedTextsRequest(texts=["cheese"], options=OPTIONS.options), timeout=5)
        # The batch on the device (100 sequences of 3 tokens), and the last call.
        assert engine.sequences <= 101


async def test_bulk_streams_wait_for_room_instead_of_being_refused(tiny_model: OpenModel[BiEncoderFacts]) -> None:
    async with serving(tiny_model, max_queued_tokens=200) as (stub, _):
        streams = [answers(stub, [OPTIONS, *(batch(*["bread"] * 40) for _ in range(5))]) for _ in range(3)]
        for found in await asyncio.gather(*streams):
            assert [answer.WhichOneof("outcome") for answer in found] == ["embedded"] * 5


async def test_queries_overtake_a_bulk_stream(tiny_model: OpenModel[BiEncoderFacts]) -> None:
    engine = GatedEngine(16)
    async with serving(tiny_model, engine=engine, max_batch_tokens=300) as (stub, _):
        engine.gate.clear()
        bulk = stub.StreamEmbedTexts(iter([OPTIONS, batch(*["bread"] * 1000)]))
        reading = asyncio.ensure_future(bulk.read())
        await asyncio.to_thread(engine.began.acquire)
        query = pb.EmbedOptions(input_type=pb.INPUT_TYPE_QUERY)
        call = asyncio.ensure_future(stub.EmbedTexts(pb.EmbedTextsRequest(texts=["bread"], options=query)))
        await asyncio.sleep(0.1)
        engine.gate.set()
        await call
        assert not reading.done()
        await reading
