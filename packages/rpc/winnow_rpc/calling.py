"""Opens channels: round robin over replicas, retries where they are safe, the request id carried on.

Retries and balancing are gRPC's own, set by a service config (https://github.com/grpc/grpc/blob/master/doc/service_config.md):
they stay inside the caller's deadline and stop when a server says so.
"""

from __future__ import annotations

import json
import math
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from winnow_rpc import telemetry
from winnow_rpc.faults import InvalidArgument
from winnow_rpc.secured_channel import SecuredChannel
from winnow_rpc.tls import ClientFiles, ClientTls, client_files

_LARGEST_PORT = 65_535
_VISIBLE = re.compile(r"[!-~]{1,512}")


_RETRIED = ("UNAVAILABLE", "CANCELLED")
"""The second is what a server says that is told to stop while a call waits to be taken up."""

# gRPC counts whole milliseconds, and a wait that comes to none of them never ends (grpcio 1.85).
_SHORTEST_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS = 0.01, 3600.0

RECONNECTING = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 250}
"""gRPC's options for how soon a replica is looked for again, give or take a fifth. By its default that is up to two
minutes; it has to be well within the time that a call is tried for (`Retries`), so that a replica may end as soon as
another is back."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often and how fast to repeat a call that no server took up, or whose server went away."""

    max_attempts: int = 5
    """Attempts in all, 2 to 5 (gRPC's own limit); 1 turns retries off."""
    initial_backoff_seconds: float = 0.05
    """Wait before the second attempt, give or take a fifth. All waits together are 0.75 s by default."""
    max_backoff_seconds: float = 1.0
    """The wait doubles up to this."""

    def __post_init__(self) -> None:
        """Raises InvalidArgument for waits and numbers that gRPC does not take."""
        at_least("max_attempts", self.max_attempts, 1, most=5)
        _check_wait("initial_backoff_seconds", self.initial_backoff_seconds)
        _check_wait("max_backoff_seconds", self.max_backoff_seconds)


def _check_wait(name: str, seconds: float) -> None:
    at_least(name, seconds, _SHORTEST_BACKOFF_SECONDS, most=_LONGEST_BACKOFF_SECONDS)


def at_least(name: str, value: float, least: float, *, most: float = math.inf) -> None:
    """Raises InvalidArgument (OUT_OF_RANGE) that names a setting of a client which is not within bounds."""
    if not least <= value <= most or math.isinf(value):
        if math.isinf(most):
            bounds = f"at least {least:g}" if math.isfinite(value) else f"a finite number of at least {least:g}"
        else:
            bounds = f"{least:g} to {most:.0f}"
        raise InvalidArgument(f"{name} is {value:g}; it must be {bounds}", field=name, reason="OUT_OF_RANGE")


@dataclass(frozen=True, kw_only=True)
class ChannelSettings:
    """How to reach a service."""

    target: str
    """Where it is: "host:port"; several replicas, "host:port,host:port"; or "dns:///name:port" for all addresses of a
    name. Calls go round them in turn. A replica that cannot be reached is left out, and comes back within a third of a
    second of its return."""
    idempotent: Mapping[str, Sequence[str]]
    """Full service name → its methods that may be repeated without harm; only these are retried."""
    retries: Retries = Retries()
    """How to retry them."""
    max_message_bytes: int = 32 * 1024 * 1024
    """Largest message taken or sent, in bytes."""
    silence_seconds: float | None = None
    """A replica that answers no ping for so long, 1 at least, is left out until it does; else a frozen one would keep
    its share of the calls for ever. None: only a closed connection tells."""
    tls: ClientTls | None = None
    """What to trust and show; None: plain text."""
    api_key: str | None = field(default=None, repr=False)
    """Shown with every call, as `authorization: Bearer`."""


def service_config(settings: ChannelSettings) -> str:
    """The gRPC service config, as JSON: round robin, and retries for idempotent methods."""
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    names = [
        {"service": service, "method": method} for service, methods in settings.idempotent.items() for method in methods
    ]
    if names and settings.retries.max_attempts > 1:
        policy = {
            "maxAttempts": settings.retries.max_attempts,
            "initialBackoff": f"{settings.retries.initial_backoff_seconds}s",
            "maxBackoff": f"{settings.retries.max_backoff_seconds}s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": _RETRIED,
        }
        config["methodConfig"] = [{"name": names, "retryPolicy": policy}]
    return json.dumps(config)


