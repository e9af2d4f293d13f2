"""Writes and deletions while a collection is embedded anew: none is lost, and nothing comes back."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from tests.contract.gateway.calls import TEXTS, fill, ingest
from tests.contract.gateway.conftest import Gateway, serving
from tests.contract.gateway.test_reembedding import NEWLY_STORED, fails, live, reembed, upgraded
from tests.fakes.backends import FakeEmbedder, embed_words
from winnow.search.v1 import collections_pb2 as c
from winnow.search.v1 import documents_pb2 as d
from winnow_gateway.collections import IndexState
from winnow_gateway.documents import Document
from winnow_gateway.ports import EmbeddedTexts, Index, Point
from winnow_rpc import faults

__all__ = ["upgraded"]


@pytest.fixture
async def other(upgraded: Gateway) -> AsyncIterator[Gateway]:
    """Another gateway over the same index."""
    made = Gateway(embedder=upgraded.embedder, former_embedder=upgraded.former_embedder, index=upgraded.index)
    async with serving(made):
        yield made


class Writer:
    """Writes and deletes ids of its own through one gateway, and knows what should be there."""

    def __init__(self, name: str, gateway: Gateway, draw: random.Random) -> None:
        self.name = name
        self.expected: dict[str, str] = {}
        self.acknowledged = 0
        self._gateway = gateway
        self._draw = draw

    async def write(self) -> None:
        ids = [f"{self.name}{n}" for n in self._draw.sample(range(30), 5)]
        documents = [d.Document(id=id_, text=f"{id_} {self._draw.randrange(3)}") for id_ in ids]
        came = await ingest(self._gateway, documents[:3], documents[3:])
        assert d.INGEST_OUTCOME_REFUSED not in {each.outcome for each in came}
        self.acknowledged += len(came)
        self.expected |= {document.id: document.text for document in documents}

    async def delete(self) -> None:
        ids = self._draw.sample(range(30), 3)
        await self._gateway.stub.DeleteDocuments(
            d.DeleteDocumentsRequest(collection="docs", ids=[f"{self.name}{n}" for n in ids])
        )
        for n in ids:
            self.expected.pop(f"{self.name}{n}", None)

    async def delete_by_filter(self) -> None:
        id_ = f"{self.name}{self._draw.randrange(30)}"
        filter_ = d.Filter(must=[d.Condition(ids=d.IdsCondition(ids=[id_]))])
        await self._gateway.stub.DeleteDocuments(d.DeleteDocumentsRequest(collection="docs", filter=filter_))
        self.expected.pop(id_, None)

    async def run(self, until: asyncio.Event) -> None:
        await self.write()
        while not until.is_set():
            await self._draw.choice([self.write, self.write, self.delete, self.delete_by_filter])()
            await asyncio.sleep(self._draw.random() * 0.01)


@pytest.mark.parametrize("seed", range(6))
async def test_random_writes_through_two_gateways_are_all_there_after_whatever_their_clocks(
    upgraded: Gateway,
    other: Gateway,
    seed: int,
) -> None:
    draw = random.Random(seed)
    upgraded.index.clock = lambda: datetime.now(UTC) + timedelta(hours=draw.uniform(-2, 2))
    upgraded.embedder.delay = 0.004
    writers = [Writer(name, gateway, draw) for name, gateway in (("a", upgraded), ("b", other), ("c", other))]
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.run(over))
        await asyncio.sleep(0.05)
        await reembed(upgraded)
        await asyncio.sleep(0.05)
        over.set()
    expected = dict(TEXTS)
    for writer in writers:
        assert writer.acknowledged
        expected |= writer.expected
    assert live(upgraded.index) == expected
    assert list(upgraded.index.held) == [NEWLY_STORED]


@asynccontextmanager
async def copied(gateway: Gateway) -> AsyncIterator[None]:
    """While all documents are copied, and the switch waits for the graph; ends after the switch."""
    gateway.index.state = IndexState.BUILDING
    call = gateway.stub.ReembedCollection(c.ReembedCollectionRequest(name="docs"), timeout=30)
    progress = aiter(call)
    while (await anext(progress)).phase != c.REEMBED_PHASE_INDEXING:
        pass
    yield
    gateway.index.state = IndexState.READY
    async for _ in progress:
        pass


async def test_a_write_by_a_clock_that_is_an_hour_behind_arrives(upgraded: Gateway, other: Gateway) -> None:
    async with copied(upgraded):
        upgraded.index.clock = lambda: datetime.now(UTC) - timedelta(hours=1)
        await ingest(other, [d.Document(id="cats", text="the cats have left"), d.Document(id="new", text="it is new")])
    assert live(upgraded.index) == {**TEXTS, "cats": "the cats have left", "new": "it is new"}


async def test_what_is_carried_over_is_struck_out_of_the_journal(
    upgraded: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals, remove, removed = upgraded.index.journals, upgraded.index.journals.remove, asyncio.Event()

    async def watched(journal: str, entries: Sequence[str]) -> None:
        await remove(journal, entries)
        removed.set()

    monkeypatch.setattr(journals, "remove", watched)
    async with asyncio.timeout(30), copied(upgraded):
        await ingest(upgraded, [d.Document(id="cats", text="the cats have left")])
        await removed.wait()
        assert list(journals.held.values()) == [{}]
        (point, _) = upgraded.index.held[NEWLY_STORED].points["cats"]
        assert point.document.text == "the cats have left"


async def test_a_write_whose_gateway_died_before_it_was_noted_arrives_once_it_is_acknowledged(
    upgraded: Gateway,
) -> None:
    document = Document("cats", text="the cats have left")
    async with copied(upgraded):
        written = Point(document, document.content_hash, embed_words(document.passage))
        await upgraded.index.upsert("docs", [written])
        (acknowledged,) = await ingest(upgraded, [d.Document(id="cats", text="the cats have left")])
        assert acknowledged.outcome == d.INGEST_OUTCOME_UNCHANGED
    assert live(upgraded.index) == {**TEXTS, "cats": "the cats have left"}


async def test_a_write_that_is_noted_too_late_is_made_again(upgraded: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    journals, add = upgraded.index.journals, upgraded.index.journals.add
    copying = AsyncExitStack()

    async def late(journal: str, document_ids: Sequence[str]) -> None:
        monkeypatch.undo()
        await copying.aclose()
        assert journal not in journals.held
        await add(journal, document_ids)

    await copying.enter_async_context(copied(upgraded))
    monkeypatch.setattr(journals, "add", late)
    (acknowledged,) = await ingest(upgraded, [d.Document(id="cats", text="the cats have left")])
    assert acknowledged.outcome == d.INGEST_OUTCOME_INDEXED
    assert live(upgraded.index) == {**TEXTS, "cats": "the cats have left"}


async def test_of_two_gateways_that_embed_anew_the_one_that_began_later_goes_on(
    upgraded: Gateway, other: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = upgraded.embedder.embed_passages
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def held_up(*args: Any, **options: Any) -> EmbeddedTexts:
        monkeypatch.undo()
        begun.set()
        await go_on.wait()
        return await embed(*args, **options)

    monkeypatch.setattr(upgraded.embedder, "embed_passages", held_up)
    first = asyncio.create_task(fails(upgraded))
    async with asyncio.timeout(30):
        await begun.wait()
        async with copied(other):
            await ingest(other, [d.Document(id="cats", text="the cats have left")])
            go_on.set()
            ended = await first
    assert (type(ended), ended.reason) == (faults.Aborted, "TAKEN_OVER")
    assert live(upgraded.index) == {**TEXTS, "cats": "the cats have left"}
    assert list(upgraded.index.held) == [NEWLY_STORED]


@pytest.mark.parametrize("moment", ["the model is asked for", "the journal is made"])
async def test_a_run_that_another_one_overtakes_as_it_begins_harms_nothing(
    upgraded: Gateway, other: Gateway, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    owner: Any = upgraded.embedder if moment == "the model is asked for" else upgraded.index.journals
    method = "model" if moment == "the model is asked for" else "make"
    usual = getattr(owner, method)

    async def overtaken(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        await reembed(other)
        await ingest(other, [d.Document(id="cats", text="the cats have left")])
        return await usual(*args, **options)

    monkeypatch.setattr(owner, method, overtaken)
    ended = await fails(upgraded)
    assert (type(ended), ended.reason) == (faults.Aborted, "SWITCHED_ELSEWHERE")
    expected = {**TEXTS, "cats": "the cats have left"}
    assert live(upgraded.index) == expected
    await reembed(upgraded)
    assert live(upgraded.index) == expected
    assert list(upgraded.index.held) == [NEWLY_STORED]
    assert not upgraded.index.journals.held


@pytest.mark.parametrize("index", ["qdrant-client over winnow_index"], indirect=True)
async def test_random_writes_are_all_there_after_in_the_index_itself(index: Index) -> None:
    former = FakeEmbedder("d" * 64, salt="former")
    draw = random.Random(1)
    over = asyncio.Event()
    async with serving(Gateway(embedder=former, index=index)) as before:  # type: ignore[arg-type]
        await fill(before)
    gateway = Gateway(former_embedder=former, index=index)  # type: ignore[arg-type]
    gateway.embedder.delay = 0.02
    async with serving(gateway):
        writer = Writer("a", gateway, draw)
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.run(over))
            await reembed(gateway)
            over.set()
        page = await gateway.stub.ListDocuments(d.ListDocumentsRequest(collection="docs", page_size=1000))
    assert writer.acknowledged
    assert {document.id: document.text for document in page.documents} == {**TEXTS, **writer.expected}
    (stored,) = await index.collection_names()
    assert (await index.collection(stored)).spec.embedder == gateway.embedder.served


async def test_an_ingest_that_is_open_across_the_switch_goes_on_with_the_new_model(upgraded: Gateway) -> None:
    sent: asyncio.Queue[d.IngestDocumentsRequest | None] = asyncio.Queue()

    async def requests() -> AsyncIterator[d.IngestDocumentsRequest]:
        yield d.IngestDocumentsRequest(header=d.IngestHeader(collection="docs"))
        while request := await sent.get():
            yield request

    call = upgraded.stub.IngestDocuments(requests(), timeout=20)
    answers = aiter(call)
    for at, step in enumerate(("before", "after")):
        batch = d.DocumentBatch(documents=[d.Document(id=step, text=step)])
        await sent.put(d.IngestDocumentsRequest(batch=batch))
        (acknowledged,) = (await anext(answers)).acknowledgements
        assert (acknowledged.id, acknowledged.outcome) == (step, d.INGEST_OUTCOME_INDEXED)
        if not at:
            await reembed(upgraded)
            assert upgraded.former_embedder is not None
            upgraded.former_embedder.away = faults.Unavailable("retired")
    await sent.put(None)
    assert live(upgraded.index) == {**TEXTS, "before": "before", "after": "after"}


async def test_no_write_is_acknowledged_while_the_switch_is_under_way(upgraded: Gateway) -> None:
    placements = upgraded.index.placements
    upgraded.embedder.failures = [faults.Internal("broken")]
    with pytest.raises(grpc.aio.AioRpcError):
        await reembed(upgraded)
    await placements.hold("docs")
    writing = asyncio.create_task(ingest(upgraded, [d.Document(id="late", text="late")]))
    await asyncio.sleep(0.3)
    assert not writing.done()
    await placements.release("docs")
    assert len(await writing) == 1
    assert live(upgraded.index)["late"] == "late"


async def test_a_switch_that_was_left_behind_holds_nobody_for_ever(upgraded: Gateway) -> None:
    upgraded.embedder.failures = [faults.Internal("broken")]
    with pytest.raises(grpc.aio.AioRpcError):
        await reembed(upgraded)
    await upgraded.index.placements.hold("docs")
    # So long an ingest waits for a backend, by the settings of these gateways.
    assert len(await ingest(upgraded, [d.Document(id="late", text="late")])) == 1
    await reembed(upgraded)
    assert live(upgraded.index) == {**TEXTS, "late": "late"}


async def test_a_run_whose_hold_was_taken_for_left_behind_does_its_last_step_again(upgraded: Gateway) -> None:
    placements, hold, broken = upgraded.index.placements, upgraded.index.placements.hold, 2

    async def hold_and_lose(name: str) -> None:
        nonlocal broken
        await hold(name)
        if broken:
            broken -= 1
            await placements.release(name)

    placements.hold = hold_and_lose  # type: ignore[method-assign]
    came = await reembed(upgraded)
    assert [each.phase for each in came].count(c.REEMBED_PHASE_SWITCHING) == 3
    assert live(upgraded.index) == TEXTS


async def test_deletions_reach_what_is_being_filled(upgraded: Gateway) -> None:
    await ingest(upgraded, [d.Document(id=f"more{n}", text=f"more {n}") for n in range(12)])
    upgraded.embedder.failures = [None, None, None, faults.Internal("broken")]
    with pytest.raises(grpc.aio.AioRpcError):
        await reembed(upgraded)
    copied = list(upgraded.index.held[NEWLY_STORED].points)
    assert copied
    deleted = await upgraded.stub.DeleteDocuments(d.DeleteDocumentsRequest(collection="docs", ids=copied[:1]))
    assert deleted.deleted_document_count == 1
    filter_ = d.Filter(must=[d.Condition(ids=d.IdsCondition(ids=copied[1:3]))])
    deleted = await upgraded.stub.DeleteDocuments(d.DeleteDocumentsRequest(collection="docs", filter=filter_))
    assert deleted.deleted_document_count == len(copied[1:3])
    await reembed(upgraded)
    assert not set(copied[:3]) & set(live(upgraded.index))
