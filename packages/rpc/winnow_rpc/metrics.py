"""Metrics for Prometheus: what every service counts, and the port on which they are read.

Each service has a registry of its own. A name begins with `winnow_`; units are seconds, bytes and tokens. Labels take
few values: never an id, a text, or a name that callers choose, or a registry would grow with its callers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from winnow_rpc import telemetry
from winnow_rpc.faults import Fault, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable
from winnow_rpc.reloading import Reloaded

log = telemetry.get_logger("winnow.rpc")

T = TypeVar("T")

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds of a histogram of times: from a query's inference to a caller's patience."""

# Reasons are constants of ours, but a backend's pass through the gateway, and it may be of another version.
_MOST_REASONS = 64
_SLOWEST_SCRAPE_SECONDS = 5.0
_SILENCE_SECONDS = 5.0
# How long closing waits for the thread to look up.
_POLL_SECONDS = 0.05


def new_registry() -> CollectorRegistry:
    """A registry with what is known of every process: memory, time on the processor, open files, collections of
    garbage."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class RpcMetrics:
    """Counts the calls of a service. Health checks and reflection are none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "winnow_rpc_requests", "Calls that have ended, by status.", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "winnow_rpc_seconds",
            "Time of calls; of a stream, until its end.",
            ["method"],
            registry=registry,
            buckets=SECONDS,
        )
        self._refusals = Counter(
            "winnow_refusals",
            "Work refused for want of room or of right, by reason.",
            ["reason"],
            registry=registry,
        )
        self._serving = Gauge("winnow_serving", "1 while the health probe succeeds, else 0.", registry=registry)
        self._reasons: set[str] = set()

    def ended(self, method: str, code: str, seconds: float) -> None:
        """Counts a call: its full method as "package.Service/Method", its status as "NOT_FOUND", and its time."""
        self._requests.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)

    def refused(self, fault: Fault) -> None:
        """Counts a fault if it is a refusal: too much at once, or a caller who may not."""
        if not isinstance(fault, ResourceExhausted | Unauthenticated | PermissionDenied):
            return
        if len(self._reasons) < _MOST_REASONS:
            self._reasons.add(fault.reason)
        self._refusals.labels(fault.reason if fault.reason in self._reasons else "OTHER").inc()

    def health(self, *, serving: bool) -> None:
        """Notes what the probe found."""
        self._serving.set(serving)


def on_loop(read: Callable[[], T]) -> Callable[[], T]:
    """`read`, from any thread, run on the event loop that runs now: what a loop owns is read by nobody else.

    Raises TimeoutError where the loop does not get to it within seconds.
    """
    loop = asyncio.get_running_loop()

    async def on_it() -> T:
        return read()

    def ask() -> T:
        try:
            inside = asyncio.get_running_loop() is loop
        except RuntimeError:
            inside = False
        if inside:
            return read()
        return asyncio.run_coroutine_threadsafe(on_it(), loop).result(_SLOWEST_SCRAPE_SECONDS)

    return ask


class MetricsServer:
    """Serves a registry over HTTP, at /metrics, from a thread of its own."""

    def __init__(
        self, registry: CollectorRegistry, *, host: str, port: int, tls: Reloaded[ssl.SSLContext] | None = None
    ) -> None:
        """Binds; port 0 takes a free one. `tls`: over HTTPS, to whoever it lets in.

        Raises Unavailable if the port cannot be had.
        """
        try:
            self._server = make_server(
                host, port, _only_metrics(make_wsgi_app(registry)), _server_class(host, tls), handler_class=_Handler
            )
        except OSError as error:
            raise Unavailable(
                f"cannot serve metrics on {host}:{port}: {error.strerror or error}",
                reason="CANNOT_LISTEN",
                metadata={"address": f"{host}:{port}"},
            ) from error
        self.address = f"[{host}]:{self._server.server_port}" if ":" in host else f"{host}:{self._server.server_port}"
        """host:port that it listens on."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=[_POLL_SECONDS], name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stops serving. Blocks for a moment."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(WSGIRequestHandler):
    # Who says nothing for so long is hung up on.
    timeout = _SILENCE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """No line for every scrape."""


def _server_class(host: str, tls: Reloaded[ssl.SSLContext] | None) -> type[ThreadingWSGIServer]:
    class Server(ThreadingWSGIServer):
        address_family = socket.getaddrinfo(host, None)[0][0]

        def finish_request(self, request: Any, client_address: Any) -> None:
            """Answers one connection, on a thread of its own: the handshake of one holds up no other."""
            if tls is None:
                super().finish_request(request, client_address)
                return
            request.settimeout(_SILENCE_SECONDS)
            try:
                secured = tls.current().wrap_socket(request, server_side=True)
            except OSError as error:
                log.info("metrics: no connection over TLS", peer=client_address[0], error=str(error))
                return
            with secured:
                super().finish_request(secured, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A scraper that hangs up is nothing to print a traceback for."""

    return Server


def _only_metrics(app: Any) -> Any:
    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if environ.get("PATH_INFO") != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"metrics are at /metrics\n"]
        return app(environ, start_response)

    return answer
