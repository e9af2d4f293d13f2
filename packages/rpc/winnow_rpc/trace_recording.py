"""The spans of `tracing` as OpenTelemetry's. Loaded once something traces, not before.

OpenTelemetry hears of a span when its id is needed, which is when another process is called within it, or else when
nobody waits any more: once the call that it belongs to has been answered. Made at once, each span would add some forty
microseconds to a search of a few milliseconds.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import TypeAlias

from opentelemetry import context, propagate, trace
from opentelemetry.trace import SpanKind, StatusCode

from winnow_rpc.deferring import soon
from winnow_rpc.tracing import NO_SPAN, Attribute, Kind, Span

_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "server": SpanKind.SERVER,
}
# Spans of one call that have ended and wait for its end: a stream may have any number.
_MOST_WAITING = 64

_current: ContextVar[_OpenSpan | None] = ContextVar("winnow_span", default=None)


class Recorder:
    """Makes spans at one provider. Traces travel as the propagators of the process write them: W3C `traceparent`."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("winnow")

    def span(self, name: str, kind: Kind) -> Span:
        """A span within the one that is current."""
        # Without one of ours, whatever the caller of the SDK has.
        return _OpenSpan(self._tracer, name, kind, _current.get() or context.get_current())

    def serving_span(self, name: str, metadata: Mapping[str, str]) -> Span:
        """The span of a served call."""
        return _OpenSpan(self._tracer, name, "server", metadata)

    def past_span(self, name: str, began_ns: int, ended_ns: int, attributes: Mapping[str, Attribute]) -> None:
        """A span that has ended."""
        made = _OpenSpan(self._tracer, name, "internal", _current.get() or context.get_current(), began_ns)
        made.set(**attributes)
        made.end(ended_ns)

    def current(self) -> Span:
        """The span of ours that is current."""
        return _current.get() or NO_SPAN

    def unsampled(self) -> Span:
        """A span that is not sampled, and with it nothing that follows its parent."""
        ids = trace.SpanContext(secrets.randbits(128) or 1, secrets.randbits(64) or 1, is_remote=False)
        made = _OpenSpan(self._tracer, "unsampled", "internal", context.Context())
        made.made = trace.NonRecordingSpan(ids)
        return made

    def headers(self) -> dict[str, str]:
        """The current trace as headers."""
        found = _current.get()
        if found is not None:
            return found.headers()
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    def trace_id(self) -> str:
        """The current trace's id; empty outside of one."""
        found = _current.get()
        span = trace.get_current_span() if found is None else found.known()
        number = span.get_span_context().trace_id
        return trace.format_trace_id(number) if number else ""


class _OpenSpan:
    """Implements `tracing.Span`."""

    __slots__ = (
        "_attributes",
        "_before",
        "_began_ns",
        "_ended",
        "_failure",
        "_kind",
        "_name",
        "_parent",
        "_root",
        "_tracer",
        "_waiting",
        "made",
    )

    def __init__(
        self, tracer: trace.Tracer, name: str, kind: Kind, parent: _Parent, began_ns: int | None = None
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._kind = kind
        self._parent = parent
        self._began_ns = began_ns or time.time_ns()
        self._attributes: dict[str, Attribute] = {}
        self._failure: str | None = None
        self._before: _OpenSpan | None = None
        self._ended = False
        # The call that it belongs to, and what of that has ended.
        self._root: _OpenSpan = parent._root if isinstance(parent, _OpenSpan) else self
        self._waiting: list[tuple[_OpenSpan, int]] = []
        self.made: trace.Span | None = None

    def known(self) -> trace.Span:
        """OpenTelemetry's span, which from now on there is."""
        if self.made is None:
            match self._parent:
                case _OpenSpan():
                    within = trace.set_span_in_context(self._parent.known(), context.Context())
                case context.Context():
                    within = self._parent
                case _:
                    within = propagate.extract(self._parent, context=context.Context())
            self.made = self._tracer.start_span(
                self._name, context=within, kind=_KINDS[self._kind], start_time=self._began_ns
            )
        return self.made

    @property
    def recording(self) -> bool:
        if self.made is not None:
            return self.made.is_recording()
        return self._parent.recording if isinstance(self._parent, _OpenSpan) else True

    def set(self, **attributes: Attribute) -> None:
        self._attributes.update({f"winnow.{name}": value for name, value in attributes.items()})

    def set_exact(self, attributes: Mapping[str, Attribute]) -> None:
        self._attributes.update(attributes)

    def failed(self, description: str) -> None:
        self._failure = description

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier, context=trace.set_span_in_context(self.known(), context.Context()))
        return carrier

    def end(self, at_ns: int | None = None) -> None:
        at_ns, root = at_ns or time.time_ns(), self._root
        self._ended = True
        root._waiting.append((self, at_ns))
        # What goes on after its call has ended, as a refresh in the background does, waits for nothing.
        if root._ended or len(root._waiting) >= _MOST_WAITING:
            soon(root._record)

    def _record(self) -> None:
        waiting, self._waiting = self._waiting, []
        for span, at_ns in waiting:
            made = span.known()
            if made.is_recording():
                made.set_attributes(span._attributes)
                if span._failure is not None:
                    made.set_status(StatusCode.ERROR, span._failure)
            made.end(end_time=at_ns)

    def __enter__(self) -> _OpenSpan:
        self._before = _current.get()
        _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Not by a token: an async generator may be closed in another context than it was begun in.
        _current.set(self._before)
        # A caller who goes away is no failure of the work; and which statuses are failures of a server is for who
        # serves the call to say, not for the exception behind it.
        if self._kind != "server" and isinstance(error, Exception):
            self.failed(f"{type(error).__name__}: {error}")
        self.end()


_Parent: TypeAlias = "_OpenSpan | context.Context | Mapping[str, str]"
