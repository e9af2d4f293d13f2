"""Ingest over the search contract, on a real connection."""

import asyncio
import math
import time
from typing import Any

import grpc
import pytest

from tests.contract.gateway.calls import TEXTS, fill, ingest, violated
from tests.contract.gateway.conftest import Gateway
from winnow.search.v1 import collections_pb2 as c
from winnow.search.v1 import documents_pb2 as d
from winnow_gateway import conversion
from winnow_rpc import faults
from winnow_rpc.status import fault_from_rpc_error, fault_of


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


async def test_a_large_batch_lets_other_calls_run_while_it_is_read(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    read, turns, seen = conversion.read_document, 0, []

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def slow(message: d.Document, *, field: str) -> Any:
        seen.append(turns)
        time.sleep(0.01)
        return read(message, field=field)

    monkeypatch.setattr(conversion, "read_document", slow)
    other = asyncio.create_task(others())
    await ingest(gateway, [d.Document(id=str(n), text="x") for n in range(4)])
    other.cancel()
    assert len(set(seen)) == 4


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
        # The header alone: where a batch is still being sent, grpcio may hide the status (see call_ending.py).
        await ingest(gateway, name="nope")
    assert isinstance(fault_from_rpc_error(caught.value), faults.NotFound)
