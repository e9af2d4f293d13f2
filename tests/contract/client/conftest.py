from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from tests.contract.client.gateway_fake import FakeGateway, Served
from winnow.search.v1 import search_service_pb2_grpc
from winnow_client import AsyncClient, Client


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
