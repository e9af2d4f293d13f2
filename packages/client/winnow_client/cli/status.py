"""`winnow status`: asks every service whether it can do its work, and the model services what they have loaded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from winnow_client import addresses
from winnow_client.cli.collections import show_collections
from winnow_client.cli.connection import Connection, connection_options, pass_connection
from winnow_client.cli.output import console, emit, printable, table
from winnow_client.collections import Collection
from winnow_rpc.faults import Fault

if TYPE_CHECKING:
    import grpc

    from winnow_rpc.tls import ClientTls

DEFAULTS = {"embedder": addresses.EMBEDDER, "reranker": addresses.RERANKER, "index": addresses.INDEX}
"""Where `winnow up` puts the services behind the gateway."""


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """What a service said of itself."""

    service: str
    """Its name."""
    address: str
    """Where it was asked."""
    status: str
    """SERVING, NOT_SERVING, or UNREACHABLE."""
    model: str = ""
    """Path or hub id of its model."""
    fingerprint: str = ""
    """Fingerprint of its model."""
    engine: str = ""
    """What computes: engine, device, number format."""
    required: bool = False
    """Whether the exit status depends on it: the gateway, and what was named."""


@click.command(epilog="\b\nExamples:\n  winnow status\n  winnow status --gateway search:50050 --embedder search:50051")
@click.option("--embedder", metavar="HOST:PORT", envvar="WINNOW_EMBEDDER", help="Ask this embedder too.")
@click.option("--reranker", metavar="HOST:PORT", envvar="WINNOW_RERANKER", help="Ask this reranker too.")
@click.option("--index", metavar="HOST:PORT", envvar="WINNOW_INDEX", help="Ask this index too.")
@connection_options()
@pass_connection
def status(connection: Connection, *, embedder: str | None, reranker: str | None, index: str | None) -> int:
    """Show the health of the services, the models they have loaded, and the collections.

    Beside the gateway, services are asked where they are named; if the gateway is the default one, at their default
    addresses. The exit status is 0 if the gateway and all that were named are serving, else 1.
    """
    named = {"embedder": embedder, "reranker": reranker, "index": index}
    asked = [("gateway", connection.gateway, True)]
    for name, address in named.items():
        if address:
            asked.append((name, address, True))
        elif connection.gateway == addresses.GATEWAY:
            asked.append((name, DEFAULTS[name], False))
    services, collections, failure = asyncio.run(_ask(connection, asked))
    good = failure is None and all(each.status == "SERVING" for each in services if each.required)
    if connection.machine:
        emit({"serving": good, "services": services, "collections": collections, "failure": failure})
        return 0 if good else 1
    rows = table("service", "address", "status", "model", "fingerprint", "engine")
    for each in services:
        model = (printable(each.model), each.fingerprint[:12], printable(each.engine))
        rows.add_row(each.service, each.address, each.status, *model)
    console().print(rows)
    if failure is not None:
        # The same sentence as every other command has for it.
        raise failure
    show_collections(collections)
    return 0 if good else 1


async def _ask(
    connection: Connection, asked: list[tuple[str, str, bool]]
) -> tuple[list[ServiceStatus], list[Collection], Fault | None]:
    timeout = min(connection.timeout, 5.0)
    tls = connection.tls
    statuses = asyncio.gather(
        *(_service(name, address, timeout, required=need, tls=tls) for name, address, need in asked)
    )
    collections: list[Collection] = []
    failure: Fault | None = None
    async with connection.async_client() as client:
        try:
            collections = [each async for each in client.list_collections(timeout=timeout)]
        except Fault as fault:
            failure = fault
    return await statuses, collections, failure


async def _service(name: str, address: str, timeout: float, *, required: bool, tls: ClientTls | None) -> ServiceStatus:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from winnow_rpc.calling import ChannelSettings, open_channel

    found = ServiceStatus(service=name, address=address, status="UNREACHABLE", required=required)
    async with open_channel(ChannelSettings(target=address, idempotent={}, tls=tls)) as channel:
        try:
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
            found = replace(found, status=health_pb2.HealthCheckResponse.ServingStatus.Name(health.status))
            if name in ("embedder", "reranker"):
                model = (await _model(name, channel, timeout)).model
                engine = f"{model.engine.name} {model.engine.device} {model.engine.dtype}"
                found = replace(found, model=model.id, fingerprint=model.fingerprint, engine=engine)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED and found.status == "UNREACHABLE":
                found = replace(found, status="UNKNOWN")
    return found


async def _model(name: str, channel: grpc.aio.Channel, timeout: float) -> Any:
    if name == "embedder":
        from winnow.embedder.v1 import embedder_pb2, embedder_pb2_grpc

        return await embedder_pb2_grpc.EmbedderServiceStub(channel).GetModel(
            embedder_pb2.GetModelRequest(), timeout=timeout
        )
    from winnow.reranker.v1 import reranker_pb2, reranker_pb2_grpc

    return await reranker_pb2_grpc.RerankerServiceStub(channel).GetModel(
        reranker_pb2.GetModelRequest(), timeout=timeout
    )
