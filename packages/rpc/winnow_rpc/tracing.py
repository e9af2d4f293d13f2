"""Spans, and the trace that crosses every hop beside the request id.

Off unless something turned it on: then a span is one shared object that does nothing, and no OpenTelemetry module is
loaded. A service turns it on with `trace_export.start`, a caller of the SDK by having OpenTelemetry in its process.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from winnow_rpc.trace_recording import Recorder

Attribute: TypeAlias = str | bool | int | float
Kind: TypeAlias = Literal["internal", "client", "server"]

# None: nobody traces.
_recorder: Recorder | None = None


class Span(Protocol):
    """A piece of work with a beginning, which is when it is made, and an end.

    `with` makes it the parent of the spans within, and ends it; an exception marks it as failed.
    """

    @property
    def recording(self) -> bool:
        """Whether anything that is set will be seen; if not, what is dear to work out need not be."""
        ...

    def set(self, **attributes: Attribute) -> None:
        """Sets attributes of ours: `winnow.` comes before each name."""
        ...

    def set_exact(self, attributes: Mapping[str, Attribute]) -> None:
        """Sets attributes under the names given, for those that OpenTelemetry's conventions lay down."""
        ...

    def failed(self, description: str) -> None:
        """Marks it as failed."""
        ...

    def headers(self) -> dict[str, str]:
        """What a call takes along to be served within this span, where the span is not the current one."""
        ...

    def end(self) -> None:
        """Ends it, where `with` does not."""
        ...

    def __enter__(self) -> Span: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class _NoSpan:
    """What every span is while nobody traces."""

    __slots__ = ()
    recording = False

    def set(self, **attributes: Attribute) -> None:
        pass

    def set_exact(self, attributes: Mapping[str, Attribute]) -> None:
        pass

    def failed(self, description: str) -> None:
        pass

    def headers(self) -> dict[str, str]:
        return {}

    def end(self) -> None:
        pass

    def __enter__(self) -> _NoSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


NO_SPAN: Span = _NoSpan()
"""The span of whoever does not trace."""


def use(provider: TracerProvider | None) -> None:
    """Traces to this provider from now on; None: not at all."""
    global _recorder  # noqa: PLW0603 - a switch of the whole process, as logging has one
    if provider is None:
        _recorder = None
        return
    from winnow_rpc.trace_recording import Recorder

    _recorder = Recorder(provider)


def adopt() -> None:
    """Traces to the provider that OpenTelemetry has in this process, if anybody loaded it at all."""
    loaded = sys.modules.get("opentelemetry.trace")
    if loaded is not None and _recorder is None:
        # A stand-in, where no provider is set yet: the spans begin with the provider.
        use(loaded.get_tracer_provider())


def span(name: str, kind: Kind = "internal") -> Span:
    """A span within the one that is current."""
    return NO_SPAN if _recorder is None else _recorder.span(name, kind)


def serving_span(name: str, metadata: Mapping[str, str]) -> Span:
    """The span of a call that is being served, within the caller's trace where the call's metadata names one."""
    return NO_SPAN if _recorder is None else _recorder.serving_span(name, metadata)


def past_span(name: str, *, began_ns: int, ended_ns: int, **attributes: Attribute) -> None:
    """Records what has ended already, within the current span. Times in nanoseconds since the epoch."""
    if _recorder is not None:
        _recorder.past_span(name, began_ns, ended_ns, attributes)


def current() -> Span:
    """The span that is current; whoever made it ends it."""
    return NO_SPAN if _recorder is None else _recorder.current()


def unsampled() -> Span:
    """To enter around work of the house, as a health probe is: neither it nor what is called for it is to be traced."""
    return NO_SPAN if _recorder is None else _recorder.unsampled()


def headers() -> dict[str, str]:
    """What a call takes along so that whoever serves it goes on with the current trace; empty outside of one."""
    return {} if _recorder is None else _recorder.headers()


def trace_id() -> str:
    """The current trace's id as 32 hexadecimal digits; empty outside of one."""
    return "" if _recorder is None else _recorder.trace_id()
