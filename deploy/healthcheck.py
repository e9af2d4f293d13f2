"""Asks the service of this container for its health: exit status 0 if it serves, else 1 and one line that says why.

    python healthcheck.py embedder
    python healthcheck.py gateway liveness

Host, port and certificate are the service's own settings (`WINNOW_EMBEDDER_HOST`, `WINNOW_EMBEDDER_PORT`,
`WINNOW_EMBEDDER_TLS_CERTIFICATE` and so on). Where the service wants its clients to show a certificate, it is shown its
own, which its `tls_client_ca` must have signed then, for clients too. What the answer means is decided by the service:
its probe does a small piece of the real work. `liveness` asks whether the process answers at all, whatever it can do.
"""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from winnow_rpc.own_service import open_own_channel, own_address

TIMEOUT_SECONDS = 5.0


def main(service: str, asked: str = "") -> int:
    """The exit status for the service of this name, and the name that its health is asked under."""

    def setting(name: str) -> str:
        return os.environ.get(f"WINNOW_{service.upper()}_{name}", "")

    address = own_address(setting("HOST"), int(setting("PORT")))
    try:
        with open_own_channel(address, certificate=setting("TLS_CERTIFICATE"), key=setting("TLS_KEY")) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(service=asked), timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        sys.stdout.write(f"{address} does not answer: {error.code().name}\n")
        return 1
    except OSError as error:
        sys.stdout.write(f"{address} does not answer over TLS: {error}\n")
        return 1
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    sys.stdout.write(f"{address} says {name}\n")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
