"""Runs a service: binds, answers health from real work, drains on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from winnow_rpc import telemetry, trace_export, tracing
from winnow_rpc.faults import Fault, Unavailable
from winnow_rpc.interception import FaultInterceptor
from winnow_rpc.limits import server_options
from winnow_rpc.metrics import MetricsServer, RpcMetrics, new_registry
from winnow_rpc.requesting import Authorizer, RequestInterceptor
from winnow_rpc.settings import ServingSettings
from winnow_rpc.tls import server_context, server_credentials

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = telemetry.get_logger("winnow.rpc")

LIVENESS = "liveness"
"""A name for the standard health check that is SERVING whenever the process answers at all, whatever its work and its
backends do: for those who would otherwise restart it in vain."""

_RECOVERY_PROBE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """What a service gives to be served."""

    name: str
    """Its short name, as in logs: "embedder"."""
    register: Callable[[grpc.aio.Server], None]
    """Adds its servicers to the server."""
    service_names: Sequence[str]
    """Full names of its gRPC services, for health and reflection."""
    probe: Callable[[], Awaitable[None]]
    """Does a small piece of the real work; raises if that fails. Decides what health answers."""
    close: Callable[[], Awaitable[None]]
    """Releases what the service holds; called once, after the last call has ended."""
    measure: Callable[[CollectorRegistry], None] | None = None
    """Adds the service's own metrics to a registry; called once, before it serves, and only if metrics are wanted."""
    authorizer: Authorizer | None = None
    """Decides who may call what; None: whoever can connect may call everything."""


class RunningServer:
    """A service that is bound and answering."""

    def __init__(self, service: Service, settings: ServingSettings) -> None:
        self._service = service
        self._settings = settings
        self._health = health.aio.HealthServicer()
        self._names = ("", *service.service_names)
        self._probing: asyncio.Task[None] | None = None
        self._healthy: bool | None = None
        self._registry = None if settings.metrics_port is None else new_registry()
        self._metrics = RpcMetrics(self._registry) if self._registry else None
        self._metrics_server: MetricsServer | None = None
        requests = RequestInterceptor(authorizer=service.authorizer, client_names=settings.tls_client_names)
        self._server = grpc.aio.server(
            interceptors=(FaultInterceptor(self._metrics), requests), options=server_options(settings)
        )
        self.address = ""
        """host:port that it listens on, once started."""
        self.metrics_address = ""
        """host:port of its metrics, once started; empty: none are served."""

    async def start(self) -> None:
        """Binds, starts to answer, and probes for the first time.

        Raises Unavailable if the port cannot be had, InvalidArgument if the TLS files will not do.
        """
        service, settings = self._service, self._settings
        check(settings)
        service.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._announce(healthy=False)
        if settings.offers_reflection(keys=service.authorizer is not None):
            names = (*service.service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        host = _host(settings)
        credentials = server_credentials(settings.tls) if settings.tls else None
        address = f"{host}:{settings.port}"
        try:
            if credentials:
                port = self._server.add_secure_port(address, credentials)
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise _cannot_listen(address) from error
        self.address = f"{host}:{port}"
        self._serve_metrics()
        await self._server.start()
        log.info("listening", address=self.address, tls=settings.tls is not None)
        open_ = _openings(settings, authorized=service.authorizer is not None)
        if open_ and settings.host not in ("127.0.0.1", "::1", "localhost"):
            log.warning("open to the network", address=self.address, open=open_)
        await self._probe_once()
        self._probing = asyncio.create_task(self._keep_probing(), name="health probe")

    async def stop(self) -> None:
        """Turns health to NOT_SERVING, lets calls in progress end, then closes the service."""
        if self._probing:
            self._probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probing
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.drain_seconds)
        if self._metrics_server:
            await asyncio.to_thread(self._metrics_server.close)
        await self._service.close()
        if self.address:
            log.info("stopped")

    def _serve_metrics(self) -> None:
        settings = self._settings
        if self._registry is None or settings.metrics_port is None:
            return
        if self._service.measure:
            self._service.measure(self._registry)
        tls = server_context(settings.tls) if settings.tls else None
        self._metrics_server = MetricsServer(self._registry, host=settings.host, port=settings.metrics_port, tls=tls)
        self.metrics_address = self._metrics_server.address
        log.info("metrics", address=self.metrics_address, tls=tls is not None)

    async def _keep_probing(self) -> None:
        while True:
            # What has failed is looked at more often, so that its return is soon known.
            usual = self._settings.probe_seconds
            await asyncio.sleep(usual if self._healthy else min(usual, _RECOVERY_PROBE_SECONDS))
            await self._probe_once()

    async def _probe_once(self) -> None:
        try:
            async with asyncio.timeout(self._settings.probe_timeout_seconds):
                with tracing.unsampled():
                    await self._service.probe()
        except Exception as error:  # whatever it is, the service cannot do its work
            # A probe that fails again says nothing new.
            if self._healthy is not False:
                log.error("not serving", error=str(error) or type(error).__name__)
            self._healthy = False
        else:
            if not self._healthy:
                log.info("serving", address=self.address)
            self._healthy = True
        await self._announce(healthy=self._healthy)

    async def _announce(self, *, healthy: bool) -> None:
        if self._metrics:
            self._metrics.health(serving=healthy)
        status = health_pb2.HealthCheckResponse
        for name in self._names:
            await self._health.set(name, status.SERVING if healthy else status.NOT_SERVING)


