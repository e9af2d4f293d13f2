"""Asks a running index for a snapshot: `python -m winnow_index.take_snapshot`, with the index's own settings.

Meant to be run beside the index, in its container or pod: it reads the same environment, so it needs no argument.
Prints the folder of the snapshot.
"""

from __future__ import annotations

import sys

import grpc
from pydantic import Field
from qdrant_client import grpc as pb
from qdrant_client.grpc import snapshots_service_pb2_grpc as snapshots_grpc

from winnow_index.settings import IndexSettings
from winnow_rpc.calling import ChannelSettings, open_channel
from winnow_rpc.serving import run
from winnow_rpc.settings import command_line, read_settings
from winnow_rpc.status import fault_from_rpc_error
from winnow_rpc.tls import ClientTls

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - what the index listens on, not this


class TakeSnapshotSettings(IndexSettings):
    """Take a snapshot of all collections of the index that runs with these settings on this machine."""

    keep: int = Field(default=0, ge=0)
    """Newest snapshots to keep, the new one included; older ones are deleted. 0 keeps all."""
    server_name: str = "index"
    """Name that the index's certificate bears, where it has one. The index is shown its own certificate in turn."""


async def _main() -> None:
    settings = read_settings(
        TakeSnapshotSettings,
        prefix="WINNOW_INDEX_",
        program="python -m winnow_index.take_snapshot",
        argv=command_line(),
    )
    folder = settings.snapshots_folder()
    try:
        async with open_channel(_channel_settings(settings)) as channel:
            stub = snapshots_grpc.SnapshotsStub(channel)  # type: ignore[no-untyped-call]
            made = (await stub.CreateFull(pb.CreateFullSnapshotRequest())).snapshot_description
            if settings.keep:
                await _delete_older(stub, settings.keep)
    except grpc.aio.AioRpcError as error:
        raise fault_from_rpc_error(error) from error
    sys.stdout.write(f"{folder / made.name}\n")


async def _delete_older(stub: snapshots_grpc.SnapshotsStub, keep: int) -> None:
    listed = await stub.ListFull(pb.ListFullSnapshotsRequest())
    for each in listed.snapshot_descriptions[:-keep]:
        await stub.DeleteFull(pb.DeleteFullSnapshotRequest(snapshot_name=each.name))


def _channel_settings(settings: TakeSnapshotSettings) -> ChannelSettings:
    own = settings.tls
    return ChannelSettings(
        target=f"{_host(settings.host)}:{settings.port}",
        idempotent={},
        tls=ClientTls(ca=own.certificate, certificate=own.certificate, key=own.key, server_name=settings.server_name)
        if own
        else None,
    )


def _host(host: str) -> str:
    return _ANY_ADDRESS.get(host, f"[{host}]" if ":" in host else host)


if __name__ == "__main__":
    run(_main, service="index")
