"""The four services in this process, with small models: all of the code is fuzzed, and little is computed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from qdrant_client.grpc import CollectionsStub, DeleteCollection, ListCollectionsRequest

from tests.models.tiny import build_bi_encoder, build_cross_encoder
from winnow_client import Client, Document
from winnow_embedder.assembly import serve_with as serve_embedder
from winnow_embedder.settings import EmbedderSettings
from winnow_gateway.__main__ import compose
from winnow_gateway.settings import GatewaySettings
from winnow_index.serving import open_service
from winnow_index.settings import IndexSettings
from winnow_inference.opening import open_bi_encoder, open_cross_encoder
from winnow_reranker.assembly import default_model
from winnow_reranker.assembly import serve_with as serve_reranker
from winnow_reranker.settings import RerankerSettings
from winnow_rpc.faults import Fault
from winnow_rpc.serving import RunningServer, Service
from winnow_rpc.settings import ServingSettings

COMMON = {"port": 0, "probe_seconds": 60, "drain_seconds": 0, "log_level": "error"}


@dataclass
class Stack:
    """Where the services are."""

    addresses: dict[str, str]
    channels: dict[str, grpc.Channel]

    def serving(self, service: str) -> bool:
        """Whether a service says that it can do its work."""
        stub = health_pb2_grpc.HealthStub(self.channels[service])
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def refill(self) -> None:
        """Makes what fuzzing may have unmade: the collection `docs`, with two documents, and `spare`, empty."""
        # Whatever was written into the index past the gateway, the gateway may say of it what it will.
        with suppress(Fault), Client(self.addresses["gateway"]) as client:
            if client.get_collection("docs").document_count == 2 and client.get_document("docs", "b"):
                return
        stub = CollectionsStub(self.channels["index"])
        for collection in stub.List(ListCollectionsRequest(), timeout=20).collections:
            stub.Delete(DeleteCollection(collection_name=collection.name), timeout=20)
        with Client(self.addresses["gateway"]) as client:
            for name in ("docs", "spare"):
                client.create_collection(name)
            documents = [Document(id=id_, text=f"the cat {id_}", metadata={"number": 1, "kind": id_}) for id_ in "ab"]
            assert len(list(client.ingest("docs", documents))) == 2


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[dict[str, str]]:
    addresses: dict[str, str] = {}
    async with AsyncExitStack() as stack:

        async def start(service: Service, settings: ServingSettings) -> None:
            server = RunningServer(service, settings)
            await server.start()
            stack.push_async_callback(server.stop)
            addresses[service.name] = server.address

        index = IndexSettings.model_validate({**COMMON, "data_dir": folder / "index"})
        await start(open_service(index), index)
        embedder = EmbedderSettings.model_validate(
            {**COMMON, "model": str(build_bi_encoder(folder / "embedder")), "device": "cpu", "engine": "torch"}
        )
        await start(await serve_embedder(open_bi_encoder(embedder), embedder), embedder)
        reranker = RerankerSettings.model_validate(
            {**COMMON, "model": str(build_cross_encoder(folder / "reranker")), "device": "cpu", "engine": "torch"}
        )
        model = open_cross_encoder(reranker, default=default_model)
        await start(await serve_reranker(model, reranker), reranker)
        gateway = GatewaySettings.model_validate({**COMMON, **addresses})
        await start(compose(gateway), gateway)
        yield addresses


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The services, in a loop of a thread of their own: hypothesis calls its tests one after the other, without one."""
    ready, stopping = threading.Event(), threading.Event()
    addresses: dict[str, str] = {}
    failed: list[BaseException] = []

    async def serve() -> None:
        async with running(tmp_path_factory.mktemp("fuzz")) as found:
            addresses.update(found)
            ready.set()
            await asyncio.to_thread(stopping.wait)

    def main() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=main, name="fuzzed services")
    thread.start()
    try:
        assert ready.wait(100)
        assert not failed, failed
        channels = {name: grpc.insecure_channel(address) for name, address in addresses.items()}
        yield Stack(addresses, channels)
        for channel in channels.values():
            channel.close()
    finally:
        stopping.set()
        thread.join(60)
    assert not failed, failed
