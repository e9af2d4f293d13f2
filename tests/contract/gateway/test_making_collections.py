"""A collection is made with all that it was asked for, or not at all, whoever goes away meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from grpc.aio import Metadata
from qdrant_client import AsyncQdrantClient

from tests.contract.gateway.calls import fault, ingest
from tests.contract.gateway.conftest import Gateway, serving
from tests.fakes.backends import FakeEmbedder, embed_words
from winnow.search.v1 import collections_pb2 as c
from winnow.search.v1 import documents_pb2 as d
from winnow_gateway.collections import (
    CollectionSpec,
    EmbedderModel,
    LexicalConfig,
    MetadataField,
    MetadataType,
    Similarity,
)
from winnow_gateway.documents import Document
from winnow_gateway.ports import Index, Point
from winnow_rpc.faults import AlreadyExists, DeadlineExceeded, NotFound, Unavailable

FIELDS = (MetadataField("year", MetadataType.INTEGER), MetadataField("two words, ä", MetadataType.KEYWORD))
SPEC = CollectionSpec("docs", EmbedderModel("some-model", "a" * 64, 4, Similarity.COSINE), metadata_fields=FIELDS)
create_collection, create_payload_index = AsyncQdrantClient.create_collection, AsyncQdrantClient.create_payload_index

# A collection of the fake is made in one step.
pytestmark = pytest.mark.parametrize("index", ["qdrant-client over winnow_index"], indirect=True)


def failure(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, Metadata(), Metadata())


async def test_a_collection_whose_maker_goes_away_is_made_to_its_end(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, made = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(client: AsyncQdrantClient, name: str, key: str, **options: Any) -> Any:
        begun.set()
        await go_on.wait()
        answer = await create_payload_index(client, name, key, **options)
        if "two words" in key:
            made.set()
        return answer

    monkeypatch.setattr(AsyncQdrantClient, "create_payload_index", slow)
    async with asyncio.timeout(20):
        making = asyncio.create_task(index.create_collection(SPEC))
        await begun.wait()
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        go_on.set()
        await made.wait()
    assert (await index.collection("docs")).spec == SPEC
    with pytest.raises(AlreadyExists):
        await index.create_collection(SPEC)


async def test_of_a_collection_whose_making_fails_nothing_is_left(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(client: AsyncQdrantClient, name: str, **options: Any) -> None:
        await create_collection(client, name, **options)
        raise failure(grpc.StatusCode.DEADLINE_EXCEEDED)

    async def never(client: AsyncQdrantClient, name: str, key: str, **options: Any) -> None:
        raise failure(grpc.StatusCode.UNAVAILABLE)

    for step, fails, expected in (
        ("create_collection", late, DeadlineExceeded),
        ("create_payload_index", never, Unavailable),
    ):
        with monkeypatch.context() as client:
            client.setattr(AsyncQdrantClient, step, fails)
            with pytest.raises(expected):
                await index.create_collection(SPEC)
        with pytest.raises(NotFound):
            await index.collection("docs")
    assert (await index.create_collection(SPEC)).spec == SPEC


async def test_a_maker_that_hears_nothing_leaves_the_collection_of_another_alone(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = replace(SPEC, description="of another gateway")
    await index.create_collection(theirs)

    async def unheard(client: AsyncQdrantClient, name: str, **options: Any) -> None:
        raise failure(grpc.StatusCode.DEADLINE_EXCEEDED)

    with monkeypatch.context() as client:
        client.setattr(AsyncQdrantClient, "create_collection", unheard)
        with pytest.raises(DeadlineExceeded):
            await index.create_collection(SPEC)
    assert (await index.collection("docs")).spec == theirs


async def test_a_collection_says_that_it_indexes_what_it_does(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    async def years_alone(client: AsyncQdrantClient, name: str, key: str, **options: Any) -> None:
        if "year" in key:
            await create_payload_index(client, name, key, **options)

    monkeypatch.setattr(AsyncQdrantClient, "create_payload_index", years_alone)
    assert (await index.create_collection(SPEC)).spec.metadata_fields == FIELDS[:1]


async def killed_while_making(index: Index, spec: CollectionSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the collection as a gateway does that is killed once it is made, and before its fields are indexed."""

    async def never(client: AsyncQdrantClient, name: str, *args: Any, **options: Any) -> None:
        raise failure(grpc.StatusCode.UNAVAILABLE)

    with monkeypatch.context() as client:
        client.setattr(AsyncQdrantClient, "create_payload_index", never)
        client.setattr(AsyncQdrantClient, "delete_collection", never)
        with pytest.raises(Unavailable):
            await index.create_collection(spec)
    assert (await index.collection(spec.stored_as)).unindexed == spec.metadata_fields


async def test_a_collection_whose_maker_was_killed_is_completed_by_the_first_ingest(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(index=index)  # type: ignore[arg-type]
    async with serving(gateway):
        spec = replace(SPEC, embedder=gateway.embedder.served, lexical=LexicalConfig("none"))
        await killed_while_making(index, spec, monkeypatch)
        assert isinstance(
            await fault(gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))), AlreadyExists
        )
        documents = [d.Document(id=str(year), text="the year") for year in (1999, 2005)]
        for document in documents:
            document.metadata.update({"year": int(document.id)})
        assert [each.outcome for each in await ingest(gateway, documents)] == [d.INGEST_OUTCOME_INDEXED] * 2
        completed = await index.collection("docs")
        assert (completed.spec, completed.unindexed) == (spec, ())
        assert await index.complete_collection("docs") == completed


async def test_a_collection_that_holds_documents_is_not_indexed_behind_its_graph(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    await killed_while_making(index, SPEC, monkeypatch)
    document = Document("a", text="x")
    await index.upsert("docs", [Point(document, document.content_hash, np.ones(4, dtype=np.float32))])
    left = await index.complete_collection("docs")
    assert (left.spec.metadata_fields, left.unindexed) == ((), FIELDS)


async def test_a_collection_that_is_embedded_anew_indexes_all_that_it_was_to_index(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    former, gateway = FakeEmbedder("d" * 64), Gateway(index=index)  # type: ignore[arg-type]
    await killed_while_making(index, replace(SPEC, embedder=former.served), monkeypatch)
    document = Document("a", text="x")
    await index.upsert("docs", [Point(document, document.content_hash, embed_words("x"))])
    async with serving(gateway):
        async for _ in gateway.stub.ReembedCollection(c.ReembedCollectionRequest(name="docs"), timeout=30):
            pass
    (stored,) = await index.collection_names()
    embedded_anew = await index.collection(stored)
    assert (embedded_anew.document_count, embedded_anew.spec.metadata_fields) == (1, FIELDS)
