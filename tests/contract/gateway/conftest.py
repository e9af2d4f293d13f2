"""A gateway over fakes, served in this process on a free port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from tests.fakes.backends import FakeEmbedder, FakeReranker
from tests.fakes.index import FakeIndex
from winnow.search.v1 import search_service_pb2_grpc
from winnow_gateway.catalog import Catalog
from winnow_gateway.embedders import Embedders
from winnow_gateway.ingesting import IngestLimits
from winnow_gateway.ports import Index
from winnow_gateway.qdrant_index import QdrantIndex
from winnow_gateway.reembedding import Reembedder, ReembedLimits
from winnow_gateway.searching import Searcher, SearchSettings
from winnow_gateway.servicer import SearchServicer
from winnow_index.serving import open_service
from winnow_index.settings import IndexSettings
from winnow_rpc.calling import ChannelSettings, open_channel
from winnow_rpc.requesting import Authorizer
from winnow_rpc.serving import RunningServer, Service
from winnow_rpc.settings import ServingSettings


@dataclass
class Gateway:
    """The gateway's fakes, and a stub that calls it over a real connection."""

    embedder: FakeEmbedder = field(default_factory=FakeEmbedder)
    former_embedder: FakeEmbedder | None = None
    """Beside the other, while one model takes the place of another."""
    reranker: FakeReranker = field(default_factory=FakeReranker)
    index: FakeIndex = field(default_factory=FakeIndex)
    now: float = 0.0
    grace: float = 0.0
    """Seconds that former vectors stay after a re-embedding."""
    settings: SearchSettings = field(default_factory=SearchSettings)
    searcher: Searcher = None  # type: ignore[assignment]
    reembedder: Reembedder = None  # type: ignore[assignment]
    stub: search_service_pb2_grpc.SearchServiceAsyncStub = None  # type: ignore[assignment]

    channel: grpc.aio.Channel = None  # type: ignore[assignment]

    def service(self, *, authorizer: Authorizer | None = None) -> Service:
        embedder = Embedders(self.embedder, self.former_embedder)
        catalog = Catalog(index=self.index, embedder=embedder, cache_seconds=5, clock=lambda: self.now)
        self.searcher = Searcher(
            catalog=catalog,
            embedder=embedder,
            reranker=self.reranker,
            index=self.index,
            settings=self.settings,
        )
        self.reembedder = Reembedder(
            catalog=catalog,
            index=self.index,
            embedder=embedder,
            limits=ReembedLimits(
                group_size=4, groups_in_flight=2, retry_seconds=1, grace_seconds=self.grace, poll_seconds=0.01
            ),
        )
        servicer = SearchServicer(
            catalog=catalog,
            searcher=self.searcher,
            embedder=embedder,
            index=self.index,
            reembedder=self.reembedder,
            ingest_limits=IngestLimits(group_size=4, retry_seconds=1),
            default_deadline_seconds=30,
        )

        async def nothing() -> None:
            pass

        return Service(
            name="gateway",
            register=lambda server: search_service_pb2_grpc.add_SearchServiceServicer_to_server(servicer, server),
            service_names=["winnow.search.v1.SearchService"],
            probe=nothing,
            close=nothing,
            authorizer=authorizer,
        )


@asynccontextmanager
async def serving(made: Gateway) -> AsyncIterator[Gateway]:
    """A gateway while it serves."""
    server = RunningServer(made.service(), ServingSettings(drain_seconds=0, log_level="error"))
    await server.start()
    channel: grpc.aio.Channel = open_channel(ChannelSettings(target=server.address, idempotent={}))
    made.stub = search_service_pb2_grpc.SearchServiceStub(channel)
    try:
        yield made
    finally:
        await channel.close()
        await server.stop()


@pytest.fixture
async def gateway(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    """A gateway; parametrized indirectly with SearchSettings, one with those."""
    async with serving(Gateway(settings=getattr(request, "param", None) or SearchSettings())) as made:
        yield made


@pytest.fixture(params=["fake", "qdrant-client over winnow_index"])
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Index]:
    """All that claims to be an index: the fake of the tests, and the Qdrant client over a real server."""
    if request.param == "fake":
        yield FakeIndex()
        return
    settings = IndexSettings(port=0, data_dir=tmp_path)
    server = RunningServer(open_service(settings), settings)
    await server.start()
    host, _, port = server.address.rpartition(":")
    client = QdrantIndex(host=host, port=int(port), timeout_seconds=10, max_message_bytes=3 * 1024 * 1024)
    try:
        yield client
    finally:
        await client.close()
        await server.stop()
