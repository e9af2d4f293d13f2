"""A channel to a service from beside it: from its own container, with its own settings and its own certificate.

Loads nothing but gRPC: a health check that starts a Python every few seconds should not read a framework for it.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import grpc

_HANDSHAKE_SECONDS = 5.0
# What a service listens on when it listens to all, and how it is reached from beside it.
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - this listens on nothing


def own_address(host: str, port: int) -> str:
    """host:port at which a service that listens on `host` is reached from its own machine."""
    return f"{_LOOPBACK.get(host) or (f'[{host}]' if ':' in host else host)}:{port}"


def open_own_channel(address: str, *, certificate: str | Path | None, key: str | Path | None) -> grpc.Channel:
    """A channel to the service at `address`, over TLS where it has a certificate; raises OSError if that cannot be.

    It is trusted because it shows the very file that is given here, and it is shown the same in turn: where it wants
    clients to show one, its `tls_client_ca` must have signed its own, for clients too.
    """
    # A proxy that is meant for downloads has no business between this process and its neighbour.
    options: list[tuple[str, int | str]] = [("grpc.enable_http_proxy", 0)]
    if not certificate or not key:
        return grpc.insecure_channel(address, options=options)
    shown = Path(certificate).read_bytes()
    options.append(("grpc.ssl_target_name_override", _name_in_certificate(address, certificate, key)))
    credentials = grpc.ssl_channel_credentials(shown, Path(key).read_bytes(), shown)
    return grpc.secure_channel(address, credentials, options=options)


def _name_in_certificate(address: str, certificate: str | Path, key: str | Path) -> str:
    """A name that the service's certificate bears: the one that others call it by, which is hardly ever 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host.strip("[]"), int(port)), timeout=_HANDSHAKE_SECONDS) as connection,
        context.wrap_socket(connection) as secured,
    ):
        names = [str(entry[1]) for entry in (secured.getpeercert() or {}).get("subjectAltName", ())]
    if not names:
        raise OSError("its certificate bears no name")
    # A name with a star stands for many; any of them will do.
    return names[0].replace("*", "any", 1)
