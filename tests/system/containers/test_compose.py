"""docker-compose.yml with the embedded overlay, brought up on a real engine with three rerankers."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.containers.engine import (
    EMBEDDED,
    ROOT,
    SERVICES,
    Project,
    docker,
    health,
    inspected,
    why_no_compose,
    why_no_engine,
)
from tests.system.containers.searching import filled_collection, search, searching, served
from tests.system.running import wait_until
from winnow_client import Client, ClientConfig, Document, SearchMode
from winnow_rpc.faults import NotFound

UP_SECONDS = 300
RERANKERS = 3

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(why_no_compose() != "", reason=why_no_compose()),
    pytest.mark.skipif(why_no_engine() != "", reason=why_no_engine()),
]

RUNBOOK = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("operations.md", "backup.md"))
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def images(tag: str) -> Iterator[str]:
    """A tag of this module's own for the same images, since one of them is replaced here."""
    own = f"{tag}-compose"
    try:
        for service in SERVICES:
            docker("tag", f"winnow-{service}:{tag}", f"winnow-{service}:{own}")
        yield own
    finally:
        docker("image", "rm", "--force", *(f"winnow-{service}:{own}" for service in SERVICES), check=False)


@pytest.fixture(scope="module")
def project(images: str) -> Iterator[Project]:
    """A project of its own, and at the end nothing of it left: containers, volumes, network."""
    # Port 0: the engine takes a free one. At `debug` every call is logged, so that they can be counted.
    project = Project(*EMBEDDED, name=f"winnow-{images}", WINNOW_TAG=images, WINNOW_PORT="0", WINNOW_LOG_LEVEL="debug")
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
    with filled_collection(client, 100) as name:
        yield name


def test_a_search_goes_through_both_stages(client: Client, collection: str) -> None:
    result = search(client, collection)
    assert result.hits[0].document.id == "sourdough"
    assert result.mode == SearchMode.TWO_STAGE
    assert result.degradations == ()
    assert result.reranked_count == 20
    assert [hit.rank for hit in result.hits] == [1, 2, 3]
    assert all(hit.retrieval is not None and hit.rerank is not None for hit in result.hits)


def test_what_was_acknowledged_outlives_the_index_container(up: Project, client: Client, collection: str) -> None:
    before = search(client, collection)
    # A new container, not the old one started again: only the volume is kept.
    up.run("up", "--detach", "--wait", "--force-recreate", "--no-deps", "--no-build", "index", timeout=UP_SECONDS)
    after = search(client, collection)
    assert client.get_collection(collection).document_count == 100
    assert [hit.document.id for hit in after.hits] == [hit.document.id for hit in before.hits]
    assert [hit.score for hit in after.hits] == pytest.approx([hit.score for hit in before.hits], rel=1e-5)


def test_three_rerankers_share_the_searches_with_no_other_change(up: Project, client: Client, collection: str) -> None:
    rerankers = up.ids("reranker")
    assert len(rerankers) == RERANKERS
    before = [_calls(container) for container in rerankers]
    for _ in range(4 * RERANKERS):
        assert search(client, collection).reranked_count == 20
    served = [_calls(container) - was for container, was in zip(rerankers, before, strict=True)]
    assert sum(served) == 4 * RERANKERS
    assert min(served) >= 2, served


def test_no_search_fails_while_rerankers_of_one_image_take_the_place_of_those_of_another(
    up: Project, images: str, client: Client, collection: str
) -> None:
    """By the commands of the runbook; the first one is killed."""
    former = up.ids("reranker")
    docker(
        "build", "--tag", f"winnow-reranker:{images}", "-", stdin=f"FROM winnow-reranker:{images}\nLABEL changed=yes\n"
    )
    changed = docker("image", "inspect", "--format", "{{.Id}}", f"winnow-reranker:{images}")
    assert changed not in {inspected(each)["Image"] for each in former}
    (start_one,) = [each for each in _documented("docker compose build reranker") if each[:1] == ["up"]]
    assert start_one[-2:] == [f"reranker={RERANKERS}", "reranker"]
    with searching(client, collection):
        for at, container in enumerate(former):
            docker(*(("kill", "--signal", "KILL") if at == 0 else ("stop", "--time", "25")), container)
            docker("rm", container)
            up.run(*start_one, timeout=UP_SECONDS)
            wait_until(lambda: all(health(each) == "healthy" for each in up.ids("reranker")), seconds=UP_SECONDS)
            assert set(former) & set(up.ids("reranker")) == set(former[at + 1 :]), "the others are left alone"
    assert {inspected(each)["Image"] for each in up.ids("reranker")} == {changed}


def test_a_snapshot_is_taken_and_restored_by_the_commands_of_the_runbook(
    up: Project, client: Client, collection: str, tmp_path: Path
) -> None:
    before = search(client, collection)
    snapshots = tmp_path / "snapshots"

    def told(word: str) -> str:
        """A word of a command, for this place and this snapshot."""
        word = word.replace("./snapshots", str(snapshots)).replace("$PWD/snapshots", str(snapshots))
        return re.sub(r"full-snapshot-[\d-]+", lambda _: next(snapshots.glob("full-*")).name, word)

    for command in _documented("winnow_index.take_snapshot"):
        up.run(*map(told, command), timeout=UP_SECONDS)
    # What came after the snapshot is not in it.
    list(client.ingest(collection, [Document(id="late", text="A document that came too late.")]))
    restoring = _documented("winnow_index.restore_snapshot")
    assert len(restoring) == 5
    for command in restoring:
        up.run(*map(told, command), timeout=UP_SECONDS)
    wait_until(lambda: served(client, collection), seconds=60)
    assert client.get_collection(collection).document_count == 100
    with pytest.raises(NotFound):
        client.get_document(collection, "late")
    assert [hit.document.id for hit in search(client, collection).hits] == [hit.document.id for hit in before.hits]


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


def _documented(holding: str) -> list[list[str]]:
    """The arguments of each `docker compose` command in the runbook's block that has these words in it."""
    (block,) = [each for each in BLOCK.findall(RUNBOOK) if "docker compose" in each and holding in each]
    lines = [line.strip().removeprefix("$ ").partition(" || ")[0] for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith("docker compose ")]
