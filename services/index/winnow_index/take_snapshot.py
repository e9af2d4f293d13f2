"""Asks a running index for a snapshot: `python -m winnow_index.take_snapshot`, with the index's own settings.

Meant to be run beside the index, in its container or pod: it reads the same environment, so it needs no argument.
Prints the folder of the snapshot.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
from pydantic import Field
from qdrant_client import grpc as pb
from qdrant_client.grpc import snapshots_service_pb2_grpc as snapshots_grpc

from winnow_index.settings import COMMANDS_OWN, IndexSettings
from winnow_rpc.faults import Unavailable
from winnow_rpc.own_service import open_own_channel, own_address
from winnow_rpc.serving import run
from winnow_rpc.settings import command_line, read_settings
from winnow_rpc.status import fault_from_rpc_error


class TakeSnapshotSettings(IndexSettings):
    """Take a snapshot of all collections of the index that runs with these settings on this machine."""

    keep: int = Field(default=0, ge=0)
    """Newest snapshots to keep, the new one included; older ones are deleted. 0 keeps all."""


async def _main() -> None:
    settings = read_settings(
        TakeSnapshotSettings,
        prefix="WINNOW_INDEX_",
        program="python -m winnow_index.take_snapshot",
        argv=command_line(),
        others=COMMANDS_OWN,
    )
    sys.stdout.write(f"{await asyncio.to_thread(_take, settings)}\n")


def _take(settings: TakeSnapshotSettings) -> Path:
    address = own_address(settings.host, settings.port)
    try:
        with open_own_channel(address, certificate=settings.tls_certificate, key=settings.tls_key) as channel:
            stub = snapshots_grpc.SnapshotsStub(channel)  # type: ignore[no-untyped-call]
            made: str = stub.CreateFull(pb.CreateFullSnapshotRequest()).snapshot_description.name
            if settings.keep:
                _delete_older(stub, settings.keep)
    except grpc.RpcError as error:
        raise fault_from_rpc_error(error) from error
    except OSError as error:
        raise Unavailable(f"the index at {address} does not answer over TLS: {error}", reason="UNAVAILABLE") from error
    return settings.snapshots_folder() / made


def _delete_older(stub: snapshots_grpc.SnapshotsStub, keep: int) -> None:
    listed = stub.ListFull(pb.ListFullSnapshotsRequest())
    for each in listed.snapshot_descriptions[:-keep]:
        stub.DeleteFull(pb.DeleteFullSnapshotRequest(snapshot_name=each.name))


if __name__ == "__main__":
    run(_main, service="index")
