"""A service of generic handlers, so that nothing but the rpc package is tested."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from winnow_rpc.calling import ChannelSettings, open_channel
from winnow_rpc.faults import Internal
from winnow_rpc.serving import RunningServer, Service
from winnow_rpc.settings import ServingSettings
from winnow_rpc.tls import ClientTls

NAME = "example.v1.ExampleService"
Behaviour = Callable[[bytes], Awaitable[bytes]]


class Example:
    """A service whose unary and streaming methods do what the test says."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.healthy = True
        self.closed = False

    async def unary(self, request: bytes, _context: Any) -> bytes:
        return await self.behaviour(request)

    async def stream(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        yield await self.behaviour(request)

    async def both(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await self.behaviour(request)

    async def probe(self) -> None:
        if not self.healthy:
            raise Internal("the model gives NaN")

    async def close(self) -> None:
        self.closed = True

    def service(self) -> Service:
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Stream": grpc.unary_stream_rpc_method_handler(self.stream),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
        }
        return Service(
            name="example",
            register=lambda server: server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(NAME, handlers),)
            ),
            service_names=[NAME],
            probe=self.probe,
            close=self.close,
        )


@asynccontextmanager
async def running(
    example: Example, *, tls: ClientTls | None = None, api_key: str | None = None, **settings: Any
) -> AsyncIterator[tuple[RunningServer, grpc.aio.Channel]]:
    server = RunningServer(example.service(), ServingSettings(probe_seconds=0.05, drain_seconds=2, **settings))
    await server.start()
    channel = open_channel(
        ChannelSettings(target=server.address, idempotent={NAME: ["Unary"]}, tls=tls, api_key=api_key)
    )
    try:
        yield server, channel
    finally:
        await channel.close()
        await server.stop()


async def call(channel: grpc.aio.Channel, request: bytes = b"", **options: Any) -> bytes:
    answer: bytes = await channel.unary_unary(f"/{NAME}/Unary")(request, timeout=5, **options)
    return answer


async def echo(request: bytes) -> bytes:
    return request
