"""What surrounds every call on the serving side: request id, span, faults to statuses, one line of log, one count."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from winnow_rpc import faults, refused_messages, status, telemetry, tracing
from winnow_rpc.deferring import soon
from winnow_rpc.refused_messages import Reading
from winnow_rpc.wrapping import Context, Handler, HandlerInterceptor, around

log = telemetry.get_logger("winnow.rpc")

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


class FaultInterceptor(HandlerInterceptor):
    """Gives each call its request id and its span, turns what it raises into a status, logs and counts how it ended.

    A `Fault` becomes its status with all details. Anything else becomes INTERNAL that says no more than the request id;
    the traceback goes to the log.
    """

    def __init__(self, counter: CallCounter | None = None) -> None:
        self._counter = counter
        refused_messages.listen()

    def wrap(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        """Watches the call."""
        # Of binary metadata, which is none of ours, only the names.
        metadata = {k: v for k, v in details.invocation_metadata or () if isinstance(v, str)}
        called = _Called(details.method.removeprefix("/"), metadata, self._counter)
        # gRPC serves each call in a task of its own, and takes up a call of one message only once that is there.
        if not handler.request_streaming and (task := asyncio.current_task()):
            refused_messages.watch(called.reading)
            task.add_done_callback(called.over)
        return around(handler, called.watched, called.messages)


@dataclass(slots=True)
class _Called:
    """A call before it is taken up."""

    method: str
    """"package.Service/Method"."""
    metadata: Mapping[str, str]
    counter: CallCounter | None
    taken_up: bool = False
    reading: Reading = field(default_factory=Reading)
    peer: str = ""
    """Who sends a stream, as gRPC writes it."""
    arrived: float = field(default_factory=time.perf_counter)

    def over(self, _task: asyncio.Task[Any]) -> None:
        """Logs and counts a call that never was taken up: nothing else says of it that it was there."""
        if self.taken_up:
            return
        telemetry.enter_request(self.metadata.get(telemetry.REQUEST_ID_KEY))
        fault: faults.Fault = (
            refused_messages.fault()
            if self.reading.refused
            else faults.Cancelled(
                "the caller gave up or broke the protocol before the request was here", reason="NO_REQUEST"
            )
        )
        elapsed = time.perf_counter() - self.arrived
        code = status.code_of(fault).name
        log.info(
            "call",
            method=f"/{self.method}",
            code=code,
            millis=round(elapsed * 1000, 2),
            reason=fault.reason,
            message=fault.message,
        )
        if self.counter:
            self.counter.ended(self.method, code, elapsed)
            self.counter.refused(fault)

    def messages(self, incoming: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """The requests, if they are a stream."""
        # Once the call is over, gRPC does not know it any more.
        self.peer = context.peer()
        return refused_messages.Watched(incoming, self.reading)

    @contextlib.asynccontextmanager
    async def watched(self, context: Context) -> AsyncIterator[None]:
        """Surrounds the call from when it is taken up."""
        self.taken_up = True
        refused_messages.watch(None)
        with tracing.serving_span(self.method, self.metadata) as span:
            watch = _Watch(self, span, context)
            try:
                _refuse_expired(context)
                yield
            except BaseException as error:
                await watch.failed(error)
                raise
            watch.succeeded()


def _refuse_expired(context: Context) -> None:
    """No work is done for a caller whose time was up before his call got here."""
    left = context.time_remaining()
    if left is not None and left <= 0:
        raise faults.DeadlineExceeded("the caller's deadline had passed when the call arrived", reason="DEADLINE")


class _Watch:
    """One call, from its arrival to its line in the log."""

    def __init__(self, called: _Called, span: tracing.Span, context: Context) -> None:
        self._called = called
        self._span = span
        self._context = context
        self._began = time.perf_counter()
        self._id = telemetry.enter_request(called.metadata.get(telemetry.REQUEST_ID_KEY))
        context.set_trailing_metadata(((telemetry.REQUEST_ID_KEY, self._id),))

    def succeeded(self) -> None:
        if self._called.reading.refused:
            self._message_refused()
        else:
            log.debug("call", **self._ended(grpc.StatusCode.OK))

    async def failed(self, error: BaseException) -> None:
        """Logs the failure; ends the call with its status unless gRPC is ending it already."""
        fault = error if isinstance(error, faults.Fault) else None
        expected = fault or isinstance(error, asyncio.CancelledError | GeneratorExit | grpc.aio.AbortError)
        if expected and self._called.reading.refused:
            # All else, as that the first message was missing, came of that.
            self._message_refused()
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            log.debug("call", **self._ended(grpc.StatusCode.CANCELLED))
        elif isinstance(error, grpc.aio.AbortError):
            self._ended(_code_of(self._context))
        elif fault:
            self._log_fault(fault)
        else:
            log.error("call", **self._ended(grpc.StatusCode.INTERNAL), exc_info=error)
            fault = faults.Internal(f"internal error; the log holds it under request id {self._id}")
        if fault:
            await abort(self._context, status.status_of(fault), request_id=self._id)

    def _message_refused(self) -> None:
        # The caller has his status of gRPC, but not the request's id.
        self._log_fault(refused_messages.fault(), peer=self._called.peer)

    def _log_fault(self, fault: faults.Fault, **more: str) -> None:
        facts = self._ended(status.code_of(fault), fault) | more
        log.info("call", **facts, reason=fault.reason, message=status.status_of(fault).message)

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


def _code_of(context: Context) -> grpc.StatusCode:
    """What a behaviour that aborted the call itself ended it with; gRPC gives a number or a code."""
    given = context.code()
    return next((code for code in grpc.StatusCode if given in (code, code.value[0])), grpc.StatusCode.UNKNOWN)


async def abort(context: Context, ending: status_pb2.Status, *, request_id: str) -> None:
    """Ends a call with a google.rpc.Status, keeping the request id in the trailing metadata."""
    rich = rpc_status.to_status(ending)
    trailing = (*rich.trailing_metadata, (telemetry.REQUEST_ID_KEY, request_id))
    await context.abort(rich.code, rich.details, trailing)
