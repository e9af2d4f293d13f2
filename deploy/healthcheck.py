"""Asks the service of this container for its health: exit status 0 if it serves, else 1 and one line that says why.

    python healthcheck.py embedder

Port and certificate are the service's own settings (`WINNOW_EMBEDDER_PORT`, `WINNOW_EMBEDDER_TLS_CERTIFICATE` and so
on). Where the service wants its clients to show a certificate, it is shown its own, which its `tls_client_ca` must have
signed then, for clients too. What the answer means is decided by the service: its probe does a small piece of the real
work.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_SECONDS = 5.0


def main(service: str) -> int:
    """The exit status for the service of this name."""
    prefix = f"WINNOW_{service.upper()}_"
    port = int(os.environ[f"{prefix}PORT"])
    address = f"127.0.0.1:{port}"
    certificate, key = os.environ.get(f"{prefix}TLS_CERTIFICATE"), os.environ.get(f"{prefix}TLS_KEY")
    try:
        with open_channel(address, certificate, key) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        sys.stdout.write(f"{address} does not answer: {error.code().name}\n")
        return 1
    except OSError as error:
        sys.stdout.write(f"{address} does not answer over TLS: {error}\n")
        return 1
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    sys.stdout.write(f"{address} says {name}\n")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def open_channel(address: str, certificate: str | None, key: str | None) -> grpc.Channel:
    """A channel to the service on this machine; over TLS where it has a certificate. Raises OSError."""
    # A proxy that is meant for downloads has no business between this process and its neighbour.
    options: list[tuple[str, int | str]] = [("grpc.enable_http_proxy", 0)]
    if not certificate or not key:
        return grpc.insecure_channel(address, options=options)
    shown = Path(certificate).read_bytes()
    options.append(("grpc.ssl_target_name_override", name_in_certificate(address, certificate, key)))
    credentials = grpc.ssl_channel_credentials(shown, Path(key).read_bytes(), shown)
    return grpc.secure_channel(address, credentials, options=options)


def name_in_certificate(address: str, certificate: str, key: str) -> str:
    """A name that the service's certificate bears, which is trusted because it is the very file that the service has.

    It bears the name that others call it by, which is hardly ever 127.0.0.1.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as connection,
        context.wrap_socket(connection) as secured,
    ):
        names = [value for _, value in (secured.getpeercert() or {}).get("subjectAltName", ())]
    if not names:
        raise OSError("its certificate bears no name")
    # A name with a star stands for many; any of them will do.
    return str(names[0]).replace("*", "any", 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
