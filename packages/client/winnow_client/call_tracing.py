"""The span of a call to the gateway. A caller who has no OpenTelemetry in his process has none, and pays nothing."""

from __future__ import annotations

from google.protobuf.message import Message

from winnow.search.v1 import search_service_pb2
from winnow_rpc import tracing

_SERVICE = search_service_pb2.DESCRIPTOR.services_by_name["SearchService"].full_name


def call_span(method: str) -> tracing.Span:
    """A span for a method. That of a stream is not to be entered, for a stream may be read from another context each
    time: its `headers` go with the call, and `end` ends it."""
    return tracing.span(f"{_SERVICE}/{method}", "client")


def request_span(request: Message) -> tracing.Span:
    """A span for the method that a request is for: the contract names one after the other."""
    return call_span(request.DESCRIPTOR.name.removesuffix("Request"))
