from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest

from winnow_client import call_ending
from winnow_client.call_ending import CallEnding
from winnow_rpc.faults import Unavailable

HIDDEN = (grpc.StatusCode.INTERNAL, "Internal error from Core")
SERVERS = (grpc.StatusCode.NOT_FOUND, "there is no such collection")


class Call:
    """A call as grpcio has it: each new status takes the place of the last, callbacks hear of the first alone."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Call], None]] = []
        self._status = (grpc.StatusCode.OK, "")

    def add_done_callback(self, callback: Callable[[Call], None]) -> None:
        self._callbacks.append(callback)

    def end(self, status: tuple[grpc.StatusCode, str]) -> None:
        self._status = status
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    async def code(self) -> grpc.StatusCode:
        return self._status[0]

    async def details(self) -> str:
        return self._status[1]

    async def initial_metadata(self) -> grpc.aio.Metadata | None:
        return None

    async def trailing_metadata(self) -> grpc.aio.Metadata | None:
        return None


def raised(status: tuple[grpc.StatusCode, str]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(status[0], grpc.aio.Metadata(), grpc.aio.Metadata(), details=status[1])


@pytest.mark.parametrize("statuses", [[SERVERS, HIDDEN], [HIDDEN, SERVERS]], ids=["before", "after"])
async def test_the_servers_status_is_found_whether_it_came_before_or_after_the_failed_write(
    statuses: list[tuple[grpc.StatusCode, str]],
) -> None:
    call = Call()
    ending = CallEnding(call)
    for status in statuses:
        call.end(status)
    true = await ending.true_error(raised(HIDDEN))
    assert isinstance(true, grpc.aio.AioRpcError)
    assert (true.code(), true.details()) == SERVERS


async def test_a_status_still_on_its_way_is_waited_for() -> None:
    call = Call()
    ending = CallEnding(call)
    call.end(HIDDEN)
    asyncio.get_running_loop().call_later(0.05, call.end, SERVERS)
    true = await ending.true_error(raised(HIDDEN))
    assert isinstance(true, grpc.aio.AioRpcError)
    assert true.code() is grpc.StatusCode.NOT_FOUND


async def test_where_the_server_sent_none_the_connection_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_ending, "_GRACE_SECONDS", 0.05)
    call = Call()
    ending = CallEnding(call)
    call.end(HIDDEN)
    true = await ending.true_error(raised(HIDDEN))
    assert isinstance(true, Unavailable)
    assert true.reason == "CONNECTION_LOST"


async def test_what_hides_nothing_is_itself() -> None:
    error = raised((grpc.StatusCode.UNAVAILABLE, "Socket closed"))
    assert await CallEnding(Call()).true_error(error) is error