def check(settings: ServingSettings) -> None:
    """Raises what `RunningServer.start` would for these settings: for a service to know before it does what takes long,
    such as loading a model. What is wrong with the metrics' port is known at the start alone."""
    if settings.tls:
        server_credentials(settings.tls)
    address = f"{_host(settings)}:{settings.port}"
    failure: OSError | None = None
    try:
        places = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _cannot_listen(address) from error
    for family, kind, protocol, _, place in places:
        # Bound and not listened at, so that nobody is answered here; as gRPC binds, which is content with one of them.
        try:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(place)
        except OSError as error:
            failure = error
        else:
            return
    raise _cannot_listen(address) from failure


async def serve(service: Service, settings: ServingSettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains. A second signal ends the process at once.

    Traces go where OpenTelemetry's environment variables say (see `trace_export`); nowhere if they say nothing.
    """
    trace_export.start(f"winnow-{service.name}")
    server = RunningServer(service, settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            sys.exit(128 + number)
        log.info("draining", signal=number.name)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        await server.start()
        await stopping.wait()
    finally:
        await server.stop()
        await trace_export.stop_async()


def run(main: Callable[[], Coroutine[Any, Any, None]], *, service: str = "winnow") -> None:
    """Runs a service's main coroutine; a Fault is one sentence on standard error and exit status 1."""
    # Until the settings are read: what is wrong with them must come out in the usual form too.
    telemetry.configure_logging(service=service)
    _raise_open_files()
    try:
        asyncio.run(main())
    except Fault as fault:
        telemetry.get_logger("winnow.rpc").error("cannot start", reason=fault.reason, message=fault.message)
        sys.exit(1)


def _host(settings: ServingSettings) -> str:
    return f"[{settings.host}]" if ":" in settings.host else settings.host


def _cannot_listen(address: str) -> Unavailable:
    return Unavailable(
        f"cannot listen on {address}: the port is in use, or the address is not of this machine",
        reason="CANNOT_LISTEN",
        metadata={"address": address},
    )


def _openings(settings: ServingSettings, *, authorized: bool) -> list[str]:
    """What stands open to whoever reaches the port, in words."""
    found = []
    if not settings.tls:
        found.append("traffic can be read on the way: no tls_certificate")
    if not authorized and not settings.tls_client_ca:
        found.append("anyone may call: neither API keys nor tls_client_ca")
    if settings.metrics_port is not None and not settings.tls_client_ca:
        found.append("anyone may read the metrics: no tls_client_ca")
    return found


def _raise_open_files() -> None:
    """As many open files as the system allows: each connection is one, and the usual limit is meant for `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
