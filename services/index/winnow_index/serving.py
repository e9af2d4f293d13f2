"""The index as a service: its parts, put together from values."""

from __future__ import annotations

from typing import Any

import grpc
from qdrant_client.grpc import collections_service_pb2_grpc as collections_grpc
from qdrant_client.grpc import points_service_pb2_grpc as points_grpc
from qdrant_client.grpc import qdrant_pb2_grpc as qdrant_grpc
from qdrant_client.grpc import snapshots_service_pb2_grpc as snapshots_grpc

from winnow_index.collections_servicer import CollectionsServicer, QdrantServicer
from winnow_index.metrics import measure
from winnow_index.optimizing import Optimizer
from winnow_index.points_servicer import PointsServicer
from winnow_index.settings import IndexSettings
from winnow_index.snapshots import Snapshots
from winnow_index.snapshots_servicer import SnapshotsServicer
from winnow_index.store import Store
from winnow_index.wire.definitions import JsonCodec
from winnow_rpc.serving import Service

SERVICE_NAMES = ("qdrant.Qdrant", "qdrant.Collections", "qdrant.Points", "qdrant.Snapshots")


def open_service(settings: IndexSettings) -> Service:
    """Opens the data directory and starts the optimizer. Needs a running loop. Raises the faults of `Store.open`."""
    limits = settings.limits()
    store = Store.open(settings.data_dir, JsonCodec(), reserve_bytes=settings.disk_reserve_bytes)
    optimizer = Optimizer(store, settings.optimizer_options())
    optimizer.start()
    snapshots = Snapshots(store, settings.snapshots_folder(), reserve_bytes=settings.disk_reserve_bytes)
    snapshots.sweep()

    def register(server: grpc.aio.Server) -> None:
        collections = CollectionsServicer(
            store, optimizer, limits=limits, indexing_threshold=settings.indexing_threshold_kb
        )
        _add(qdrant_grpc.add_QdrantServicer_to_server, QdrantServicer(), server)
        _add(collections_grpc.add_CollectionsServicer_to_server, collections, server)
        _add(points_grpc.add_PointsServicer_to_server, PointsServicer(store, limits), server)
        _add(snapshots_grpc.add_SnapshotsServicer_to_server, SnapshotsServicer(snapshots), server)

    async def probe() -> None:
        for collection in store:
            collection.info()

    async def close() -> None:
        await optimizer.stop()
        await store.close()

    return Service(
        name="index",
        register=register,
        service_names=SERVICE_NAMES,
        probe=probe,
        close=close,
        measure=lambda registry: measure(registry, store, optimizer, folder=settings.data_dir),
    )


def _add(adder: Any, servicer: object, server: grpc.aio.Server) -> None:
    # The generated functions are untyped.
    adder(servicer, server)
