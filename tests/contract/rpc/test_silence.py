"""A replica that is there and says nothing is left out, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from tests.contract.rpc.example import NAME, Example, call, running
from winnow_rpc.calling import ChannelSettings, open_channel


class Relay:
    """Passes bytes on to a server, until it is frozen: then it takes connections and bytes, and passes on none."""

    def __init__(self, address: str) -> None:
        self._target = address.rpartition(":")
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.address = ""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Relay]:
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            host, _, port = self._target
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            tasks.update(
                (
                    asyncio.create_task(self._pass(reader, far_writer)),
                    asyncio.create_task(self._pass(far_reader, writer)),
                )
            )

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self.flowing.wait()
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def named(name: bytes) -> Example:
    async def behaviour(_request: bytes) -> bytes:
        return name

    return Example(behaviour)


async def answers(channel: grpc.aio.Channel, count: int) -> list[bytes]:
    """Who answered each of so many calls; b"" where nobody did in time."""
    found = []
    for _ in range(count):
        try:
            found.append(await asyncio.wait_for(call(channel), 0.2))
        except (TimeoutError, grpc.aio.AioRpcError):
            found.append(b"")
    return found


async def until(channel: grpc.aio.Channel, wanted: set[bytes]) -> None:
    async with asyncio.timeout(20):
        while set(await answers(channel, 6)) != wanted:  # a new round each time, never the same answer
            pass


async def test_a_frozen_replica_gets_no_calls_until_it_answers_again() -> None:
    async with (
        running(named(b"one")) as (one, _),
        running(named(b"two")) as (two, _),
        Relay(two.address).open() as relay,
    ):
        channel = open_channel(
            ChannelSettings(target=f"{one.address},{relay.address}", idempotent={NAME: ["Unary"]}, silence_seconds=1.0)
        )
        async with channel:
            await until(channel, {b"one", b"two"})

            relay.flowing.clear()
            assert b"" in await answers(channel, 4)
            await until(channel, {b"one"})

            relay.flowing.set()
            await until(channel, {b"one", b"two"})
