"""What surrounds every call on the serving side: request id, span, faults to statuses, one line of log, one count."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from winnow_rpc import faults, status, telemetry, tracing
from winnow_rpc.deferring import soon

log = telemetry.get_logger("winnow.rpc")

# Asked every few seconds by orchestrators; a line for each would bury everything else.
_QUIET = ("/grpc.health.v1.Health/", "/grpc.reflection.")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

# By OpenTelemetry's conventions these, and no others, are failures of the server.
_SERVER_FAILURES = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


class CallCounter(Protocol):
    """Counts calls: `metrics.RpcMetrics`, or whatever a test wants."""

    def ended(self, method: str, code: str, seconds: float) -> None:
        """A call has ended."""
        ...

    def refused(self, fault: faults.Fault) -> None:
        """A call has ended with this fault, which may be a refusal."""
        ...


class FaultInterceptor(grpc.aio.ServerInterceptor):
    """Gives each call its request id and its span, turns what it raises into a status, logs and counts how it ended.

    A `Fault` becomes its status with all details. Anything else becomes INTERNAL that says no more than the request id;
    the traceback goes to the log. Health checks and reflection are let through as they are.
    """

    def __init__(self, counter: CallCounter | None = None) -> None:
        self._counter = counter

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
        # Of binary metadata, which is none of ours, only the names.
        metadata = {k: v for k, v in handler_call_details.invocation_metadata or () if isinstance(v, str)}
        called = _Called(method.removeprefix("/"), metadata, self._counter)
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
        return make(wrap(behaviour, called), *serializers)


@dataclass(frozen=True, slots=True)
class _Called:
    """A call before it is taken up."""

    method: str
    """"package.Service/Method"."""
    metadata: Mapping[str, str]
    counter: CallCounter | None


def _single(behaviour: Any, called: _Called) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        with tracing.serving_span(called.method, called.metadata) as span:
            watch = _Watch(called, span, context)
            try:
                _refuse_expired(context)
                response = await behaviour(request, context)
            except BaseException as error:
                await watch.failed(error)
                raise
            watch.succeeded()
            return response

    return call


def _streaming(behaviour: Any, called: _Called) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        with tracing.serving_span(called.method, called.metadata) as span:
            watch = _Watch(called, span, context)
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

    def __init__(self, called: _Called, span: tracing.Span, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._called = called
        self._span = span
        self._context = context
        self._began = time.perf_counter()
        self._id = telemetry.enter_request(called.metadata.get(telemetry.REQUEST_ID_KEY))
        context.set_trailing_metadata(((telemetry.REQUEST_ID_KEY, self._id),))

    def succeeded(self) -> None:
        log.debug("call", **self._ended(grpc.StatusCode.OK))

    async def failed(self, error: BaseException) -> None:
        """Logs the failure; ends the call with its status unless gRPC is ending it already."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            log.debug("call", **self._ended(grpc.StatusCode.CANCELLED))
            return
        if isinstance(error, grpc.aio.AbortError):
            self._ended(_code_of(self._context))
            return
        if isinstance(error, faults.Fault):
            fault = error
            facts = self._ended(status.code_of(fault), fault)
            log.info("call", **facts, reason=fault.reason, message=fault.message)
        else:
            log.error("call", **self._ended(grpc.StatusCode.INTERNAL), exc_info=error)
            fault = faults.Internal(f"internal error; the log holds it under request id {self._id}")
        await abort(self._context, status.status_of(fault), request_id=self._id)

    def _ended(self, code: grpc.StatusCode, fault: faults.Fault | None = None) -> dict[str, Any]:
        """Counts the call, tells its span, and gives the facts for the log."""
        elapsed = time.perf_counter() - self._began
        method = self._called.method
        if counter := self._called.counter:
            soon(counter.ended, method, code.name, elapsed)
            if fault:
                soon(counter.refused, fault)
        if self._span.recording:
            service, _, name = method.rpartition("/")
            attributes: dict[str, tracing.Attribute] = {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": name,
                "rpc.grpc.status_code": int(code.value[0]),
                "winnow.request_id": self._id,
            }
            if fault:
                attributes["winnow.reason"] = fault.reason
            self._span.set_exact(attributes)
            if code in _SERVER_FAILURES:
                self._span.failed(fault.reason if fault else code.name)
        return {"method": f"/{method}", "code": code.name, "millis": round(elapsed * 1000, 2)}


def _code_of(context: grpc.aio.ServicerContext[Any, Any]) -> grpc.StatusCode:
    """What a behaviour that aborted the call itself ended it with; gRPC gives a number or a code."""
    given = context.code()
    return next((code for code in grpc.StatusCode if given in (code, code.value[0])), grpc.StatusCode.UNKNOWN)


async def abort(context: grpc.aio.ServicerContext[Any, Any], ending: status_pb2.Status, *, request_id: str) -> None:
    """Ends a call with a google.rpc.Status, keeping the request id in the trailing metadata."""
    rich = rpc_status.to_status(ending)
    trailing = (*rich.trailing_metadata, (telemetry.REQUEST_ID_KEY, request_id))
    await context.abort(rich.code, rich.details, trailing)