def grpc_target(addresses: str) -> str:
    """The gRPC target of one address, as it is, or of several "host:port" joined by commas.

    Names in a list are looked up here, once; only "dns:///name:port" follows what a name comes to mean. Raises
    InvalidArgument for what is empty or has a port beyond 65,535, for a list that holds anything else, or hosts that
    have no IP version in common.
    """
    parts = [part.strip() for part in addresses.split(",")]
    if len(parts) == 1:
        _, _, port = parts[0].rpartition(":")
        # Of a number that no port has, gRPC would take the remainder.
        if not parts[0] or (port.isdecimal() and int(port) > _LARGEST_PORT):
            raise InvalidArgument(f"{addresses!r} is not host:port", reason="BAD_ADDRESS")
        return parts[0]
    found: dict[str, list[str]] = {"ipv4": [], "ipv6": []}
    for part in parts:
        host, _, port = part.rpartition(":")
        if not host or not port.isdecimal() or int(port) > _LARGEST_PORT or "/" in host:
            raise InvalidArgument(f"{part!r} in {addresses!r} is not host:port", reason="BAD_ADDRESS")
        try:
            resolved = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            raise InvalidArgument(f"the host of {part!r} is not known: {error}", reason="BAD_ADDRESS") from error
        for family, scheme, form in ((socket.AF_INET, "ipv4", "{}:{}"), (socket.AF_INET6, "ipv6", "[{}]:{}")):
            found[scheme] += [form.format(*entry[4][:2]) for entry in resolved if entry[0] == family][:1]
    for scheme, known in found.items():
        if len(known) == len(parts):
            return f"{scheme}:{','.join(dict.fromkeys(known))}"
    raise InvalidArgument(f"the hosts of {addresses!r} have no IP version in common", reason="BAD_ADDRESS")


def open_channel(settings: ChannelSettings) -> grpc.aio.Channel:
    """A channel for asyncio. It connects on first use and reconnects by itself; close it when done.

    Raises InvalidArgument for an address that cannot be one, a key that metadata cannot carry, or TLS files that will
    not do. Later on, TLS files are read anew when they change.
    """
    if settings.tls is None and settings.api_key is None:
        return _open(settings, None)
    files = client_files(settings.tls) if settings.tls else None
    return SecuredChannel(lambda found: _open(settings, found), files, metadata=_authorization(settings.api_key))


def _open(settings: ChannelSettings, files: ClientFiles | None) -> grpc.aio.Channel:
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.service_config", service_config(settings)),
        *RECONNECTING.items(),
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ]
    if settings.silence_seconds:
        options += _pings(settings.silence_seconds)
    target, interceptors = grpc_target(settings.target), request_id_interceptors()
    if files is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    if settings.tls and settings.tls.server_name:
        options.append(("grpc.ssl_target_name_override", settings.tls.server_name))
    return grpc.aio.secure_channel(target, files.credentials, options=options, interceptors=interceptors)


def _pings(silence_seconds: float) -> list[tuple[str, int | str]]:
    """One half of the time for a ping to be due, the other for its answer."""
    half = round(1000 * silence_seconds / 2)
    return [
        ("grpc.keepalive_time_ms", half),
        ("grpc.keepalive_timeout_ms", half),
        # Of the two it is this one that ends a silent connection (grpcio 1.85).
        ("grpc.http2.ping_timeout_ms", half),
        # Also while no call is open: the next search should not be the one that finds out.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _authorization(api_key: str | None) -> list[tuple[str, str]]:
    if api_key is None:
        return []
    if not _VISIBLE.fullmatch(api_key):
        # gRPC's own words for it would hold the key.
        raise InvalidArgument("the API key is empty or holds what no key holds", field="api_key", reason="BAD_API_KEY")
    return [("authorization", f"Bearer {api_key}")]


def request_id_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """Interceptors that send the id of the request being served, and its trace, along with every call made for it."""
    return [_UnaryUnary(), _UnaryStream(), _StreamUnary(), _StreamStream()]


def _with_context(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    metadata = details.metadata if details.metadata is not None else grpc.aio.Metadata()
    added = [(key, value) for key, value in telemetry.outgoing_headers().items() if metadata.get(key) is None]
    if not added:
        return details
    return grpc.aio.ClientCallDetails(
        method=details.method,
        timeout=details.timeout,
        metadata=grpc.aio.Metadata(*metadata, *added),
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
    )


Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Any]


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_with_context(client_call_details), request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_with_context(client_call_details), request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return await continuation(_with_context(client_call_details), request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return await continuation(_with_context(client_call_details), request_iterator)
