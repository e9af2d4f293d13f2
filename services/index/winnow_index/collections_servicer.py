"""Qdrant's `Collections` service, and its `HealthCheck`."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.metadata import version
from typing import Any, TypeAlias

from qdrant_client import grpc as pb
from qdrant_client.grpc import collections_service_pb2_grpc as collections_grpc
from qdrant_client.grpc import qdrant_pb2_grpc as qdrant_grpc

from winnow_index.collection import Collection
from winnow_index.definition import Definition
from winnow_index.optimizing import Optimizer
from winnow_index.schema import Limits
from winnow_index.store import Store, no_such_alias
from winnow_index.wire import configs, indexes, refusals
from winnow_index.wire.definitions import WireConfiguration, message_of
from winnow_index.wire.unoffered import refuse_the_rest
from winnow_rpc.faults import AlreadyExists, InvalidArgument

Context: TypeAlias = Any


class QdrantServicer(qdrant_grpc.QdrantServicer):
    """Says who is there."""

    async def HealthCheck(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckReply:
        """Title and version. The title is not Qdrant's: this is a small service that speaks its protocol."""
        return pb.HealthCheckReply(title="winnow-index, Qdrant's protocol", version=version("winnow-index"))


@refuse_the_rest("Collections")
class CollectionsServicer(collections_grpc.CollectionsServicer):
    """Reads requests, asks the store, writes answers."""

    def __init__(self, store: Store, optimizer: Optimizer, *, limits: Limits, indexing_threshold: int) -> None:
        self._store = store
        self._optimizer = optimizer
        self._limits = limits
        self._indexing_threshold = indexing_threshold

    async def Create(self, request: pb.CreateCollection, context: Context) -> pb.CollectionOperationResponse:
        """Makes a collection."""
        began = time.perf_counter()
        refusals.unknown_fields(request)
        refusals.unknown_choices(request)
        name = refusals.collection_name(request.collection_name)
        config = configs.from_create(request, limits=self._limits, indexing_threshold=self._indexing_threshold)
        await self._store.create(name, WireConfiguration(config))
        return _done(began)

    async def Update(self, request: pb.UpdateCollection, context: Context) -> pb.CollectionOperationResponse:
        """Changes graph, optimizer and quantization settings, and metadata."""
        began = time.perf_counter()
        refusals.unknown_fields(request)
        refusals.unknown_choices(request)
        collection = self._store.get(request.collection_name)

        def change(definition: Definition) -> Definition:
            config = configs.apply_update(message_of(definition), request, self._limits)
            rebuilt = request.HasField("hnsw_config") or request.HasField("quantization_config")
            lags = definition.graph_lags or (rebuilt and collection.graph_vectors() > 0)
            return replace(definition, configuration=WireConfiguration(config), graph_lags=lags)

        await collection.redefine(change)
        return _done(began)

    async def Delete(self, request: pb.DeleteCollection, context: Context) -> pb.CollectionOperationResponse:
        """Deletes a collection; false if there was none."""
        began = time.perf_counter()
        refusals.unknown_fields(request)
        existed = await self._store.delete(request.collection_name)
        return pb.CollectionOperationResponse(result=existed, time=time.perf_counter() - began)

    async def List(self, request: pb.ListCollectionsRequest, context: Context) -> pb.ListCollectionsResponse:
        """Names of all collections."""
        began = time.perf_counter()
        names = [pb.CollectionDescription(name=name) for name in self._store.names()]
        return pb.ListCollectionsResponse(collections=names, time=time.perf_counter() - began)

    async def CollectionExists(
        self, request: pb.CollectionExistsRequest, context: Context
    ) -> pb.CollectionExistsResponse:
        """Whether there is a collection or alias of a name."""
        began = time.perf_counter()
        exists = pb.CollectionExists(exists=self._store.has(request.collection_name))
        return pb.CollectionExistsResponse(result=exists, time=time.perf_counter() - began)

    async def Get(self, request: pb.GetCollectionInfoRequest, context: Context) -> pb.GetCollectionInfoResponse:
        """Counts, configuration, payload indexes and state of a collection."""
        began = time.perf_counter()
        refusals.unknown_fields(request)
        info = self._info(self._store.get(request.collection_name))
        return pb.GetCollectionInfoResponse(result=info, time=time.perf_counter() - began)

    def _info(self, collection: Collection) -> pb.CollectionInfo:
        counts, definition = collection.info(), collection.definition
        busy = collection.building or self._optimizer.wants_build(collection)
        info = pb.CollectionInfo(
            status=pb.CollectionStatus.Yellow if busy else pb.CollectionStatus.Green,
            optimizer_status=pb.OptimizerStatus(ok=collection.build_error is None, error=collection.build_error or ""),
            segments_count=counts.segments_count,
            points_count=counts.points_count,
            indexed_vectors_count=counts.indexed_vectors_count,
            config=message_of(definition),
            update_queue=pb.UpdateQueueInfo(length=0),
        )
        info.created_at.FromMilliseconds(int(definition.created_at * 1000))
        for field, index in definition.indexes.items():
            if isinstance(index, indexes.IndexRequest):
                present = counts.payload_schema.get(field)
                info.payload_schema[field].CopyFrom(index.info(present.points if present else 0))
        return info

    async def UpdateAliases(self, request: pb.ChangeAliases, context: Context) -> pb.CollectionOperationResponse:
        """Creates, renames and deletes aliases, all or none."""
        began = time.perf_counter()
        refusals.unknown_fields(request)
        await self._store.change_aliases(lambda aliases: _changed(aliases, request))
        return _done(began)

    async def ListAliases(self, request: pb.ListAliasesRequest, context: Context) -> pb.ListAliasesResponse:
        """All aliases."""
        return self._aliases(None)

    async def ListCollectionAliases(
        self, request: pb.ListCollectionAliasesRequest, context: Context
    ) -> pb.ListAliasesResponse:
        """The aliases of one collection."""
        return self._aliases(self._store.get(request.collection_name).name)

    def _aliases(self, collection: str | None) -> pb.ListAliasesResponse:
        began = time.perf_counter()
        found = [
            pb.AliasDescription(alias_name=alias, collection_name=target)
            for alias, target in sorted(self._store.aliases().items())
            if collection in (None, target)
        ]
        return pb.ListAliasesResponse(aliases=found, time=time.perf_counter() - began)


def _done(began: float) -> pb.CollectionOperationResponse:
    return pb.CollectionOperationResponse(result=True, time=time.perf_counter() - began)


def _changed(aliases: dict[str, str], request: pb.ChangeAliases) -> dict[str, str]:
    for n, action in enumerate(request.actions):
        field = f"actions[{n}]"
        match action.WhichOneof("action"):
            case "create_alias":
                # An alias that exists is moved, as in Qdrant: that is how a collection is replaced at once.
                alias = refusals.collection_name(action.create_alias.alias_name, f"{field}.alias_name")
                aliases[alias] = action.create_alias.collection_name
            case "rename_alias":
                old, new = action.rename_alias.old_alias_name, action.rename_alias.new_alias_name
                if old not in aliases:
                    raise no_such_alias(old)
                if new in aliases:
                    raise AlreadyExists(f"Wrong input: Alias `{new}` already exists", reason="ALIAS_EXISTS")
                aliases[refusals.collection_name(new, f"{field}.new_alias_name")] = aliases.pop(old)
            case "delete_alias":
                aliases.pop(action.delete_alias.alias_name, None)
            case _:
                raise InvalidArgument(f"{field}: the action is empty", field=field, reason="EMPTY_INPUT")
    return aliases
