"""Qdrant's `Snapshots` service, as far as it concerns all collections together."""

from __future__ import annotations

import time
from typing import Any, TypeAlias

from qdrant_client import grpc as pb
from qdrant_client.grpc import snapshots_service_pb2_grpc as snapshots_grpc

from winnow_index.snapshots import Snapshot, Snapshots
from winnow_index.wire.unoffered import refuse_the_rest

Context: TypeAlias = Any


@refuse_the_rest("Snapshots")
class SnapshotsServicer(snapshots_grpc.SnapshotsServicer):
    """Reads requests, asks for snapshots, writes answers."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    async def CreateFull(self, request: pb.CreateFullSnapshotRequest, context: Context) -> pb.CreateSnapshotResponse:
        """Takes a snapshot of all collections; it is on disk when this answers."""
        began = time.perf_counter()
        made = await self._snapshots.create()
        return pb.CreateSnapshotResponse(snapshot_description=_message(made), time=time.perf_counter() - began)

    async def ListFull(self, request: pb.ListFullSnapshotsRequest, context: Context) -> pb.ListSnapshotsResponse:
        """Those that there are, oldest first."""
        began = time.perf_counter()
        found = [_message(each) for each in self._snapshots.list()]
        return pb.ListSnapshotsResponse(snapshot_descriptions=found, time=time.perf_counter() - began)

    async def DeleteFull(self, request: pb.DeleteFullSnapshotRequest, context: Context) -> pb.DeleteSnapshotResponse:
        """Deletes one by its name."""
        began = time.perf_counter()
        await self._snapshots.delete(request.snapshot_name)
        return pb.DeleteSnapshotResponse(time=time.perf_counter() - began)


def _message(snapshot: Snapshot) -> pb.SnapshotDescription:
    message = pb.SnapshotDescription(name=snapshot.name, size=snapshot.size, checksum=snapshot.checksum)
    message.creation_time.FromDatetime(snapshot.created)
    return message
