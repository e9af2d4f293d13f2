"""Services and a model are upgraded, one container after the other, while a client searches: no search fails."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.system.containers.engine import docker, why_no_engine
from tests.system.containers.searching import filled_collection, search, searching
from tests.system.containers.stack import Stack, retire
from winnow_client import Client, ClientConfig
from winnow_inference.models.locating import default_bi_encoder

pytestmark = [pytest.mark.docker, pytest.mark.skipif(why_no_engine() != "", reason=why_no_engine())]

FLEET = "embedder-fleet"
NEXT = "embedder-next"


@dataclass
class Fleet:
    """Two embedders of one name and two gateways that ask them, beside a stack whose index and reranker they share."""

    stack: Stack
    ports: list[int]
    embedders: list[str] = field(default_factory=list)
    gateways: list[str] = field(default_factory=list)

    def add_embedder(self) -> None:
        self.embedders.append(self.stack.add("embedder", FLEET))

    def add_gateway(self, port: int, embedder: str = FLEET, former: str = "") -> None:
        # The address of a former one is left out where there is none, as in a composition.
        environment = {
            "WINNOW_GATEWAY_EMBEDDER": f"dns:///{embedder}:50051",
            "WINNOW_GATEWAY_EMBEDDER_FORMER": f"dns:///{former}:50051" if former else "",
            "WINNOW_GATEWAY_REEMBED_GRACE_SECONDS": "6",
        }
        self.gateways.append(self.stack.add("gateway", "gateway-fleet", environment=environment, port=port))

    def replace_gateways(self, embedder: str = FLEET, former: str = "") -> None:
        """One after the other, each at the port of the one before."""
        for port in self.ports:
            retire(self.gateways.pop(0))
            self.add_gateway(port, embedder, former)

    def replace_embedders(self) -> None:
        """One after the other."""
        for _ in range(len(self.embedders)):
            retire(self.embedders.pop(0))
            self.add_embedder()


@pytest.fixture(scope="module")
def fleet(stack: Stack) -> Iterator[Fleet]:
    made = Fleet(stack, [_free_port(), _free_port()])
    try:
        for _ in made.ports:
            made.add_embedder()
        for port in made.ports:
            made.add_gateway(port)
        yield made
    finally:
        for container in (*made.gateways, *made.embedders):
            docker("rm", "--force", "--volumes", container, check=False)


@pytest.fixture
def client(fleet: Fleet) -> Iterator[Client]:
    """A client of both gateways, which asks them in turn."""
    target = ",".join(f"127.0.0.1:{port}" for port in fleet.ports)
    with Client(config=ClientConfig(target=target, timeout_seconds=60)) as connected:
        yield connected


@pytest.fixture
def collection(client: Client) -> Iterator[str]:
    """A collection of 100 documents, 4 of which are about something."""
    with filled_collection(client, 100) as name:
        yield name


def test_no_search_fails_while_embedders_are_replaced_one_by_one(fleet: Fleet, client: Client, collection: str) -> None:
    former = set(fleet.embedders)
    with searching(client, collection) as seen:
        fleet.replace_embedders()
    assert not former & set(fleet.embedders)
    assert seen.degradations() == set()


def test_no_search_fails_while_gateways_are_replaced_one_by_one(fleet: Fleet, client: Client, collection: str) -> None:
    former = set(fleet.gateways)
    with searching(client, collection) as seen:
        fleet.replace_gateways()
    assert not former & set(fleet.gateways)
    assert seen.degradations() == set()


@pytest.fixture
def next_model(tmp_path: Path) -> Path:
    """The default model told to put words before a query, which is another model: its vectors are others."""
    folder = tmp_path / "next"
    shutil.copytree(default_bi_encoder().path, folder)
    settings = folder / "config_sentence_transformers.json"
    said = {**json.loads(settings.read_text()), "prompts": {"query": "question: ", "document": ""}}
    settings.write_text(json.dumps(said))
    # It is read by the image's own user.
    for place in (tmp_path, folder, *folder.rglob("*")):
        place.chmod(0o755 if place.is_dir() else 0o644)
    return folder


def test_no_search_fails_while_the_model_is_upgraded(
    fleet: Fleet, client: Client, collection: str, next_model: Path
) -> None:
    """By the steps of docs/operations.md."""
    former = search(client, collection).embedder_fingerprint
    with searching(client, collection) as seen:
        fleet.embedders.append(
            fleet.stack.add(
                "embedder",
                NEXT,
                environment={"WINNOW_EMBEDDER_MODEL": "/models/next"},
                volumes={str(next_model): "/models/next"},
            )
        )
        fleet.replace_gateways(NEXT, FLEET)
        assert search(client, collection).embedder_fingerprint == former
        last = list(client.reembed_collection(collection))[-1]
        assert (last.complete, last.document_count) == (True, 100)
        fleet.replace_gateways(NEXT)
        for container in fleet.embedders[:2]:
            retire(container)
        del fleet.embedders[:2]
        seen.more()
    models = [result.embedder_fingerprint for result in seen.found]
    assert (models[0], models[-1], set(models)) == (former, last.embedder_fingerprint, {former, models[-1]})
    assert former != models[-1]
    assert seen.degradations() == set()
    assert client.get_collection(collection).document_count == 100


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
