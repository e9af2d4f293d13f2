"""A message that gRPC itself refuses is one line of the log that says so, and a caller who goes away is not."""

import asyncio
import contextlib
import logging
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.contract.rpc.example import NAME, Behaviour, Example, call, echo, running
from winnow_rpc import refused_messages
from winnow_rpc.calling import ChannelSettings, open_channel
from winnow_rpc.faults import InvalidArgument
from winnow_rpc.serving import RunningServer

LIMIT = 64 * 1024
TOO_LARGE = bytes(100_000)
PATIENCE = 30.0


class Streams(Example):
    """What a method may do when its stream of requests seems to end."""

    def __init__(self, at_end: Callable[[], Any], behaviour: Behaviour = echo) -> None:
        super().__init__(behaviour)
        self.at_end = at_end

    async def both(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await self.behaviour(request)
        await self.at_end()


async def ends() -> None:
    return


async def goes_on() -> None:
    await asyncio.sleep(PATIENCE)


async def misses_something() -> None:
    raise InvalidArgument("the first message must say what follows", reason="NO_HEADER")


def spoken(written: list[EventDict]) -> list[EventDict]:
    """What is said of calls at the usual level of the log."""
    return [line for line in written if line["event"] == "call" and line["log_level"] != "debug"]


async def over(written: list[EventDict], *, calls: int = 1) -> None:
    """Waits until so many calls have ended at the server."""
    for _ in range(3000):
        if len([line for line in written if line["event"] == "call"]) >= calls:
            break
        await asyncio.sleep(0.01)
    # It is counted when the loop next comes round.
    await asyncio.sleep(0)


def metrics_of(server: RunningServer) -> str:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=PATIENCE) as answer:
        text: str = answer.read().decode()
    return text


def generous(server: RunningServer) -> grpc.aio.Channel:
    """A channel that may send more than the server takes."""
    settings = ChannelSettings(target=server.address, idempotent={}, max_message_bytes=16 * LIMIT)
    return open_channel(settings)


