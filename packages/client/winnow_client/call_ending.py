"""How a stream really ended.

When a server ends a stream while the client is still writing, a write fails, and grpcio 1.85 sets "INTERNAL: Internal
error from Core" as the call's status (https://github.com/grpc/grpc/issues/36066). The server's own status is set too,
before or after it. Done callbacks are called once, by whichever comes first; the call itself tells whichever came last.
Between the two the server's own is always found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

from winnow_rpc.faults import Fault, Unavailable

_PLACEHOLDER = "Internal error from Core"
# The server's status is on its way when a write fails because of it.
_GRACE_SECONDS = 1.0
_LOOK_SECONDS = 0.002


class CallEnding:
    """Watches one call, and tells which status the server ended it with."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._on_done)

    async def true_error(self, raised: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError | Fault:
        """The error that the server sent where `raised` only says that a write failed; else `raised` itself.

        If the server sent none, the connection was lost.
        """
        if not _is_placeholder(raised):
            return raised
        if self._first is not None and not _is_placeholder(self._first):
            return self._first
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                # No event tells that a status was set after another.
                while _is_placeholder(last := _error_of(self._call)):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            return Unavailable("the connection was lost while documents were being sent", reason="CONNECTION_LOST")
        return last

    def _on_done(self, call: Any) -> None:
        self._first = _error_of(call)


def _is_placeholder(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and _PLACEHOLDER in (error.details() or "")


def _error_of(call: Any) -> grpc.aio.AioRpcError:
    """The status of a call that has ended, as it is now."""
    return grpc.aio.AioRpcError(
        _result(call.code()),
        _result(call.initial_metadata()) or grpc.aio.Metadata(),
        _result(call.trailing_metadata()) or grpc.aio.Metadata(),
        details=_result(call.details()),
    )


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that has nothing to wait for; None if it would wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    return None
