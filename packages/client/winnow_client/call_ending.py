"""How a stream really ended.

When a server ends a stream while the client is still writing, a write fails, and grpcio 1.85 then puts "INTERNAL:
Internal error from Core" in the place of the status that the server sent and that it had already received
(https://github.com/grpc/grpc/issues/36066). A done callback sees each status as it is set, so the server's own is kept.
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


class CallEnding:
    """Watches one call, and tells which status the server ended it with."""

    def __init__(self, call: Any) -> None:
        self._seen: list[grpc.aio.AioRpcError] = []
        self._news = asyncio.Event()
        call.add_done_callback(self._on_done)

    async def true_error(self, raised: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError | Fault:
        """The error that the server sent where `raised` only says that a write failed; else `raised` itself.

        If the server sent none, the connection was lost.
        """
        if not _is_placeholder(raised):
            return raised
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                while not self._seen:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return Unavailable("the connection was lost while documents were being sent", reason="CONNECTION_LOST")
        return self._seen[0]

    def _on_done(self, call: Any) -> None:
        error = grpc.aio.AioRpcError(
            _result(call.code()),
            _result(call.initial_metadata()) or grpc.aio.Metadata(),
            _result(call.trailing_metadata()) or grpc.aio.Metadata(),
            details=_result(call.details()),
        )
        if not _is_placeholder(error):
            self._seen.append(error)
            self._news.set()


def _is_placeholder(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and _PLACEHOLDER in (error.details() or "")


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that has nothing to wait for; None if it would wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    return None
