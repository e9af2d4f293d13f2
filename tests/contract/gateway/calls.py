"""What the tests of the search contract share: calls over the stub, and what a refusal names."""

from collections.abc import Awaitable, Iterable
from typing import Any

import grpc
import pytest

from tests.contract.gateway.conftest import Gateway
from winnow.search.v1 import collections_pb2 as c
from winnow.search.v1 import documents_pb2 as d
from winnow.search.v1 import search_pb2 as s
from winnow_rpc import faults
from winnow_rpc.status import fault_from_rpc_error

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


async def fill(gateway: Gateway, *, without_lexical: bool = False) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs", without_lexical=without_lexical))
    documents = [d.Document(id=id_, text=text) for id_, text in TEXTS.items()]
    for position, document in enumerate(documents):
        document.metadata.update({"number": position, "kind": "animal"})
    acknowledged = await ingest(gateway, documents)
    assert {each.outcome for each in acknowledged} == {d.INGEST_OUTCOME_INDEXED}


def search(**fields: Any) -> s.SearchRequest:
    return s.SearchRequest(**{"collection": "docs", "query": "cat tree", **fields})


WORDS = ["cat", "tree", "mat", "dog", "fox"]


def document(number: int) -> d.Document:
    words = [WORDS[(number * step) % len(WORDS)] for step in (1, 2, 3)]
    return d.Document(id=f"{number:03}", text=" ".join([*words, f"number{number}"]))


async def fill_many(gateway: Gateway, count: int = 40) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    await ingest(gateway, [document(number) for number in range(count)])


def budget(seconds: float) -> int:
    return round(seconds * 1e6)


def only(response: s.SearchResponse) -> s.Degradation:
    (degradation,) = response.degradations
    assert degradation.message
    return degradation
