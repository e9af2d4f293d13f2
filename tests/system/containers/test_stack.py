"""The system suite against containers, and what containers alone can suffer: kill -9, freezing, replacement."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.system.containers.engine import SERVICES, docker, inspected, why_no_engine
from tests.system.containers.stack import Stack
from tests.system.running import wait_until
from tests.system.test_hybrid import (
    client,
    test_a_collection_of_vectors_alone_refuses_words_and_says_why,
    test_hybrid_finds_what_words_find_and_what_vectors_find,
    test_words_are_taken_in_the_collections_language,
)
from winnow_client import Client, ClientConfig, DegradationKind, Document, IngestOutcome, SearchMode, SearchResult
from winnow_rpc.faults import Fault

__all__ = [
    "client",
    "test_a_collection_of_vectors_alone_refuses_words_and_says_why",
    "test_hybrid_finds_what_words_find_and_what_vectors_find",
    "test_words_are_taken_in_the_collections_language",
]

pytestmark = [pytest.mark.docker, pytest.mark.skipif(why_no_engine() != "", reason=why_no_engine())]

RECOVERY_SECONDS = 60.0
SUBJECTS = {
    "falcon": "The falcon dives on other birds in the air and strikes them with its talons.",
    "glacier": "A glacier is a river of ice that grinds its valley as it creeps downhill.",
    "sourdough": "Sourdough bread rises by the wild yeast that lives in a paste of flour and water.",
    "lighthouse": "The keeper of the lighthouse trimmed the lamp so that ships kept off the rocks.",
}
QUERY = "How does bread rise without bought yeast?"


@pytest.fixture
def winnow(stack_address: str) -> Iterator[Client]:
    with Client(config=ClientConfig(target=stack_address, timeout_seconds=60)) as connected:
        yield connected


@pytest.fixture
def collection(winnow: Client) -> Iterator[str]:
    """A collection of 40 documents, 4 of which are about something."""
    name = f"c-{uuid.uuid4().hex[:8]}"
    winnow.create_collection(name)
    documents = [Document(id=subject, text=text) for subject, text in SUBJECTS.items()]
    documents += [Document(id=f"ledger-{n}", text=f"Entry {n} of the ledger: {n * 7} crowns paid.") for n in range(36)]
    assert [acknowledged.outcome for acknowledged in winnow.ingest(name, documents)] == [IngestOutcome.INDEXED] * 40
    yield name
    winnow.delete_collection(name)


@pytest.mark.parametrize("mode", [SearchMode.RETRIEVE, SearchMode.TWO_STAGE, SearchMode.EXHAUSTIVE, SearchMode.AUTO])
def test_every_mode_finds_what_is_asked_for(winnow: Client, collection: str, mode: SearchMode) -> None:
    result = winnow.search(collection, QUERY, limit=3, mode=mode)
    assert result.hits[0].document.id == "sourdough"
    assert result.degradations == ()
    assert mode in (result.mode, SearchMode.AUTO)


def test_words_alone_find_what_has_them(winnow: Client, collection: str) -> None:
    found = winnow.search(collection, "yeast", mode=SearchMode.LEXICAL)
    assert [hit.document.id for hit in found.hits] == ["sourdough"]


def test_a_killed_reranker_leaves_the_order_of_retrieval_and_comes_back(
    stack: Stack, winnow: Client, collection: str
) -> None:
    docker("kill", "--signal", "KILL", stack.id("reranker"))
    assert inspected(stack.id("reranker"))["State"]["ExitCode"] == 137
    found = _search(winnow, collection)
    assert found.hits[0].document.id == "sourdough"
    assert found.reranked_count == 0
    assert DegradationKind.RERANK_SKIPPED in {degradation.kind for degradation in found.degradations}
    stack.start_again("reranker")
    wait_until(lambda: _search(winnow, collection).reranked_count == 20, seconds=RECOVERY_SECONDS)


def test_a_frozen_reranker_costs_a_search_no_more_than_its_budget(
    stack: Stack, winnow: Client, collection: str
) -> None:
    docker("pause", stack.id("reranker"))
    try:
        found = winnow.search(collection, QUERY, limit=3, depth=20, mode=SearchMode.TWO_STAGE, budget=1.0)
        assert found.hits[0].document.id == "sourdough"
        assert found.degradations
    finally:
        docker("unpause", stack.id("reranker"))
    wait_until(lambda: _search(winnow, collection).reranked_count == 20, seconds=RECOVERY_SECONDS)


def test_what_was_acknowledged_outlives_kill_9_of_the_index(stack: Stack, winnow: Client, collection: str) -> None:
    before = _search(winnow, collection)
    docker("kill", "--signal", "KILL", stack.id("index"))
    with pytest.raises(Fault):
        winnow.search(collection, QUERY, timeout=3)
    stack.start_again("index")
    wait_until(lambda: _served(winnow, collection), seconds=RECOVERY_SECONDS)
    assert winnow.get_collection(collection).document_count == 40
    assert [hit.document.id for hit in _search(winnow, collection).hits] == [hit.document.id for hit in before.hits]


def test_every_container_is_confined(stack: Stack) -> None:
    write = "open('/opt/winnow/app/written', 'w')"
    for service in SERVICES:
        status = docker("exec", stack.id(service), "cat", "/proc/1/status").splitlines()
        facts = {line.split(":")[0]: line.split(":")[1].split() for line in status}
        assert facts["Uid"] == ["10001"] * 4, service
        assert facts["CapEff"] == ["0000000000000000"], service
        assert facts["NoNewPrivs"] == ["1"], service
        tried = docker("exec", stack.id(service), "python", "-c", write, check=False)
        assert "Read-only file system" in tried, service


def test_sigterm_ends_every_container_with_status_0_within_its_drain(stack: Stack) -> None:
    for service in SERVICES:
        docker("stop", "--time", "25", stack.id(service))
        state = inspected(stack.id(service))["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False), service
    for service in ("index", "embedder", "reranker", "gateway"):
        stack.start_again(service)


def _search(winnow: Client, collection: str) -> SearchResult:
    return winnow.search(collection, QUERY, limit=3, depth=20, mode=SearchMode.TWO_STAGE)


def _served(winnow: Client, collection: str) -> bool:
    try:
        return len(_search(winnow, collection).hits) == 3
    except Fault:
        return False
