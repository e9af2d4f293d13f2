"""docker-compose.yml with the embedded overlay, brought up on a real engine with three rerankers."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator

import pytest

from tests.system.containers.engine import (
    EMBEDDED,
    Project,
    docker,
    health,
    inspected,
    why_no_compose,
    why_no_engine,
)
from tests.system.running import wait_until
from winnow_client import Client, ClientConfig, Document, IngestOutcome, SearchMode, SearchResult
from winnow_rpc.faults import Fault

UP_SECONDS = 300
RERANKERS = 3

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(why_no_compose() != "", reason=why_no_compose()),
    pytest.mark.skipif(why_no_engine() != "", reason=why_no_engine()),
]

SUBJECTS = {
    "falcon": "The falcon dives on other birds in the air and strikes them with its talons.",
    "glacier": "A glacier is a river of ice that grinds its valley as it creeps downhill.",
    "sourdough": "Sourdough bread rises by the wild yeast that lives in a paste of flour and water.",
    "lighthouse": "The keeper of the lighthouse trimmed the lamp so that ships kept off the rocks.",
}
QUERY = "How does bread rise without bought yeast?"


@pytest.fixture(scope="module")
def project(tag: str) -> Iterator[Project]:
    """A project of its own, and at the end nothing of it left: containers, volumes, network."""
    # Port 0: the engine takes a free one. At `debug` every call is logged, so that they can be counted.
    project = Project(*EMBEDDED, name=f"winnow-{tag}", WINNOW_TAG=tag, WINNOW_PORT="0", WINNOW_LOG_LEVEL="debug")
    try:
        # By now the engine has all layers: this shows that Compose asks for the same images.
        project.run("build", timeout=UP_SECONDS)
        yield project
    finally:
        project.run("down", "--volumes", "--timeout", "30", timeout=180)


@pytest.fixture
def up(project: Project) -> Project:
    """The project with every container healthy."""
    # fmt: off
    project.run(
        "up", "--detach", "--wait", "--wait-timeout", str(UP_SECONDS), "--no-build", "--scale", f"reranker={RERANKERS}",
        timeout=UP_SECONDS + 60,
    )
    # fmt: on
    return project


@pytest.fixture
def client(up: Project) -> Iterator[Client]:
    """A client of the published port."""
    address = up.run("port", "gateway", "50050").strip()
    assert address.startswith("127.0.0.1:"), "the gateway is published on loopback alone"
    with Client(config=ClientConfig(target=address, timeout_seconds=60)) as connected:
        yield connected


@pytest.fixture
def collection(client: Client) -> Iterator[str]:
    """A collection of 100 documents, 4 of which are about something."""
    name = f"c-{uuid.uuid4().hex[:8]}"
    client.create_collection(name)
    documents = [Document(id=subject, text=text) for subject, text in SUBJECTS.items()]
    documents += [Document(id=f"ledger-{n}", text=f"Entry {n} of the ledger: {n * 7} crowns paid.") for n in range(96)]
    outcomes = [acknowledgement.outcome for acknowledgement in client.ingest(name, documents)]
    assert outcomes == [IngestOutcome.INDEXED] * 100
    yield name
    client.delete_collection(name)


def test_a_search_goes_through_both_stages(client: Client, collection: str) -> None:
    result = _search(client, collection)
    assert result.hits[0].document.id == "sourdough"
    assert result.mode == SearchMode.TWO_STAGE
    assert result.degradations == ()
    assert result.reranked_count == 20
    assert [hit.rank for hit in result.hits] == [1, 2, 3]
    assert all(hit.retrieval is not None and hit.rerank is not None for hit in result.hits)


def test_what_was_acknowledged_outlives_the_index_container(up: Project, client: Client, collection: str) -> None:
    before = _search(client, collection)
    # A new container, not the old one started again: only the volume is kept.
    up.run("up", "--detach", "--wait", "--force-recreate", "--no-deps", "--no-build", "index", timeout=UP_SECONDS)
    after = _search(client, collection)
    assert client.get_collection(collection).document_count == 100
    assert [hit.document.id for hit in after.hits] == [hit.document.id for hit in before.hits]
    assert [hit.score for hit in after.hits] == pytest.approx([hit.score for hit in before.hits], rel=1e-5)


def test_three_rerankers_share_the_searches_with_no_other_change(up: Project, client: Client, collection: str) -> None:
    rerankers = up.ids("reranker")
    assert len(rerankers) == RERANKERS
    before = [_calls(container) for container in rerankers]
    for _ in range(4 * RERANKERS):
        assert _search(client, collection).reranked_count == 20
    served = [_calls(container) - was for container, was in zip(rerankers, before, strict=True)]
    assert sum(served) == 4 * RERANKERS
    assert min(served) >= 2, served


def test_no_search_fails_while_rerankers_are_killed_and_replaced_one_by_one(
    up: Project, client: Client, collection: str
) -> None:
    over, found, failed = threading.Event(), list[SearchResult](), list[Fault]()

    def search() -> None:
        while not over.is_set():
            try:
                found.append(_search(client, collection))
            except Fault as fault:
                failed.append(fault)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        for at, container in enumerate(up.ids("reranker")):
            docker(*(("kill", "--signal", "KILL") if at == 0 else ("stop", "--time", "25")), container)
            docker("rm", "--volumes", container)
            up.run(
                "up", "--detach", "--wait", "--no-build", "--no-deps", "--scale", f"reranker={RERANKERS}", "reranker"
            )
            wait_until(lambda: all(health(id_) == "healthy" for id_ in up.ids("reranker")), seconds=UP_SECONDS)
    finally:
        over.set()
        thread.join()
    assert failed == []
    assert len(found) > RERANKERS
    assert all(result.hits[0].document.id == "sourdough" for result in found)


def test_only_the_gateway_is_published(up: Project) -> None:
    published = {
        service: [binding for bindings in one["HostConfig"]["PortBindings"].values() for binding in bindings]
        for service, one in up.containers().items()
    }
    assert [service for service, bindings in published.items() if bindings] == ["gateway"]
    assert [binding["HostIp"] for binding in published["gateway"]] == ["127.0.0.1"]


def test_every_container_ends_cleanly_when_it_is_told_to_stop(up: Project) -> None:
    up.run("stop", timeout=180)
    for container in up.ids():
        state, labels = inspected(container)["State"], inspected(container)["Config"]["Labels"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False), labels["com.docker.compose.service"]


def _calls(container: str) -> int:
    """Calls that a reranker has answered for a gateway, by its own log."""
    lines = [line for line in docker("logs", container).splitlines() if line.startswith("{")]
    events = [json.loads(line) for line in lines]
    return sum(event["event"] == "call" and "RerankDocuments" in event["method"] for event in events)


def _search(client: Client, collection: str) -> SearchResult:
    return client.search(collection, QUERY, limit=3, depth=20, mode=SearchMode.TWO_STAGE)
