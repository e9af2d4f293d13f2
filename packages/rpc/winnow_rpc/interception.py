"""What surrounds every call on the serving side: request id, faults to statuses, one line of log."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from winnow_rpc import faults, status, telemetry

log = telemetry.get_logger("winnow.rpc")

# Asked every few seconds by orchestrators; a line for each would bury everything else.
_QUIET = ("/grpc.health.v1.Health/", "/grpc.reflection.")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class FaultInterceptor(grpc.aio.ServerInterceptor):
    """Gives each call its request id, turns what it raises into a status, and logs how it ended.

    A `Fault` becomes its status with all details. Anything else becomes INTERNAL that says no more than the request id;
    the traceback goes to the log.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the handler, whichever of the four kinds it is."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_QUIET):
            return handler
        offered = next(
            (str(v) for k, v in handler_call_details.invocation_metadata or () if k == telemetry.REQUEST_ID_KEY), None
        )
        serializers = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            wrap, make = (
                (_streaming, grpc.stream_stream_rpc_method_handler)
                if handler.request_streaming
                else (_streaming, grpc.unary_stream_rpc_method_handler)
            )
        else:
            wrap, make = (
                (_single, grpc.stream_unary_rpc_method_handler)
                if handler.request_streaming
                else (_single, grpc.unary_unary_rpc_method_handler)
            )
        behaviour = handler.stream_stream or handler.unary_stream or handler.stream_unary or handler.unary_unary
        return make(wrap(behaviour, method, offered), *serializers)


def _single(behaviour: Any, method: str, offered: str | None) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        watch = _Watch(method, offered, context)
        try:
            _refuse_expired(context)
            response = await behaviour(request, context)
        except BaseException as error:
            await watch.failed(error)
            raise
        watch.succeeded()
        return response

    return call


def _streaming(behaviour: Any, method: str, offered: str | None) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        watch = _Watch(method, offered, context)
        try:
            _refuse_expired(context)
            # Closed at once when the caller goes away, not when the garbage collector comes by.
            async with contextlib.aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response
        except BaseException as error:
            await watch.failed(error)
            raise
        watch.succeeded()

    return call


def _refuse_expired(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """No work is done for a caller whose time was up before his call got here."""
    left = context.time_remaining()
    if left is not None and left <= 0:
        raise faults.DeadlineExceeded("the caller's deadline had passed when the call arrived", reason="DEADLINE")


class _Watch:
    """One call, from its arrival to its line in the log."""

    def __init__(self, method: str, offered: str | None, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._method = method
        self._context = context
        self._began = time.perf_counter()
        self._id = telemetry.enter_request(offered)
        context.set_trailing_metadata(((telemetry.REQUEST_ID_KEY, self._id),))

    def succeeded(self) -> None:
        log.debug("call", **self._facts(grpc.StatusCode.OK))

    async def failed(self, error: BaseException) -> None:
        """Logs the failure; ends the call with its status unless gRPC is ending it already."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            log.debug("call", **self._facts(grpc.StatusCode.CANCELLED))
            return
        if isinstance(error, grpc.aio.AbortError):
            return
        if isinstance(error, faults.Fault):
            fault = error
            log.info("call", **self._facts(status.code_of(fault)), reason=fault.reason, message=fault.message)
        else:
            log.error("call", **self._facts(grpc.StatusCode.INTERNAL), exc_info=error)
            fault = faults.Internal(f"internal error; the log holds it under request id {self._id}")
        await abort(self._context, status.status_of(fault), request_id=self._id)

    def _facts(self, code: grpc.StatusCode) -> dict[str, Any]:
        elapsed = (time.perf_counter() - self._began) * 1000
        return {"method": self._method, "code": code.name, "millis": round(elapsed, 2)}


async def abort(context: grpc.aio.ServicerContext[Any, Any], ending: status_pb2.Status, *, request_id: str) -> None:
    """Ends a call with a google.rpc.Status, keeping the request id in the trailing metadata."""
    rich = rpc_status.to_status(ending)
    trailing = (*rich.trailing_metadata, (telemetry.REQUEST_ID_KEY, request_id))
    await context.abort(rich.code, rich.details, trailing)
