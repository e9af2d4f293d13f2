"""The images and docker-compose.yml with the embedded overlay, brought up on a real engine.

Building takes minutes on an engine that has nothing cached, and seconds on one that has.
"""

from __future__ import annotations

import signal
import subprocess
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.system.containers.engine import EMBEDDED, Project, why_no_engine
from winnow_client import Client, ClientConfig, Document, IngestOutcome, SearchMode, SearchResult

SERVICES = ("embedder", "gateway", "index", "reranker")
BUILD_SECONDS = 1500
UP_SECONDS = 300

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(why_no_engine() != "", reason=why_no_engine()),
    pytest.mark.timeout(BUILD_SECONDS + UP_SECONDS + 300),
]

SUBJECTS = {
    "falcon": "The falcon dives on other birds in the air and strikes them with its talons.",
    "glacier": "A glacier is a river of ice that grinds its valley as it creeps downhill.",
    "sourdough": "Sourdough bread rises by the wild yeast that lives in a paste of flour and water.",
    "lighthouse": "The keeper of the lighthouse trimmed the lamp so that ships kept off the rocks.",
}
QUERY = "How does bread rise without bought yeast?"


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    """Images built one after another, and at the end nothing of it left: containers, volumes, network, images."""
    tag = f"test-{uuid.uuid4().hex[:8]}"
    # Port 0: the engine takes a free one.
    project = Project(*EMBEDDED, name=f"winnow-{tag}", WINNOW_TAG=tag, WINNOW_PORT="0")
    try:
        for service in SERVICES:
            project.run("build", service, timeout=BUILD_SECONDS)
        yield project
    finally:
        project.run("down", "--volumes", "--timeout", "30", timeout=180)
        images = [f"winnow-{service}:{tag}" for service in SERVICES]
        subprocess.run(["docker", "image", "rm", *images], capture_output=True, timeout=120, check=False)


@pytest.fixture
def up(project: Project) -> Project:
    """The project with every container healthy."""
    project.run("up", "--detach", "--wait", "--wait-timeout", str(UP_SECONDS), "--no-build", timeout=UP_SECONDS + 60)
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


def test_no_container_runs_as_root_or_can_write_to_its_own_files(up: Project) -> None:
    write = "import os; print(os.getuid()); open('/opt/winnow/app/written', 'w')"
    for service, container in up.containers().items():
        assert container["Config"]["User"] == "winnow", service
        assert container["HostConfig"]["ReadonlyRootfs"], service
        assert container["HostConfig"]["CapDrop"] == ["ALL"], service
        tried = subprocess.run(
            ["docker", "exec", container["Id"], "python", "-c", write],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert tried.stdout.strip() == "10001", service
        assert "Read-only file system" in tried.stderr, service


def test_only_the_gateway_is_published(up: Project) -> None:
    published = {
        service: [binding for bindings in one["HostConfig"]["PortBindings"].values() for binding in bindings]
        for service, one in up.containers().items()
    }
    assert [service for service, bindings in published.items() if bindings] == ["gateway"]
    assert [binding["HostIp"] for binding in published["gateway"]] == ["127.0.0.1"]


def test_every_container_ends_cleanly_when_it_is_told_to_stop(up: Project) -> None:
    up.run("stop", timeout=180)
    states = {service: one["State"] for service, one in up.containers().items()}
    assert {service: state["ExitCode"] for service, state in states.items()} == dict.fromkeys(SERVICES, 0)
    assert not any(state["OOMKilled"] for state in states.values())


def test_a_container_that_is_told_to_stop_while_it_loads_its_model_ends_at_once(up: Project) -> None:
    image = up.containers()["embedder"]["Config"]["Image"]
    container = _docker("run", "--detach", "--read-only", "--tmpfs", "/tmp", image)
    try:
        deadline = time.monotonic() + 60
        while not _catches_sigterm(container):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        began = time.monotonic()
        _docker("stop", "--time", "60", container)
        assert time.monotonic() - began < 30
        assert _docker("inspect", "--format", "{{.State.ExitCode}}", container) == str(128 + signal.SIGTERM)
        assert "listening" not in _docker("logs", container)
    finally:
        _docker("rm", "--force", container)


def _catches_sigterm(container: str) -> bool:
    status = _docker("exec", container, "cat", "/proc/1/status")
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))


def _docker(*arguments: str) -> str:
    return subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=True
    ).stdout.strip()


def _search(client: Client, collection: str) -> SearchResult:
    return client.search(collection, QUERY, limit=3, depth=20, mode=SearchMode.TWO_STAGE)
