"""Asks the service of this container for its health: exit status 0 if it serves, else 1 and one line that says why.

    python healthcheck.py embedder

The port is the service's own setting (`WINNOW_EMBEDDER_PORT`). What the answer means is decided by the service: its
probe does a small piece of the real work.
"""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_SECONDS = 5.0


def main(service: str) -> int:
    """The exit status for the service of this name."""
    address = f"127.0.0.1:{os.environ[f'WINNOW_{service.upper()}_PORT']}"
    # A proxy that is meant for downloads has no business between this process and its neighbour.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            sys.stdout.write(f"{address} does not answer: {error.code().name}\n")
            return 1
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    sys.stdout.write(f"{address} says {name}\n")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