async def refused(stream: Any) -> grpc.aio.AioRpcError:
    """Sends what is too large, and gives the error that answers it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        # The write may fail too, if the answer is faster.
        with contextlib.suppress(asyncio.InvalidStateError):
            await stream.write(TOO_LARGE)
        await stream.read()
    return caught.value


@pytest.mark.parametrize("method", ["Unary", "Stream"])
async def test_a_request_over_the_limit_is_refused_and_logged_once(method: str) -> None:
    with capture_logs() as written:
        async with running(Example(echo), max_message_bytes=LIMIT) as (_, channel):
            call_ = channel.unary_unary if method == "Unary" else channel.unary_stream
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                pending: Any = call_(f"/{NAME}/{method}")(TOO_LARGE, timeout=PATIENCE)
                _ = [each async for each in pending] if method == "Stream" else await pending
            await over(written)
            assert await call(channel, b"small") == b"small"
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    [line] = spoken(written)
    assert (line["method"], line["code"], line["reason"]) == (
        f"/{NAME}/{method}",
        "RESOURCE_EXHAUSTED",
        "MESSAGE_REFUSED",
    )


@pytest.mark.parametrize("at_end", [ends, goes_on, misses_something])
@pytest.mark.parametrize("before", [0, 3])
async def test_a_message_over_the_limit_in_a_stream_is_refused_and_logged_once(
    at_end: Callable[[], Any], before: int
) -> None:
    with capture_logs() as written:
        async with running(Streams(at_end), max_message_bytes=LIMIT) as (server, channel), generous(server) as large:
            stream = large.stream_stream(f"/{NAME}/Both")(timeout=PATIENCE, metadata=(("x-request-id", "mine"),))
            for _ in range(before):
                await stream.write(b"small")
                assert await stream.read() == b"small"
            error = await refused(stream)
            await over(written)
            assert await call(channel, b"small") == b"small"
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    [line] = spoken(written)
    assert (line["method"], line["code"], line["reason"]) == (f"/{NAME}/Both", "RESOURCE_EXHAUSTED", "MESSAGE_REFUSED")
    assert "max_message_bytes" in line["message"]
    assert line["peer"].startswith("ipv4:127.0.0.1:")


async def test_a_small_message_that_unpacks_to_a_large_one_is_refused_and_logged_once() -> None:
    with capture_logs() as written:
        async with running(Example(echo), max_message_bytes=LIMIT) as (server, _), generous(server) as large:
            packing = large.stream_stream(f"/{NAME}/Both")(timeout=PATIENCE, compression=grpc.Compression.Gzip)
            error = await refused(packing)
            await over(written)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [line["reason"] for line in spoken(written)] == ["MESSAGE_REFUSED"]


@pytest.mark.parametrize("how", ["cancels", "hangs up", "has no more time", "has no more to say"])
async def test_a_caller_who_goes_away_is_not_taken_for_one_who_sent_too_much(how: str) -> None:
    with capture_logs() as written:
        async with running(Streams(ends), max_message_bytes=LIMIT) as (server, _), generous(server) as channel:
            stream = channel.stream_stream(f"/{NAME}/Both")(timeout=4 if how == "has no more time" else PATIENCE)
            await stream.write(b"small")
            assert await stream.read() == b"small"
            if how == "cancels":
                stream.cancel()
            elif how == "hangs up":
                await channel.close()
            elif how == "has no more time":
                with pytest.raises(grpc.aio.AioRpcError):
                    await stream.read()
            else:
                await stream.done_writing()
                assert await stream.read() is grpc.aio.EOF
            await over(written)
    assert spoken(written) == []


async def test_what_a_backend_sends_that_is_too_large_is_not_taken_for_the_callers() -> None:
    """Reads fail at clients as they do at servers, and a method that calls another service is both."""
    answers: list[grpc.StatusCode] = []

    async def large(_request: bytes) -> bytes:
        return TOO_LARGE

    async with running(Example(large)) as (backend, _):
        settings = ChannelSettings(target=backend.address, idempotent={}, max_message_bytes=LIMIT)
        async with open_channel(settings) as to_backend:

            async def ask(request: bytes) -> bytes:
                stream = to_backend.unary_stream(f"/{NAME}/Stream")(b"", timeout=PATIENCE)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    _ = [each async for each in stream]
                answers.append(caught.value.code())
                return request

            async with running(Streams(ends, behaviour=ask)) as (_, channel):
                with capture_logs() as written:
                    stream = channel.stream_stream(f"/{NAME}/Both")(timeout=PATIENCE)
                    await stream.write(b"small")
                    assert await stream.read() == b"small"
                    await stream.done_writing()
                    assert await stream.read() is grpc.aio.EOF
                    assert await call(channel, b"small") == b"small"
                    await over(written, calls=4)
    assert answers == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    assert spoken(written) == []


async def test_a_refused_message_is_counted_as_a_refusal() -> None:
    async with running(Example(echo), max_message_bytes=LIMIT, metrics_port=0) as (server, _):
        with capture_logs() as written:
            async with generous(server) as large:
                await refused(large.stream_stream(f"/{NAME}/Both")(timeout=PATIENCE))
                with pytest.raises(grpc.aio.AioRpcError):
                    await call(large, TOO_LARGE)
            await over(written, calls=2)
            text = await asyncio.to_thread(metrics_of, server)
    for method in ("Both", "Unary"):
        assert f'winnow_rpc_requests_total{{code="RESOURCE_EXHAUSTED",method="{NAME}/{method}"}} 1.0' in text
    assert 'winnow_refusals_total{reason="MESSAGE_REFUSED"} 2.0' in text


def test_grpcs_own_debug_lines_stay_unwritten_unless_they_are_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    refused_messages.listen()
    logger = logging.getLogger("grpc._cython.cygrpc")
    with caplog.at_level(logging.WARNING, logger="grpc"):
        logger.debug("nobody asked")
        logger.warning("worth a line")
    with caplog.at_level(logging.DEBUG, logger="grpc"):
        logger.debug("asked for")
    assert [record.message for record in caplog.records] == ["worth a line", "asked for"]
