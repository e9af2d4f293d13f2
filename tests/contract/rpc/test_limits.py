"""Limits of connections, each shown to act: by clients that mean well, and by bare sockets that do not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.certificates import Authority
from tests.contract.rpc.example import NAME, Example, call, echo, running
from winnow_rpc.calling import ChannelSettings, open_channel

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""How an HTTP/2 client begins: the preface, and settings that change nothing."""
PING, GOAWAY, ACK = 6, 7, 1
"""Types of HTTP/2 frames, and the flag of an answer."""


@contextlib.asynccontextmanager
async def socket_to(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, within: float) -> set[int]:
    """The types of the frames that the server sends until it hangs up, to a client that answers its pings."""
    types = set()
    async with asyncio.timeout(within):
        while head := await reader.read(9):
            body = await reader.readexactly(int.from_bytes(head[:3], "big"))
            types.add(head[3])
            if head[3] == PING and not head[4] & ACK:
                writer.write(head[:4] + bytes([ACK]) + head[5:] + body)
    return types


async def closed_after(reader: asyncio.StreamReader, *, within: float) -> float:
    """Seconds until the server hangs up."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(within):
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(65536):
                pass
    return loop.time() - began


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("sent", [b"", GREETING[:10], b"\x16\x03\x01\x02\x00\x01"])
async def test_a_connection_that_does_not_become_one_in_time_is_closed(
    tmp_path: Path, sent: bytes, secure: bool
) -> None:
    authority = Authority(tmp_path)
    tls: dict[str, Any] = authority.server() if secure else {}
    client = authority.client() if secure else None
    async with running(Example(echo), tls=client, handshake_timeout_seconds=1, **tls) as (server, channel):
        async with socket_to(server.address) as (reader, writer):
            writer.write(sent)
            await closed_after(reader, within=5)
        assert await call(channel, b"still") == b"still"


async def test_an_idle_connection_is_closed() -> None:
    async with (
        running(Example(echo), max_connection_idle_seconds=1, max_connection_age_seconds=0) as (server, _),
        socket_to(server.address) as (reader, writer),
    ):
        writer.write(GREETING)
        assert await closed_after(reader, within=10) > 0.5


async def test_an_old_connection_is_closed() -> None:
    async with (
        running(Example(echo), max_connection_idle_seconds=0, max_connection_age_seconds=1) as (server, _),
        socket_to(server.address) as (reader, writer),
    ):
        writer.write(GREETING)
        assert GOAWAY in await answering(reader, writer, within=10)


async def test_a_peer_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winnow_rpc.limits._KEEPALIVE_TIMEOUT_MS", 500)
    endless = {"max_connection_idle_seconds": 0, "max_connection_age_seconds": 0}
    async with (
        running(Example(echo), keepalive_seconds=1, **endless) as (server, _),
        socket_to(server.address) as (reader, writer),
    ):
        writer.write(GREETING)
        await closed_after(reader, within=10)


async def test_one_connection_more_than_the_limit_is_closed_and_those_that_are_there_go_on() -> None:
    async with running(Example(echo), max_connections=3) as (server, channel), contextlib.AsyncExitStack() as sockets:
        assert await call(channel, b"hello") == b"hello"
        for _ in range(2):
            _, writer = await sockets.enter_async_context(socket_to(server.address))
            writer.write(GREETING)
        reader, writer = await sockets.enter_async_context(socket_to(server.address))
        writer.write(GREETING)
        await closed_after(reader, within=5)
        assert await call(channel, b"still") == b"still"


async def test_calls_over_the_limit_of_a_connection_wait_for_others_to_end() -> None:
    running_now = most = 0

    async def slow(request: bytes) -> bytes:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await asyncio.sleep(0.02)
        running_now -= 1
        return request

    async with running(Example(slow), max_concurrent_streams=3) as (_, channel):
        # The first call learns of the limit.
        await call(channel)
        assert await asyncio.gather(*(call(channel, b"x") for _ in range(30))) == [b"x"] * 30
    assert most == 3


async def test_a_message_of_100_mb_is_refused_and_disturbs_nobody() -> None:
    async with running(Example(echo)) as (server, channel):
        huge = open_channel(ChannelSettings(target=server.address, idempotent={}, max_message_bytes=200 * 1024 * 1024))
        sending = asyncio.create_task(call(huge, bytes(100_000_000)))
        while not sending.done():
            assert await call(channel, b"still") == b"still"
        error = sending.exception()
        await huge.close()
    assert isinstance(error, grpc.aio.AioRpcError)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("secure", [False, True])
async def test_no_call_fails_because_connections_grow_old(tmp_path: Path, secure: bool) -> None:
    """Unary calls without retries, and streams that outlive several connections, under load."""

    async def work(request: bytes) -> bytes:
        await asyncio.sleep(0.002)
        return request

    authority = Authority(tmp_path)
    tls: dict[str, Any] = authority.server() if secure else {}
    client = authority.client() if secure else None
    loop = asyncio.get_running_loop()
    async with running(Example(work), tls=client, max_connection_age_seconds=1, **tls) as (server, _):
        # Nothing is idempotent here: what gRPC does not repeat of itself is not repeated.
        channel = open_channel(ChannelSettings(target=server.address, idempotent={}, tls=client))
        deadline = loop.time() + 4
        await asyncio.gather(
            *(repeated(lambda: call(channel, b"x" * 1000), until=deadline) for _ in range(8)),
            *(repeated(lambda: one_stream(channel), until=deadline) for _ in range(4)),
            *(long_stream(channel, until=deadline) for _ in range(4)),
        )
        await channel.close()


async def repeated(action: Callable[[], Awaitable[Any]], *, until: float) -> None:
    while asyncio.get_running_loop().time() < until:
        await action()


async def one_stream(channel: grpc.aio.Channel) -> None:
    received = [each async for each in channel.unary_stream(f"/{NAME}/Stream")(b"x", timeout=5)]
    assert received == [b"first", b"x"]


async def long_stream(channel: grpc.aio.Channel, *, until: float) -> None:
    stream = channel.stream_stream(f"/{NAME}/Both")()
    while asyncio.get_running_loop().time() < until:
        await stream.write(b"x" * 1000)
        assert await stream.read() == b"x" * 1000
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
