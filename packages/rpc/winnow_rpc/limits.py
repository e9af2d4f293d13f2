"""What a server allows its connections: the settings as gRPC's channel arguments.

The names are those of https://github.com/grpc/grpc/blob/master/include/grpc/impl/channel_arg_names.h.
"""

from __future__ import annotations

from winnow_rpc.settings import ServingSettings

_UNLIMITED = 2**31 - 1
_KEEPALIVE_TIMEOUT_MS = 20_000
_SHORTEST_PING_INTERVAL_MS = 400


def server_options(settings: ServingSettings) -> list[tuple[str, int]]:
    """Channel arguments of a server."""
    options = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Else a second process would share the port in silence, and each would get half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # The grace stays unlimited, as it is by default: a long stream ends when it ends.
        ("grpc.max_connection_age_ms", _millis(settings.max_connection_age_seconds)),
        ("grpc.max_connection_idle_ms", _millis(settings.max_connection_idle_seconds)),
        ("grpc.server_handshake_timeout_ms", _millis(settings.handshake_timeout_seconds)),
        ("grpc.keepalive_time_ms", _millis(settings.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        # Of the two it is this one that ends a silent connection (grpcio 1.85), after a minute unless it is set.
        ("grpc.http2.ping_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        # Clients keep idle connections alive through proxies, and the gateway wants to know soon when a replica is
        # frozen; without this the server would hang up on them.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _SHORTEST_PING_INTERVAL_MS),
    ]
    if settings.max_connections:
        options.append(("grpc.max_allowed_incoming_connections", settings.max_connections))
    return options


def _millis(seconds: float) -> int:
    return round(seconds * 1000) if seconds else _UNLIMITED
