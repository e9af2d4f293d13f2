"""The spans of `tracing` as OpenTelemetry's. Loaded once something traces, not before.

A call that is traced pays for beginning its spans, since those that follow need their ids. What is set on a span is put
down, and handed to OpenTelemetry with the span's end once nobody waits: that halves what tracing adds to a search.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from types import TracebackType

from opentelemetry import context, propagate, trace
from opentelemetry.trace import SpanKind, StatusCode

from winnow_rpc.deferring import soon
from winnow_rpc.tracing import NO_SPAN, Attribute, Kind, Span

_CURRENT = context.create_key("winnow-span")

_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "server": SpanKind.SERVER,
}


class Recorder:
    """Makes spans at one provider. Traces travel as the propagators of the process write them: W3C `traceparent`."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("winnow")

    def span(self, name: str, kind: Kind) -> Span:
        """A span within the one that is current."""
        return _OpenSpan(self._tracer.start_span(name, kind=_KINDS[kind]))

    def serving_span(self, name: str, metadata: Mapping[str, str]) -> Span:
        """The span of a served call."""
        # From an empty context: what was current where the server was started is no parent of this call.
        parent = propagate.extract(metadata, context=context.Context())
        # Which statuses are failures of the server is for who serves the call to say, not for the exception behind it.
        made = self._tracer.start_span(name, context=parent, kind=SpanKind.SERVER)
        return _OpenSpan(made, exceptions_fail=False)

    def past_span(self, name: str, began_ns: int, ended_ns: int, attributes: Mapping[str, Attribute]) -> None:
        """A span that has ended."""
        within = context.get_current()

        def record() -> None:
            made = self._tracer.start_span(name, context=within, start_time=began_ns, attributes=_ours(attributes))
            made.end(end_time=ended_ns)

        soon(record)

    def current(self) -> Span:
        """The span of ours that is current."""
        found = context.get_value(_CURRENT)
        return found if isinstance(found, _OpenSpan) else NO_SPAN

    def unsampled(self) -> Span:
        """A span that is not sampled, and with it nothing that follows its parent."""
        ids = trace.SpanContext(secrets.randbits(128) or 1, secrets.randbits(64) or 1, is_remote=False)
        return _OpenSpan(trace.NonRecordingSpan(ids))

    def headers(self) -> dict[str, str]:
        """The current trace as headers."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    def trace_id(self) -> str:
        """The current trace's id; empty outside of one."""
        found = trace.get_current_span().get_span_context().trace_id
        return trace.format_trace_id(found) if found else ""


class _OpenSpan:
    """Implements `tracing.Span`."""

    __slots__ = ("_attributes", "_before", "_exceptions_fail", "_failure", "_span")

    def __init__(self, span: trace.Span, *, exceptions_fail: bool = True) -> None:
        self._span = span
        self._exceptions_fail = exceptions_fail
        self._attributes: dict[str, Attribute] = {}
        self._failure: str | None = None
        self._before: context.Context | None = None

    @property
    def recording(self) -> bool:
        return self._span.is_recording()

    def set(self, **attributes: Attribute) -> None:
        self._attributes.update(_ours(attributes))

    def set_exact(self, attributes: Mapping[str, Attribute]) -> None:
        self._attributes.update(attributes)

    def failed(self, description: str) -> None:
        self._failure = description

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier, context=trace.set_span_in_context(self._span))
        return carrier

    def end(self) -> None:
        soon(self._end, time.time_ns())

    def _end(self, at_ns: int) -> None:
        if self._span.is_recording():
            self._span.set_attributes(self._attributes)
            if self._failure is not None:
                self._span.set_status(StatusCode.ERROR, self._failure)
        self._span.end(end_time=at_ns)

    def __enter__(self) -> _OpenSpan:
        self._before = context.get_current()
        within = trace.set_span_in_context(self._span, self._before)
        context.attach(context.set_value(_CURRENT, self, within))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Not by detaching a token: an async generator may be closed in another context than it was begun in.
        if self._before is not None:
            context.attach(self._before)
        # A caller who goes away is no failure of the work.
        if self._exceptions_fail and isinstance(error, Exception):
            self.failed(f"{type(error).__name__}: {error}")
        self.end()


def _ours(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {f"winnow.{name}": value for name, value in attributes.items()}
