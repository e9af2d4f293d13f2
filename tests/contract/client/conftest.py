from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from click.testing import CliRunner, Result

from tests.contract.client.commands import Winnow
from tests.contract.client.gateway_fake import FakeGateway, Served
from winnow.search.v1 import search_service_pb2_grpc
from winnow_client import AsyncClient, Client, Document
from winnow_client.cli.main import main

DOCUMENTS = [
    Document(id="a", title="Graphs", text="graphs of small worlds", metadata={"year": 2016, "lang": "en"}),
    Document(id="b", title="Words", text="weights of words", metadata={"year": 1994, "lang": "en"}),
    Document(id="c", title="", text="graphs have no title here", metadata={"year": 1967, "lang": "de"}),
]


@pytest.fixture(autouse=True)
def _quiet_services() -> Iterator[None]:
    # What the fake logs would stand between what a command writes.
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.configure(**before)


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def served(gateway: FakeGateway) -> Iterator[Served]:
    server = Served(lambda server: search_service_pb2_grpc.add_SearchServiceServicer_to_server(gateway, server))
    server.start()
    yield server
    server.shut()


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.address) as client:
        yield client


@pytest.fixture
def blocking(served: Served) -> Iterator[Client]:
    with Client(served.address) as client:
        yield client


@pytest.fixture
def winnow(served: Served) -> Winnow:
    def run(*arguments: str, stdin: str | bytes | None = None, **environment: str) -> Result:
        environment.setdefault("WINNOW_GATEWAY", served.address)
        return CliRunner().invoke(main, arguments, input=stdin, env=environment)

    return run


@pytest.fixture
def papers(blocking: Client) -> Client:
    blocking.create_collection("papers", description="on graphs")
    assert len(list(blocking.ingest("papers", DOCUMENTS))) == 3
    return blocking
