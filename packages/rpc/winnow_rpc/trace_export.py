"""Sends traces to an OpenTelemetry collector, if the environment names one.

The one place besides a `__main__` that reads the environment: the variables are OpenTelemetry's own
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/), the same for every program, and its
SDK reads them itself. OTEL_EXPORTER_OTLP_ENDPOINT turns tracing on; OTEL_EXPORTER_OTLP_PROTOCOL says whether it goes by
gRPC or by HTTP; OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_* and the rest do what they
do everywhere.

A collector that is away or slow holds nobody up: spans wait in a queue of bounded size, a thread sends them, and what
finds no room is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from winnow_rpc import telemetry, tracing
from winnow_rpc.faults import InvalidArgument

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = telemetry.get_logger("winnow.rpc")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_GRPC, _HTTP = "grpc", "http/protobuf"
_FLUSH_SECONDS = 2.0

_provider: TracerProvider | None = None


def endpoint(environment: Mapping[str, str]) -> str:
    """Where the environment says that traces go; empty: nowhere. Raises InvalidArgument for what is not offered."""
    found = _first(environment, _ENDPOINTS)
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporters = {name.strip() for name in environment.get("OTEL_TRACES_EXPORTER", "otlp").split(",")}
    if not found or off or "otlp" not in exporters:
        return ""
    if (protocol := _protocol(environment)) not in (_GRPC, _HTTP):
        raise InvalidArgument(
            f"{_PROTOCOLS[1]} is {protocol!r}; traces are sent by {_GRPC}, mostly to port 4317, or by {_HTTP}, mostly "
            "to port 4318",
            field=_PROTOCOLS[1],
            reason="BAD_SETTING",
        )
    return found


def start(service: str, environment: Mapping[str, str] | None = None) -> bool:
    """Begins to send traces as the environment says; whether it says so. Raises InvalidArgument as `endpoint` does.

    `service` is the name that they bear unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES give another.
    """
    environment = os.environ if environment is None else environment
    target = endpoint(environment)
    if not target:
        return False
    try:
        exporter = _exporter(_protocol(environment))
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("not traced: a package is not installed", missing=error.name, endpoint=target)
        return False
    named = "OTEL_SERVICE_NAME" in environment or f"{SERVICE_NAME}=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    # Its words about a collector that is away come with every try; ours come once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    provider = TracerProvider(
        resource=Resource.create({} if named else {SERVICE_NAME: service}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(_reporting(exporter())))
    global _provider  # noqa: PLW0603 - as in `tracing.use`
    _provider = provider
    tracing.use(provider)
    log.info("tracing", endpoint=target, protocol=_protocol(environment))
    return True


def stop(seconds: float = _FLUSH_SECONDS) -> None:
    """Sends what is left, for so long at most; then tracing is off. Nothing happens if it was not on."""
    global _provider
    provider, _provider = _provider, None
    if provider is None:
        return
    tracing.use(None)
    # A thread of our own, and one that the interpreter does not wait for: neither flushing nor closing keeps to a time.
    ending = threading.Thread(target=provider.shutdown, name="traces: shutdown", daemon=True)
    ending.start()
    ending.join(seconds)
    if ending.is_alive():
        log.warning("traces left behind: the collector did not take them in time", seconds=seconds)


async def stop_async(seconds: float = _FLUSH_SECONDS) -> None:
    """`stop`, without holding the event loop."""
    if _provider is not None:
        await asyncio.to_thread(stop, seconds)


def _first(environment: Mapping[str, str], names: Sequence[str]) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


def _protocol(environment: Mapping[str, str]) -> str:
    return _first(environment, _PROTOCOLS) or _GRPC


def _exporter(protocol: str) -> Callable[[], SpanExporter]:
    """What sends by this protocol. Raises ImportError where its package is not installed."""
    if protocol == _HTTP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

    return GrpcExporter


def _reporting(exporter: SpanExporter) -> SpanExporter:
    """An exporter that says once when traces cannot be sent, and once when they can again."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Reporting(SpanExporter):
        failing = False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = exporter.export(spans)
            failed = result is not SpanExportResult.SUCCESS
            if failed != self.failing:
                self.failing = failed
                say: Callable[[str], None] = log.warning if failed else log.info
                say("traces cannot be sent; they are dropped" if failed else "traces are sent again")
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return exporter.force_flush(timeout_millis)

    return Reporting()
