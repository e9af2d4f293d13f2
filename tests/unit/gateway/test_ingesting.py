"""Ingest: order, overlap, what is unchanged, what is refused, and backends that go away."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.fakes.backends import FakeEmbedder
from tests.fakes.index import FakeIndex
from winnow_gateway.collections import CollectionSpec
from winnow_gateway.documents import Document
from winnow_gateway.ingesting import Acknowledgement, IngestLimits, IngestRun, Offered, Outcome
from winnow_gateway.ports import EmbeddedTexts
from winnow_gateway.read_ahead import BytesInHand
from winnow_rpc.faults import Fault, InvalidArgument, NotFound, ResourceExhausted, Unavailable

LIMITS = IngestLimits(group_size=4, groups_in_flight=2, read_ahead=8, retry_seconds=5)


class Bench:
    """Backends and one collection."""

    def __init__(self) -> None:
        self.embedder = FakeEmbedder()
        self.index = FakeIndex()
        self.spec = CollectionSpec("docs", self.embedder.served)
        self.in_hand = BytesInHand(LIMITS.held_bytes)

    async def ingest(
        self, *batches: Sequence[Document | Offered], limits: IngestLimits = LIMITS
    ) -> list[Acknowledgement]:
        if "docs" not in self.index.held:
            await self.index.create_collection(self.spec)

        async def send() -> AsyncIterator[Sequence[Offered]]:
            for batch in batches:
                yield [each if isinstance(each, Offered) else Offered(each.id, each) for each in batch]
                await asyncio.sleep(0)

        return await self.collect(send(), limits)

    async def collect(
        self, documents: AsyncIterator[Sequence[Offered]], limits: IngestLimits = LIMITS
    ) -> list[Acknowledgement]:
        run = self.run(limits)
        return [each async for group in run.acknowledgements(documents) for each in group]

    def run(self, limits: IngestLimits = LIMITS) -> IngestRun:
        return IngestRun(spec=self.spec, embedder=self.embedder, index=self.index, limits=limits, in_hand=self.in_hand)

    def texts(self) -> dict[str, str]:
        return {id_: point.document.text for id_, (point, _) in self.index.held["docs"].points.items()}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def numbered(count: int, text: str = "text") -> list[Document]:
    return [Document(f"d{i}", text=f"{text} {i}") for i in range(count)]


async def test_every_document_is_acknowledged_in_order(bench: Bench) -> None:
    acknowledged = await bench.ingest(numbered(10), [Document("last", text="x")])
    assert [each.sequence for each in acknowledged] == list(range(11))
    assert [each.id for each in acknowledged] == [f"d{i}" for i in range(10)] + ["last"]
    assert {each.outcome for each in acknowledged} == {Outcome.INDEXED}
    assert len(bench.texts()) == 11


async def test_an_empty_stream_ends_without_acknowledgements(bench: Bench) -> None:
    assert await bench.ingest() == []


async def test_unchanged_documents_are_not_embedded_again(bench: Bench) -> None:
    await bench.ingest(numbered(10))
    bench.embedder.embedded_passages.clear()
    changed = Document("d3", text="something else")
    acknowledged = await bench.ingest([*numbered(3), changed, *numbered(10)[4:]])
    assert [each.id for each in acknowledged if each.outcome is Outcome.INDEXED] == ["d3"]
    assert [each.outcome for each in acknowledged].count(Outcome.UNCHANGED) == 9
    assert bench.embedder.embedded_passages == ["something else"]


async def test_a_refused_document_refuses_only_itself(bench: Bench) -> None:
    refusal = InvalidArgument("the text is blank", field="batch.documents[1].text")
    acknowledged = await bench.ingest([Document("a", text="x"), Offered("b", None, refusal), Document("c", text="z")])
    assert [each.outcome for each in acknowledged] == [Outcome.INDEXED, Outcome.REFUSED, Outcome.INDEXED]
    assert acknowledged[1].refusal is refusal
    assert set(bench.texts()) == {"a", "c"}


async def test_a_document_that_the_embedder_refuses_refuses_only_itself(bench: Bench) -> None:
    bench.embedder.refused_words = {"poison"}
    documents = [Document("a", text="one"), Document("b", text="a poison here"), Document("c", text="three")]
    acknowledged = await bench.ingest(documents)
    assert [each.outcome for each in acknowledged] == [Outcome.INDEXED, Outcome.REFUSED, Outcome.INDEXED]
    assert set(bench.texts()) == {"a", "c"}


async def test_the_cut_of_a_long_text_is_reported(bench: Bench) -> None:
    bench.embedder.max_words = 3
    acknowledged = await bench.ingest([Document("a", text="1 2 3 4 5"), Document("b", text="1 2 3")])
    assert [each.dropped_token_count for each in acknowledged] == [2, 0]


async def test_the_last_of_two_documents_with_one_id_wins_across_groups(bench: Bench) -> None:
    await bench.ingest([Document("a", text="old")])
    one_each = IngestLimits(group_size=1, groups_in_flight=4, read_ahead=8)
    bench.embedder.delay = 0.01
    # The third is what the index holds while the second is still on its way: it must not count as unchanged.
    acknowledged = await bench.ingest([Document("a", text="new")], [Document("a", text="old")], limits=one_each)
    assert [each.outcome for each in acknowledged] == [Outcome.INDEXED, Outcome.INDEXED]
    assert bench.texts() == {"a": "old"}


async def test_random_streams_leave_what_a_plain_dictionary_would(bench: Bench) -> None:
    draw = random.Random(7)
    expected: dict[str, str] = {}
    for _ in range(20):
        batches = [
            [Document(f"d{draw.randrange(12)}", text=f"v{draw.randrange(3)}") for _ in range(draw.randrange(1, 6))]
            for _ in range(draw.randrange(1, 5))
        ]
        # Within one batch ids are distinct by contract.
        batches = [list({document.id: document for document in batch}.values()) for batch in batches]
        bench.embedder.delay = draw.choice([0.0, 0.001])
        await bench.ingest(*batches, limits=IngestLimits(group_size=draw.randrange(1, 5), groups_in_flight=3))
        expected.update({document.id: document.text for batch in batches for document in batch})
        assert bench.texts() == expected


@pytest.mark.parametrize("fault", [Unavailable("gone"), ResourceExhausted("busy")])
async def test_an_ingest_waits_for_a_backend_that_comes_back(bench: Bench, fault: Fault) -> None:
    bench.embedder.failures = [fault, fault]
    bench.index.failures = [fault]
    acknowledged = await bench.ingest(numbered(3))
    assert {each.outcome for each in acknowledged} == {Outcome.INDEXED}
    assert len(bench.texts()) == 3


async def test_an_ingest_gives_up_on_a_backend_that_stays_away(bench: Bench) -> None:
    bench.embedder.failures = [Unavailable("gone")] * 1000
    with pytest.raises(Unavailable, match="gone"):
        await bench.ingest(numbered(3), limits=IngestLimits(retry_seconds=0.2))


async def test_a_fault_that_waiting_does_not_mend_ends_the_stream_at_once(bench: Bench) -> None:
    bench.index.failures = [NotFound("the collection is gone")]
    with pytest.raises(NotFound):
        await bench.ingest(numbered(3))


async def test_groups_stay_small_enough_for_a_message(bench: Bench) -> None:
    sizes = [10, 10, 10, 500, 10, 10, 10, 10, 10]
    documents = [Document(f"d{i}", text=chr(97 + i) * size) for i, size in enumerate(sizes)]
    limits = IngestLimits(group_size=4, group_bytes=100, groups_in_flight=2)
    acknowledged = await bench.ingest(documents, limits=limits)
    assert [each.sequence for each in acknowledged] == list(range(len(sizes)))
    assert bench.index.upserts == [["d0", "d1"], ["d2"], ["d3"], ["d4", "d5"], ["d6", "d7"], ["d8"]]


async def test_a_fault_of_the_callers_stream_comes_after_the_acknowledgements_before_it(bench: Bench) -> None:
    await bench.index.create_collection(bench.spec)

    async def send() -> AsyncIterator[Sequence[Offered]]:
        yield [Offered("a", Document("a", text="x"))]
        raise InvalidArgument("no batch", field="batch")

    run = bench.run()
    got: list[str] = []
    with pytest.raises(InvalidArgument, match="no batch"):
        async for group in run.acknowledgements(send()):
            got += [each.id for each in group]
    assert got == ["a"]


async def test_reading_stops_while_nobody_takes_acknowledgements(bench: Bench) -> None:
    await bench.index.create_collection(bench.spec)
    read = 0

    async def send() -> AsyncIterator[Sequence[Offered]]:
        nonlocal read
        while True:
            read += 1
            yield [Offered(f"d{read}", Document(f"d{read}", text="x"))]

    run = bench.run()
    acknowledged = run.acknowledgements(send())
    await anext(acknowledged)
    for _ in range(200):
        await asyncio.sleep(0)
    settled = read
    for _ in range(200):
        await asyncio.sleep(0)
    assert read == settled
    # Read ahead, groups on their way, one group being formed and one in hand.
    bound = LIMITS.read_ahead + (LIMITS.groups_in_flight + 3) * LIMITS.group_size
    assert settled <= bound
    await acknowledged.aclose()


class Endless:
    """A stream of documents of 1,000 characters, which count as 4,000 bytes, two in a message."""

    def __init__(self) -> None:
        self.read = 0

    async def documents(self) -> AsyncIterator[Sequence[Offered]]:
        while True:
            self.read += 2
            ids = [f"d{self.read - 1}", f"d{self.read}"]
            yield [Offered(id_, Document(id_, text="x" * 1000)) for id_ in ids]


async def settle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def test_reading_stops_at_its_bytes_while_the_embedder_is_away(bench: Bench) -> None:
    await bench.index.create_collection(bench.spec)
    bench.embedder.delay = 3600
    limits = IngestLimits(group_bytes=4_000, groups_in_flight=2, read_ahead=1000, read_ahead_bytes=12_000)
    stream = Endless()
    acknowledged = bench.run(limits).acknowledgements(stream.documents())
    first = asyncio.ensure_future(anext(acknowledged))
    await settle()
    # Three groups of one document each, one of which waits for its place, the next in the hand of who forms groups,
    # and three or four that wait.
    assert 7 <= stream.read <= 8
    assert bench.in_hand.held == 4_000 * stream.read
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await acknowledged.aclose()
    assert bench.in_hand.held == 0


async def test_streams_that_hold_much_together_read_on_when_nothing_of_theirs_waits(bench: Bench) -> None:
    await bench.index.create_collection(bench.spec)
    bench.in_hand = BytesInHand(20_000)
    bench.embedder.delay = 3600
    stuck, other = Endless(), Endless()
    limits = IngestLimits(group_bytes=4_000, groups_in_flight=2, read_ahead=1000)
    held = bench.run(limits).acknowledgements(stuck.documents())
    waiting = asyncio.ensure_future(anext(held))
    await settle()
    assert stuck.read < 12
    bench.embedder.delay = 0
    # Whatever the one holds whose embedder is away, the other goes on.
    flowing = bench.run(limits).acknowledgements(other.documents())
    for _ in range(20):
        await anext(flowing)
    await flowing.aclose()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await held.aclose()
    assert bench.in_hand.held == 0


async def test_closing_in_the_middle_leaves_no_task_behind(bench: Bench) -> None:
    before = asyncio.all_tasks()
    await bench.index.create_collection(bench.spec)

    async def send() -> AsyncIterator[Sequence[Offered]]:
        for document in numbered(1000):
            yield [Offered(document.id, document)]

    run = bench.run()
    acknowledged = run.acknowledgements(send())
    await anext(acknowledged)
    await acknowledged.aclose()
    assert asyncio.all_tasks() == before


async def test_a_group_that_is_too_large_for_one_call_of_the_embedder_goes_in_several(bench: Bench) -> None:
    bench.embedder.max_call_words = 40
    sizes: list[int] = []
    embed = bench.embedder.embed_passages

    async def watched(passages: Sequence[str], *, fingerprint: str, timeout: float | None = None) -> EmbeddedTexts:
        sizes.append(len(passages))
        return await embed(passages, fingerprint=fingerprint, timeout=timeout)

    bench.embedder.embed_passages = watched  # type: ignore[method-assign]
    texts = [" ".join([f"w{at}"] * 20) for at in range(4)]
    monster = Document("monster", text=" ".join(["w"] * 41))
    acknowledged = await bench.ingest([Document(f"d{at}", text=text) for at, text in enumerate(texts)], [monster])
    assert [each.outcome for each in acknowledged] == [Outcome.INDEXED] * 4 + [Outcome.REFUSED]
    assert isinstance(acknowledged[-1].refusal, ResourceExhausted)
    assert sizes == [4, 1, 1, 1, 1, 1], "what is too large will be so again, and is not waited for"
