"""The system suite against containers, and what containers alone can suffer: kill -9, freezing, replacement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest

from tests.system.containers.engine import SERVICES, docker, events, inspected, why_no_engine
from tests.system.containers.searching import QUERY, RERANKED, filled_collection, search, searching, served
from tests.system.containers.stack import Stack
from tests.system.running import wait_until
from tests.system.test_bad_input import GREETING, HEADERS, connect, ending
from tests.system.test_hybrid import (
    client,
    test_a_collection_of_vectors_alone_refuses_words_and_says_why,
    test_hybrid_finds_what_words_find_and_what_vectors_find,
    test_words_are_taken_in_the_collections_language,
)
from winnow_client import Client, ClientConfig, DegradationKind, SearchMode, SearchResult
from winnow_rpc.faults import Fault

__all__ = [
    "client",
    "test_a_collection_of_vectors_alone_refuses_words_and_says_why",
    "test_hybrid_finds_what_words_find_and_what_vectors_find",
    "test_words_are_taken_in_the_collections_language",
]

pytestmark = [pytest.mark.docker, pytest.mark.skipif(why_no_engine() != "", reason=why_no_engine())]

RECOVERY_SECONDS = 60.0


@pytest.fixture
def winnow(stack_address: str) -> Iterator[Client]:
    with Client(config=ClientConfig(target=stack_address, timeout_seconds=60)) as connected:
        yield connected


@pytest.fixture
def collection(winnow: Client) -> Iterator[str]:
    """A collection of 40 documents, 4 of which are about something."""
    with filled_collection(winnow, 40) as name:
        yield name


@pytest.mark.parametrize("mode", [SearchMode.RETRIEVE, SearchMode.TWO_STAGE, SearchMode.EXHAUSTIVE, SearchMode.AUTO])
def test_every_mode_finds_what_is_asked_for(winnow: Client, collection: str, mode: SearchMode) -> None:
    result = winnow.search(collection, QUERY, limit=3, mode=mode)
    assert result.hits[0].document.id == "sourdough"
    assert result.degradations == ()
    assert mode in (result.mode, SearchMode.AUTO)


def test_words_alone_find_what_has_them(winnow: Client, collection: str) -> None:
    found = winnow.search(collection, "yeast", mode=SearchMode.LEXICAL)
    assert [hit.document.id for hit in found.hits] == ["sourdough"]


@pytest.mark.parametrize(
    ("service", "degraded"),
    [("reranker", DegradationKind.RERANK_SKIPPED), ("embedder", DegradationKind.EMBEDDER_UNAVAILABLE)],
)
def test_kill_9_of_a_service_amid_searches_degrades_them_and_fails_none(
    stack: Stack, winnow: Client, collection: str, service: str, degraded: DegradationKind
) -> None:
    with searching(winnow, collection) as seen:
        seen.more()
        docker("kill", "--signal", "KILL", stack.id(service))
        assert inspected(stack.id(service))["State"]["ExitCode"] == 137
        seen.more()
        wait_until(lambda: seen.failed or degraded in seen.degradations(), seconds=RECOVERY_SECONDS)
        stack.start_again(service)
        wait_until(lambda: seen.failed or _whole(seen.found[-1]), seconds=RECOVERY_SECONDS)
    assert seen.degradations() <= {degraded, DegradationKind.RERANK_PARTIAL, DegradationKind.RERANK_SKIPPED}


def test_what_no_client_should_send_is_refused_and_disturbs_nobody(
    stack: Stack, winnow: Client, collection: str
) -> None:
    gateway, address = stack.id("gateway"), stack.address
    began = inspected(gateway)["State"]["StartedAt"]
    with ExitStack() as sockets, searching(winnow, collection) as seen:
        # Some say nothing, some stop in the greeting, some in the headers of a call.
        for at in range(300):
            sockets.enter_context(connect(address)).sendall((b"", GREETING[:10], GREETING + HEADERS)[at % 3])
        sockets.enter_context(connect(address)).sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        sockets.enter_context(connect(address)).sendall(bytes(range(256)) * 64)
        assert ending(address, bytes(100_000_000)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ending(address, b"\xff\xff\xff\xff") is grpc.StatusCode.INVALID_ARGUMENT
        seen.more()
    assert seen.degradations() == set()
    state = inspected(gateway)["State"]
    assert (state["StartedAt"], state["Running"], state["OOMKilled"]) == (began, True, False)
    reasons = [event["reason"] for event in events(gateway, "call") if event["level"] == "info" and "reason" in event]
    assert [reasons.count(reason) for reason in ("MESSAGE_REFUSED", "MALFORMED")] == [1, 1]


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
    wait_until(lambda: search(winnow, collection).reranked_count == RERANKED, seconds=RECOVERY_SECONDS)


def test_what_was_acknowledged_outlives_kill_9_of_the_index(stack: Stack, winnow: Client, collection: str) -> None:
    before = search(winnow, collection)
    docker("kill", "--signal", "KILL", stack.id("index"))
    with pytest.raises(Fault):
        winnow.search(collection, QUERY, timeout=3)
    stack.start_again("index")
    wait_until(lambda: served(winnow, collection), seconds=RECOVERY_SECONDS)
    assert winnow.get_collection(collection).document_count == 40
    assert [hit.document.id for hit in search(winnow, collection).hits] == [hit.document.id for hit in before.hits]


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


def _whole(result: SearchResult) -> bool:
    return result.degradations == () and result.reranked_count == RERANKED
