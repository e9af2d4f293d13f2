"""Re-embedding: another model's vectors take the place of the former ones, and nobody notices but by better answers."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
import pytest

from tests.contract.gateway.calls import TEXTS, fault, fill, ingest, search
from tests.contract.gateway.conftest import Gateway, serving
from tests.fakes.backends import FakeEmbedder, embed_words
from tests.fakes.index import FakeIndex
from winnow.search.v1 import collections_pb2 as c
from winnow.search.v1 import documents_pb2 as d
from winnow_gateway.collections import IndexState
from winnow_rpc import faults
from winnow_rpc.status import fault_from_rpc_error

OLD, NEW = "f" * 64, "e" * 64
NEWLY_STORED = f"docs~{'e' * 12}"


@pytest.fixture
async def upgraded() -> AsyncIterator[Gateway]:
    """A gateway after the change of models: the new one embeds, the former one is still there, and `docs` is of the
    former."""
    made = Gateway(embedder=FakeEmbedder(NEW, salt="new"), former_embedder=FakeEmbedder(OLD))
    async with serving(Gateway(embedder=made.former_embedder or FakeEmbedder(), index=made.index)) as before:
        await fill(before)
    async with serving(made):
        yield made


async def reembed(gateway: Gateway, **options: Any) -> list[c.ReembedCollectionResponse]:
    call = gateway.stub.ReembedCollection(c.ReembedCollectionRequest(name="docs", **options), timeout=30)
    return [progress async for progress in call]


async def fails(gateway: Gateway, **options: Any) -> faults.Fault:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reembed(gateway, **options)
    return fault_from_rpc_error(caught.value)


async def found(gateway: Gateway) -> tuple[list[str], str]:
    """What a search finds, and the model that embedded its query."""
    response = await gateway.stub.Search(search(), timeout=10)
    assert not response.degradations
    return [hit.document.id for hit in response.hits], response.embedder_fingerprint


def live(index: FakeIndex) -> dict[str, str]:
    """Texts by id of what answers, whose vectors are sure to be those of the model that it is bound to."""
    held = index.held[index.placements.aliases.get("docs~live", "docs")]
    for point, _ in held.points.values():
        salt = "new" if held.spec.embedder.fingerprint == NEW else ""
        assert np.allclose(point.vector, embed_words(point.document.passage, salt)), point.document.id
        assert point.content_hash == point.document.content_hash
    return {id_: point.document.text for id_, (point, _) in held.points.items()}


async def test_everything_is_embedded_anew_and_nothing_else_has_changed(upgraded: Gateway) -> None:
    before = await upgraded.stub.GetCollection(c.GetCollectionRequest(name="docs"))
    document = await upgraded.stub.GetDocument(d.GetDocumentRequest(collection="docs", id="cats"))
    came = await reembed(upgraded)
    after = await upgraded.stub.GetCollection(c.GetCollectionRequest(name="docs"))
    assert (before.collection.embedder_fingerprint, after.collection.embedder_fingerprint) == (OLD, NEW)
    before.collection.embedder_fingerprint = NEW
    assert after == before
    assert await upgraded.stub.GetDocument(d.GetDocumentRequest(collection="docs", id="cats")) == document
    assert live(upgraded.index) == TEXTS
    assert list(upgraded.index.held) == [NEWLY_STORED]
    assert upgraded.index.journals.held == {}
    last = came[-1]
    assert [each.complete for each in came] == [False] * (len(came) - 1) + [True]
    assert (last.embedded_document_count, last.document_count) == (4, 4)
    assert (last.former_embedder_fingerprint, last.embedder_fingerprint) == (OLD, NEW)
    phases = list(dict.fromkeys(each.phase for each in came))
    assert phases == [c.REEMBED_PHASE_EMBEDDING, c.REEMBED_PHASE_SWITCHING, c.REEMBED_PHASE_SWITCHED]


async def test_searches_ask_the_former_model_until_the_switch_and_the_new_one_after(upgraded: Gateway) -> None:
    assert (await found(upgraded))[1] == OLD
    await reembed(upgraded)
    ids, model = await found(upgraded)
    assert model == NEW
    assert set(ids) == set(TEXTS)


async def test_without_the_former_embedder_searches_are_refused_until_it_is_done(upgraded: Gateway) -> None:
    async with serving(Gateway(embedder=upgraded.embedder, index=upgraded.index)) as alone:
        refused = await fault(alone.stub.Search(search()))
        assert (type(refused), refused.reason) == (faults.FailedPrecondition, "EMBEDDER_MISMATCH")
        await reembed(alone)
        assert (await found(alone))[1] == NEW


async def test_a_gateway_that_remembers_the_former_vectors_finds_the_new_ones_when_those_are_gone(
    upgraded: Gateway,
) -> None:
    async with serving(
        Gateway(embedder=upgraded.embedder, former_embedder=upgraded.former_embedder, index=upgraded.index)
    ) as other:
        assert (await found(other))[1] == OLD
        await reembed(upgraded)
        assert (await found(other))[1] == NEW
        other_reads = [
            other.stub.GetDocument(d.GetDocumentRequest(collection="docs", id="cats")),
            other.stub.ListDocuments(d.ListDocumentsRequest(collection="docs")),
            other.stub.DeleteDocuments(d.DeleteDocumentsRequest(collection="docs", ids=["cats"])),
        ]
        for read in other_reads:
            await read


async def test_the_former_vectors_stay_for_the_grace(upgraded: Gateway) -> None:
    upgraded.grace = 60
    async with serving(
        Gateway(embedder=upgraded.embedder, former_embedder=upgraded.former_embedder, index=upgraded.index, grace=60)
    ) as patient:
        call = patient.stub.ReembedCollection(c.ReembedCollectionRequest(name="docs"))
        async for progress in call:
            if progress.phase == c.REEMBED_PHASE_SWITCHED:
                break
        assert set(upgraded.index.held) == {"docs", NEWLY_STORED}
        assert (await found(upgraded))[1] == NEW
        call.cancel()
    async with serving(Gateway(embedder=upgraded.embedder, index=upgraded.index)) as next_one:
        came = await reembed(next_one)
        assert came[-1].complete
        assert list(upgraded.index.held) == [NEWLY_STORED]


async def test_a_second_run_embeds_nothing(upgraded: Gateway) -> None:
    await reembed(upgraded)
    upgraded.embedder.embedded_passages.clear()
    (last,) = await reembed(upgraded)
    assert last.complete
    assert last.former_embedder_fingerprint == last.embedder_fingerprint == NEW
    assert upgraded.embedder.embedded_passages == []


async def test_a_run_that_broke_off_is_gone_on_with(upgraded: Gateway) -> None:
    await ingest(upgraded, [d.Document(id=f"more{n}", text=f"more {n}") for n in range(20)])
    upgraded.embedder.failures = [None, None, None, faults.Internal("the device is broken")]
    assert isinstance(await fails(upgraded), faults.Internal)
    done = set(upgraded.index.held[NEWLY_STORED].points)
    assert 0 < len(done) < 24
    assert (await found(upgraded))[1] == OLD
    upgraded.embedder.embedded_passages.clear()
    came = await reembed(upgraded)
    assert len(upgraded.embedder.embedded_passages) == 24 - len(done)
    assert (came[-1].embedded_document_count, came[-1].document_count) == (24, 24)
    assert len(live(upgraded.index)) == 24
    assert upgraded.index.journals.held == {}


async def test_a_run_whose_caller_leaves_stops_and_lets_another_begin(upgraded: Gateway) -> None:
    upgraded.embedder.delay = 5
    call = upgraded.stub.ReembedCollection(c.ReembedCollectionRequest(name="docs"))
    assert (await anext(aiter(call))).phase == c.REEMBED_PHASE_EMBEDDING
    second = await fails(upgraded)
    assert (type(second), second.reason) == (faults.FailedPrecondition, "REEMBEDDING")
    call.cancel()
    upgraded.embedder.delay = 0
    while (refused := await _first_fault(upgraded)) is not None:
        # Until the gateway has heard that the caller left.
        assert refused.reason == "REEMBEDDING"
    assert live(upgraded.index) == TEXTS


async def _first_fault(gateway: Gateway) -> faults.Fault | None:
    try:
        await reembed(gateway)
    except grpc.aio.AioRpcError as error:
        return fault_from_rpc_error(error)
    return None


async def test_former_vectors_that_were_kept_make_going_back_cheap(upgraded: Gateway) -> None:
    await reembed(upgraded, keep_former=True)
    assert set(upgraded.index.held) == {"docs", NEWLY_STORED}
    await ingest(upgraded, [d.Document(id="cats", text="the cats have left"), d.Document(id="new", text="it is new")])
    await upgraded.stub.DeleteDocuments(d.DeleteDocumentsRequest(collection="docs", ids=["dogs"]))
    former = upgraded.former_embedder
    assert former is not None
    former.embedded_passages.clear()
    async with serving(Gateway(embedder=former, index=upgraded.index)) as back:
        await reembed(back)
        expected = {**TEXTS, "cats": "the cats have left", "new": "it is new"}
        del expected["dogs"]
        assert live(back.index) == expected
        assert sorted(former.embedded_passages) == ["it is new", "the cats have left"]
        assert list(back.index.held) == ["docs"]


async def test_what_is_left_can_be_discarded(upgraded: Gateway) -> None:
    await reembed(upgraded, keep_former=True)
    (last,) = await reembed(upgraded, discard=True)
    assert last.complete
    assert list(upgraded.index.held) == [NEWLY_STORED]
    refused = await fails(upgraded, discard=True, keep_former=True)
    assert isinstance(refused, faults.InvalidArgument)


async def test_an_unfinished_run_for_one_model_gives_way_to_another(upgraded: Gateway) -> None:
    upgraded.embedder.failures = [faults.Internal("broken")]
    await fails(upgraded)
    third = FakeEmbedder("d" * 64, salt="third")
    assert set(upgraded.index.held) == {"docs", NEWLY_STORED}
    async with serving(Gateway(embedder=third, index=upgraded.index)) as following:
        await reembed(following)
        assert list(upgraded.index.held) == [f"docs~{'d' * 12}"]


async def test_the_switch_waits_for_the_graph(upgraded: Gateway) -> None:
    upgraded.index.state = IndexState.BUILDING
    call = upgraded.stub.ReembedCollection(c.ReembedCollectionRequest(name="docs"))
    seen = []
    async for progress in call:
        seen.append(progress.phase)
        if progress.phase == c.REEMBED_PHASE_INDEXING and seen.count(c.REEMBED_PHASE_INDEXING) == 3:
            assert (await found(upgraded))[1] == OLD
            upgraded.index.state = IndexState.READY
    assert (await found(upgraded))[1] == NEW


async def test_a_document_that_the_new_model_refuses_is_named_and_the_former_vectors_answer(upgraded: Gateway) -> None:
    upgraded.embedder.refused_words = {"fox"}
    refused = await fails(upgraded)
    assert (type(refused), refused.reason) == (faults.FailedPrecondition, "DOCUMENT_REFUSED")
    assert "foxes" in refused.message
    assert (await found(upgraded))[1] == OLD


async def test_a_collection_that_is_deleted_meanwhile_leaves_nothing(upgraded: Gateway) -> None:
    upgraded.embedder.delay = 0.2
    call = upgraded.stub.ReembedCollection(c.ReembedCollectionRequest(name="docs"))
    await anext(aiter(call))
    deleted = await upgraded.stub.DeleteCollection(c.DeleteCollectionRequest(name="docs"))
    assert deleted.deleted_document_count == 4
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert isinstance(fault_from_rpc_error(caught.value), faults.NotFound | faults.Aborted)
    assert upgraded.index.held == {}
    assert upgraded.index.journals.held == {}
    assert upgraded.index.placements.aliases == {}


async def test_a_collection_is_one_whatever_the_index_holds_for_it(upgraded: Gateway) -> None:
    await reembed(upgraded, keep_former=True)
    listed = await upgraded.stub.ListCollections(c.ListCollectionsRequest())
    assert [each.name for each in listed.collections] == ["docs"]
    taken = await fault(upgraded.stub.CreateCollection(c.CreateCollectionRequest(name="docs")))
    assert isinstance(taken, faults.AlreadyExists)
    await upgraded.stub.DeleteCollection(c.DeleteCollectionRequest(name="docs"))
    assert upgraded.index.held == {}
    await upgraded.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))


async def test_an_unknown_collection_is_not_found(upgraded: Gateway) -> None:
    call = upgraded.stub.ReembedCollection(c.ReembedCollectionRequest(name="nope"))
    assert isinstance(await fault(anext(aiter(call))), faults.NotFound)


async def test_update_times_stay(upgraded: Gateway) -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    held = upgraded.index.held["docs"]
    held.points = {id_: (point, long_ago) for id_, (point, _) in held.points.items()}
    await reembed(upgraded)
    document = await upgraded.stub.GetDocument(d.GetDocumentRequest(collection="docs", id="cats"))
    assert document.update_time.ToDatetime(tzinfo=UTC) == long_ago
