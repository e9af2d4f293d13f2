"""Replicas end and come back while they are called: no call fails, neither one that waits at a server as it stops, nor
one that is made before the replica that is back is connected to."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from tests.contract.rpc.example import NAME, Example, call, echo
from winnow_rpc.calling import ChannelSettings, open_channel
from winnow_rpc.faults import Unavailable
from winnow_rpc.serving import RunningServer
from winnow_rpc.settings import ServingSettings
from winnow_rpc.status import fault_from_rpc_error

CALLS = 8
"""At a time."""
REFUSED = 5
"""Times that a client has to be refused until it takes its time with the next attempt."""


async def started(example: Example, *, port: int = 0) -> RunningServer:
    server = RunningServer(example.service(), ServingSettings(port=port, probe_seconds=60, drain_seconds=5))
    await server.start()
    return server


def failures_of_calls(target: str, idempotent: list[str], over: threading.Event) -> list[grpc.aio.AioRpcError]:
    """Makes several calls at a time until it is over. In a loop of its own: that of the servers is held up."""
    failed: list[grpc.aio.AioRpcError] = []

    async def keep_calling(channel: grpc.aio.Channel) -> None:
        while not over.is_set():
            try:
                await call(channel)
            except grpc.aio.AioRpcError as error:
                failed.append(error)

    async def run() -> None:
        async with open_channel(ChannelSettings(target=target, idempotent={NAME: idempotent})) as channel:
            await asyncio.gather(*(keep_calling(channel) for _ in range(CALLS)))

    asyncio.run(run())
    return failed


async def failures_while_one_of_two_stops(*, idempotent: list[str]) -> list[grpc.aio.AioRpcError]:
    """Calls two servers, one of which stops while calls wait there to be taken up."""
    going, over = asyncio.Event(), threading.Event()
    answered = 0

    async def count(request: bytes) -> bytes:
        nonlocal answered
        answered += 1
        if answered > 10 * CALLS:
            going.set()
        return request

    # gRPC's own, for ours takes up a few more calls before it comes to stopping that.
    stopping, other = grpc.aio.server(), await started(Example(echo))
    Example(count).service().register(stopping)
    target = f"127.0.0.1:{stopping.add_insecure_port('127.0.0.1:0')},{other.address}"
    await stopping.start()
    calling = asyncio.create_task(asyncio.to_thread(failures_of_calls, target, idempotent, over))
    try:
        async with asyncio.timeout(20):
            await going.wait()
        # It takes up one call after the other in this loop, which it cannot now: those that come meanwhile wait.
        time.sleep(0.3)  # noqa: ASYNC251
    finally:
        await stopping.stop(5)
        over.set()
        failed = await calling
        await other.stop()
    return failed


async def test_a_call_that_waits_at_a_server_as_it_stops_is_answered_by_another() -> None:
    assert await failures_while_one_of_two_stops(idempotent=["Unary"]) == []


async def test_where_it_may_not_be_tried_again_such_a_call_is_unavailable() -> None:
    failed = await failures_while_one_of_two_stops(idempotent=[])
    assert grpc.StatusCode.CANCELLED in {error.code() for error in failed}
    assert {type(fault_from_rpc_error(error)) for error in failed} == {Unavailable}


class Refusing:
    """Takes connections and closes them at once, as a port does whose container is not listening yet."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self._news = threading.Condition()
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind(("127.0.0.1", port))
        self._listening.listen()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait(self, count: int) -> None:
        """Until it has refused so many."""
        with self._news:
            assert self._news.wait_for(lambda: self.count >= count, timeout=20)

    def close(self) -> None:
        """Frees the port."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            # Without a farewell, which would keep the port for a while.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            with self._news:
                self.count += 1
                self._news.notify_all()


@contextmanager
def refusing(port: int) -> Iterator[Refusing]:
    made = Refusing(port)
    try:
        yield made
    finally:
        made.close()


async def test_a_replica_may_end_as_soon_as_another_is_back() -> None:
    servers = [await started(Example(echo)), await started(Example(echo))]
    target = ",".join(server.address for server in servers)
    port = int(servers[0].address.rpartition(":")[2])
    async with open_channel(ChannelSettings(target=target, idempotent={NAME: ["Unary"]})) as channel:
        try:
            for _ in range(4):
                await call(channel)
            await servers[0].stop()
            with refusing(port) as former:
                await asyncio.to_thread(former.wait, REFUSED)
            # The client has just been refused, and waits: the moment when it knows least of what comes back.
            servers[0] = await started(Example(echo), port=port)
            await servers[1].stop()
            for _ in range(4):
                await call(channel)
        finally:
            for server in servers:
                await server.stop()
