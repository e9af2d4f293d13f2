"""A collector that only counts: it takes traces over OTLP, so that exporting is real where no collector is."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class OtlpSink(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes what is exported to `endpoint` while it is entered."""

    def __init__(self) -> None:
        self.spans: Counter[tuple[str, str]] = Counter()
        """(service.name, name of the span) → how many came."""
        self.endpoint = ""
        """What OTEL_EXPORTER_OTLP_ENDPOINT has to be, once entered."""
        self._server = grpc.aio.server()

    async def __aenter__(self) -> Self:
        # The generated function is untyped.
        add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        add(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.stop(0)

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Counts the spans of one export."""
        self.count(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def count(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        """Counts its spans."""
        for resource in request.resource_spans:
            attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
            service = attributes.get("service.name", "")
            self.spans.update((service, span.name) for scope in resource.scope_spans for span in scope.spans)
