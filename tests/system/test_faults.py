"""Searches through real processes, while one of them is killed, frozen, slowed down, or answers errors.

Whatever happens, a search ends within its deadline; its answer is right, as far as it says it goes; one that goes less
far than was asked for says so; and soon after a backend is back nothing is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.models.tiny import WORDS, build_bi_encoder, build_cross_encoder
from tests.system.single_services import SingleService, Slowed
from winnow_client import (
    AsyncClient,
    ClientConfig,
    DegradationKind,
    Document,
    Retries,
    RetrievalKind,
    SearchMode,
    SearchResult,
)
from winnow_rpc.faults import DeadlineExceeded, Fault, Unavailable

COLLECTION = "faults"
DOCUMENTS = 80
LIMIT = 10
DEPTH = 30
CLIENTS = 4
BUDGET_SECONDS = 0.5
LATE_SECONDS = 1.0
"""After its budget an answer is given so long to arrive: nothing here is about the speed of a busy machine."""
DEADLINE_SECONDS = 8.0
RECOVERY_SECONDS = 5.0

COMPUTING = ("--engine", "torch", "--device", "cpu")
COUNTS = [60, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]


@dataclass
class Backends:
    """The processes behind gateways."""

    directory: Path
    embedder: SingleService
    reranker: SingleService
    index: SingleService
    cross_encoder: Path
    started: list[SingleService] = field(default_factory=list)

    @contextlib.contextmanager
    def gateway(self, *, reranker: str | None = None) -> Iterator[str]:
        """A gateway over them; the address."""
        gateway = SingleService(
            self.directory,
            "winnow_gateway",
            *("--embedder", self.embedder.address, "--index", self.index.address),
            *("--reranker", reranker or self.reranker.address, "--index-timeout-seconds", "5"),
        )
        try:
            gateway.start()
            yield gateway.address
        finally:
            gateway.stop()

    def another_reranker(self) -> SingleService:
        """A replica, not started."""
        made = SingleService(self.directory, "winnow_reranker", "--model", str(self.cross_encoder), *COMPUTING)
        self.started.append(made)
        return made


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    directory = tmp_path_factory.mktemp("faults")
    bi_encoder = build_bi_encoder(directory / "bi-encoder")
    cross_encoder = build_cross_encoder(directory / "cross-encoder")
    made = Backends(
        directory=directory,
        embedder=SingleService(directory, "winnow_embedder", "--model", str(bi_encoder), *COMPUTING),
        reranker=SingleService(directory, "winnow_reranker", "--model", str(cross_encoder), *COMPUTING),
        index=SingleService(directory, "winnow_index", "--data-dir", str(directory / "index")),
        cross_encoder=cross_encoder,
    )
    made.started += [made.embedder, made.reranker, made.index]
    try:
        for each in made.started:
            each.begin()
        for each in made.started:
            each.ready()
        yield made
    finally:
        for each in made.started:
            each.stop()


def documents() -> list[Document]:
    chance = random.Random(0)
    words = list(dict.fromkeys(WORDS))
    return [
        Document(id=f"{number:02}", text=" ".join(chance.choices(words, k=chance.randint(4, 12))))
        for number in range(DOCUMENTS)
    ]


QUERIES = ["capital city of france", "red bread and green cheese", "what is the river in berlin", "music by the sea"]


@dataclass
class Expected:
    """What a query is answered when all is well: by each way of answering."""

    reranked: list[str]
    retrieved: list[str]
    lexical: set[str]


@dataclass
class Watch:
    """Searches, and whether each answer is what it says it is."""

    client: AsyncClient
    expected: Mapping[str, Expected]
    reasons: dict[str, int] = field(default_factory=dict)
    """What was said of the answers that were less than asked for; "" of those that were whole."""
    faults: list[Fault] = field(default_factory=list)
    slowest: float = 0.0

    async def search(self, query: str) -> SearchResult | None:
        began = time.monotonic()
        try:
            result = await self.client.search(
                COLLECTION,
                query,
                limit=LIMIT,
                depth=DEPTH,
                mode=SearchMode.TWO_STAGE,
                budget=BUDGET_SECONDS,
                timeout=DEADLINE_SECONDS,
            )
        except Fault as fault:
            self.faults.append(fault)
            return None
        finally:
            took = time.monotonic() - began
            self.slowest = max(self.slowest, took)
        self.judge(query, result)
        return result

    def judge(self, query: str, result: SearchResult) -> None:
        """An answer is right as far as it says it goes, and says it if that is not all the way."""
        expected = self.expected[query]
        ids = [hit.document.id for hit in result.hits]
        kinds = {degradation.kind for degradation in result.degradations}
        for degradation in result.degradations:
            name = f"{degradation.kind.value} {degradation.reason}"
            self.reasons[name] = self.reasons.get(name, 0) + 1
            assert degradation.message
        scores = [hit.score for hit in result.hits]
        assert scores == sorted(scores, reverse=True)
        ranks = [hit.retrieval.rank for hit in result.hits if hit.retrieval]
        if DegradationKind.EMBEDDER_UNAVAILABLE in kinds:
            assert result.retrieval_kind is RetrievalKind.LEXICAL
            assert set(ids) <= expected.lexical
        else:
            assert result.retrieval_kind is RetrievalKind.HYBRID
        if DegradationKind.RERANK_SKIPPED in kinds:
            assert result.reranked_count == 0
            assert ranks == list(range(1, len(ids) + 1))
            if DegradationKind.EMBEDDER_UNAVAILABLE not in kinds:
                assert ids == expected.retrieved
        elif DegradationKind.RERANK_PARTIAL in kinds:
            shown = min(result.reranked_count, len(ids))
            assert sum(hit.rerank is not None for hit in result.hits) == shown
            assert all(rank <= result.reranked_count for rank in ranks[:shown])
            assert ranks[shown:] == list(range(result.reranked_count + 1, result.reranked_count + 1 + len(ids) - shown))
        elif not kinds:
            self.reasons[""] = self.reasons.get("", 0) + 1
            assert ids == expected.reranked

    async def many(self, count: int, *, at: Mapping[int, Callable[[], object]] | None = None) -> None:
        """So many searches, some at a time; when as many have begun as a key of `at` says, that is done beside them."""
        numbers = iter(range(count))
        acting: list[asyncio.Task[object]] = []

        async def work() -> None:
            for number in numbers:
                if at and number in at:
                    acting.append(asyncio.create_task(asyncio.to_thread(at[number])))
                await self.search(QUERIES[number % len(QUERIES)])

        await asyncio.gather(*(work() for _ in range(CLIENTS)))
        await asyncio.gather(*acting)

    async def recovered(self) -> float:
        """Seconds until every query is answered in full; fails after RECOVERY_SECONDS."""
        began = time.monotonic()
        whole = 0
        while whole < len(QUERIES):
            assert time.monotonic() - began < RECOVERY_SECONDS, self.reasons
            result = await self.search(QUERIES[whole])
            whole = whole + 1 if result is not None and not result.degradations else 0
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    def nothing_hung(self) -> None:
        assert self.slowest < BUDGET_SECONDS + LATE_SECONDS
        assert not [fault for fault in self.faults if isinstance(fault, DeadlineExceeded)]

    def none_failed(self) -> None:
        assert self.faults == []
        self.nothing_hung()


@contextlib.asynccontextmanager
async def watching(address: str) -> AsyncIterator[Watch]:
    """Searches through a gateway, once it is known what they answer when all is well."""
    # Without attempts of the client's own: it is the gateway whose answers are looked at.
    config = ClientConfig(retries=Retries(max_attempts=1))
    async with AsyncClient(address, config=config) as client:
        if COLLECTION not in [each.name async for each in client.list_collections()]:
            await client.create_collection(COLLECTION)
        async for acknowledged in client.ingest(COLLECTION, documents()):
            assert acknowledged.refusal is None
        expected = {}
        for query in QUERIES:
            found = {}
            for mode in (SearchMode.TWO_STAGE, SearchMode.RETRIEVE, SearchMode.LEXICAL):
                limit = DOCUMENTS if mode is SearchMode.LEXICAL else LIMIT
                result = await client.search(COLLECTION, query, limit=limit, depth=DEPTH, mode=mode)
                assert result.degradations == ()
                found[mode] = [hit.document.id for hit in result.hits]
            expected[query] = Expected(
                found[SearchMode.TWO_STAGE], found[SearchMode.RETRIEVE], set(found[SearchMode.LEXICAL])
            )
        watch = Watch(client, expected)
        await watch.recovered()
        watch.reasons.clear()
        yield watch


@pytest.mark.parametrize("count", COUNTS)
async def test_a_reranker_that_is_killed_leaves_the_order_of_retrieval_and_comes_back(
    backends: Backends, count: int
) -> None:
    with backends.gateway() as address:
        async with watching(address) as watch:
            await watch.many(count, at={count // 4: backends.reranker.kill})
            assert sum(watch.reasons.get(f"rerank-skipped {why}", 0) for why in ("UNAVAILABLE", "BREAKER_OPEN")) > 0
            assert watch.reasons.get("rerank-skipped BREAKER_OPEN", 0) > 0
            await asyncio.to_thread(backends.reranker.start)
            await watch.recovered()
            watch.none_failed()


@pytest.mark.parametrize("count", COUNTS)
async def test_a_reranker_that_is_frozen_costs_no_search_more_than_its_budget_and_soon_nothing(
    backends: Backends, count: int
) -> None:
    with backends.gateway() as address:
        async with watching(address) as watch:
            try:
                await watch.many(count, at={count // 4: backends.reranker.freeze})
            finally:
                backends.reranker.thaw()
            assert watch.reasons.get("rerank-skipped BREAKER_OPEN", 0) > 0
            await watch.recovered()
            watch.none_failed()


@pytest.mark.parametrize("count", COUNTS)
async def test_a_reranker_that_is_ten_times_slower_scores_less_and_the_answers_say_so(
    backends: Backends, count: int
) -> None:
    slowed = Slowed(backends.reranker)
    with backends.gateway() as address:
        async with watching(address) as watch:
            try:
                await watch.many(count, at={count // 4: slowed.start})
            finally:
                slowed.end()
            await watch.recovered()
            watch.none_failed()


@pytest.mark.parametrize("count", COUNTS)
async def test_a_reranker_that_answers_errors_is_as_good_as_none_until_it_does_not(
    backends: Backends, count: int
) -> None:
    replacing = backends.another_reranker()
    replacing.start()
    with backends.gateway(reranker=replacing.address) as address:
        async with watching(address) as watch:
            replacing.kill()
            erring = SingleService(backends.directory, "tests.system.erring_reranker", port=replacing.port)
            backends.started.append(erring)
            erring.start()
            watch.reasons.clear()
            await watch.many(count)
            assert set(watch.reasons) == {"rerank-skipped UNAVAILABLE", "rerank-skipped BREAKER_OPEN"}
            assert sum(watch.reasons.values()) == count
            erring.kill()
            replacing.start()
            await watch.recovered()
            watch.none_failed()
    replacing.stop()


@pytest.mark.parametrize("count", COUNTS)
async def test_an_embedder_that_is_killed_leaves_bm25_and_comes_back(backends: Backends, count: int) -> None:
    with backends.gateway() as address:
        async with watching(address) as watch:
            await watch.many(count, at={count // 4: backends.embedder.kill})
            assert watch.reasons.get("embedder-unavailable BREAKER_OPEN", 0) > 0
            await asyncio.to_thread(backends.embedder.start)
            await watch.recovered()
            watch.none_failed()


@pytest.mark.parametrize("count", COUNTS)
async def test_an_index_that_is_killed_fails_searches_at_once_and_comes_back(backends: Backends, count: int) -> None:
    with backends.gateway() as address:
        async with watching(address) as watch:
            await watch.many(count, at={count // 4: backends.index.kill})
            assert watch.faults
            assert all(isinstance(fault, Unavailable) for fault in watch.faults), watch.faults
            await asyncio.to_thread(backends.index.start)
            await watch.recovered()
            watch.nothing_hung()


@pytest.mark.parametrize("count", COUNTS)
async def test_of_two_rerankers_one_may_die_and_its_part_is_taken_over(backends: Backends, count: int) -> None:
    second = backends.another_reranker()
    second.start()
    both = f"{backends.reranker.address},{second.address}"
    with backends.gateway(reranker=both) as address:
        async with watching(address) as watch:
            await watch.many(count, at={count // 4: second.kill})
            # Those whose scores were coming from it when it died; nobody after them.
            assert sum(number for reason, number in watch.reasons.items() if reason) <= CLIENTS
            await asyncio.to_thread(second.start)
            # Time for the gateway to reconnect, within a second; then it can do without the other one.
            await asyncio.sleep(1.5)
            watch.reasons.clear()
            backends.reranker.kill()
            await watch.many(20)
            assert sum(number for reason, number in watch.reasons.items() if reason) <= CLIENTS
            await asyncio.to_thread(backends.reranker.start)
            await watch.recovered()
            watch.none_failed()
    second.stop()
