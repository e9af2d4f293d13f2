"""Qdrant's `Points` service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import qdrant_edge as edge
from qdrant_client import grpc as pb
from qdrant_client.grpc import points_service_pb2_grpc as points_grpc

from winnow_index import groups
from winnow_index.changes import Change
from winnow_index.collection import Collection
from winnow_index.engine import Guard, PointId
from winnow_index.schema import Limits
from winnow_index.store import Store
from winnow_index.wire import answers, filters, ids, indexes, query_forms, refusals, vectors
from winnow_index.wire.queries import QueryReader, Scope, at_least_one, order_by, with_payload, with_vectors
from winnow_index.wire.unoffered import refuse_the_rest
from winnow_index.wire.writes import WriteReader
from winnow_rpc.faults import InvalidArgument, NotFound

Context: TypeAlias = Any


# Points that are read and written into an answer at once: some milliseconds of the event loop, as for a write.
_SLICE = 256


async def _breathe() -> None:
    await asyncio.sleep(0)


async def _in_slices(points: Sequence[Any], write: Callable[[Sequence[Any]], None]) -> None:
    """Writes points into an answer, with room for others in between."""
    for start in range(0, len(points), _SLICE):
        if start:
            await _breathe()
        write(points[start : start + _SLICE])


@refuse_the_rest("Points")
class PointsServicer(points_grpc.PointsServicer):
    """Reads requests, asks collections, writes answers."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    # Writes.

    async def Upsert(self, request: pb.UpsertPoints, context: Context) -> pb.PointsOperationResponse:
        """Inserts or replaces points."""
        began, collection = self._begin(request)
        change = await self._writes(collection).upsert(request, _breathe)
        return await self._write(collection, [change], request, began)

    async def Delete(self, request: pb.DeletePoints, context: Context) -> pb.PointsOperationResponse:
        """Deletes points by ids or filter."""
        began, collection = self._begin(request)
        return await self._write(collection, [self._writes(collection).delete_points(request)], request, began)

    async def UpdateVectors(self, request: pb.UpdatePointVectors, context: Context) -> pb.PointsOperationResponse:
        """Replaces some vectors of points."""
        began, collection = self._begin(request)
        change = await self._writes(collection).update_vectors(request, _breathe)
        return await self._write(collection, [change], request, began)

    async def DeleteVectors(self, request: pb.DeletePointVectors, context: Context) -> pb.PointsOperationResponse:
        """Deletes some vectors of points."""
        began, collection = self._begin(request)
        return await self._write(collection, [self._writes(collection).delete_vectors(request)], request, began)

    async def SetPayload(self, request: pb.SetPayloadPoints, context: Context) -> pb.PointsOperationResponse:
        """Merges into payloads."""
        began, collection = self._begin(request)
        return await self._write(collection, [self._writes(collection).set_payload(request)], request, began)

    async def OverwritePayload(self, request: pb.SetPayloadPoints, context: Context) -> pb.PointsOperationResponse:
        """Replaces payloads."""
        began, collection = self._begin(request)
        return await self._write(collection, [self._writes(collection).overwrite_payload(request)], request, began)

    async def DeletePayload(self, request: pb.DeletePayloadPoints, context: Context) -> pb.PointsOperationResponse:
        """Deletes paths from payloads."""
        began, collection = self._begin(request)
        return await self._write(collection, [self._writes(collection).delete_payload(request)], request, began)

    async def ClearPayload(self, request: pb.ClearPayloadPoints, context: Context) -> pb.PointsOperationResponse:
        """Deletes whole payloads."""
        began, collection = self._begin(request)
        return await self._write(collection, [self._writes(collection).clear_payload(request)], request, began)

    async def UpdateBatch(self, request: pb.UpdateBatchPoints, context: Context) -> pb.UpdateBatchResponse:
        """Several writes in order, none of others between them. All are validated before the first is applied."""
        began, collection = self._begin(request)
        refusals.too_many(request.operations, limit=self._limits.max_batch, field="operations")
        reader = self._writes(collection)
        changes = [
            await reader.operation(each, _breathe, f"operations[{n}]") for n, each in enumerate(request.operations)
        ]
        number = await collection.write(changes, wait=request.wait)
        result = _update_result(number, wait=request.wait)
        return pb.UpdateBatchResponse(result=[result] * len(changes), time=time.perf_counter() - began)

    async def CreateFieldIndex(
        self, request: pb.CreateFieldIndexCollection, context: Context
    ) -> pb.PointsOperationResponse:
        """Indexes a field of the payload."""
        began, collection = self._begin(request)
        field = filters.checked_key(request.field_name, "field_name")
        number = await collection.create_index(field, indexes.from_wire(request), wait=request.wait)
        return _operation(number, began, wait=request.wait)

    async def DeleteFieldIndex(
        self, request: pb.DeleteFieldIndexCollection, context: Context
    ) -> pb.PointsOperationResponse:
        """Removes an index from a field of the payload."""
        began, collection = self._begin(request)
        field = filters.checked_key(request.field_name, "field_name")
        number = await collection.delete_index(field, wait=request.wait)
        return _operation(number, began, wait=request.wait)

    # Reads.

    async def Get(self, request: pb.GetPoints, context: Context) -> pb.GetResponse:
        """Points by id, in the order of the request; those that are not there are left out."""
        began, collection = self._begin(request)
        refusals.shard_keys(request)
        refusals.too_many(request.ids, limit=self._limits.max_batch, field="ids")
        wanted = with_vectors(request, collection.definition.configuration.schema)
        records = _retrieve(
            collection, ids.many_from_wire(request.ids, "ids"), with_payload(request, default=True), wanted
        )
        response = pb.GetResponse()
        await _in_slices(records, lambda some: answers.retrieved(response.result, some, wanted))
        response.time = time.perf_counter() - began
        return response

    async def Scroll(self, request: pb.ScrollPoints, context: Context) -> pb.ScrollResponse:
        """A page of points, by id or by a field of the payload."""
        began, collection = self._begin(request)
        refusals.shard_keys(request)
        limit = at_least_one(request.limit, "limit") if request.HasField("limit") else 10
        refusals.limit_too_large(limit=limit, offset=0, limits=self._limits)
        order = None
        if request.HasField("order_by"):
            order = order_by(request.order_by, collection.definition.indexes, "order_by")
            if request.HasField("offset"):
                raise InvalidArgument(
                    "offset: cannot be used with order_by; use order_by.start_from", field="offset", reason="BAD_OFFSET"
                )
        wanted = with_vectors(request, collection.definition.configuration.schema)
        scroll = edge.ScrollRequest(
            offset=ids.from_wire(request.offset, "offset") if request.HasField("offset") else None,
            limit=limit,
            filter=_filter(request),
            with_payload=with_payload(request, default=True),
            with_vector=wanted,
            order_by=order,
        )
        with Guard("scroll"):
            records, following = collection.shard.scroll(scroll)
        response = pb.ScrollResponse()
        await _in_slices(records, lambda some: answers.retrieved(response.result, some, wanted))
        if following is not None and order is None:
            response.next_page_offset.CopyFrom(ids.to_wire(cast(PointId, following)))
        response.time = time.perf_counter() - began
        return response

    async def Count(self, request: pb.CountPoints, context: Context) -> pb.CountResponse:
        """How many points a filter matches."""
        began, collection = self._begin(request)
        refusals.shard_keys(request)
        exact = request.exact if request.HasField("exact") else True
        count = edge.CountRequest(exact=exact, filter=_filter(request))
        with Guard("count"):
            number = collection.shard.count(count)
        return pb.CountResponse(result=pb.CountResult(count=number), time=time.perf_counter() - began)

    async def Facet(self, request: pb.FacetCounts, context: Context) -> pb.FacetResponse:
        """How often each value of a field occurs."""
        began, collection = self._begin(request)
        refusals.shard_keys(request)
        key = filters.checked_key(request.key, "key")
        index = collection.definition.indexes.get(key)
        if index is None or not index.can_count:
            raise InvalidArgument(
                f"Bad request: No appropriate index for faceting: `{key}`. Please create one to facet on this field",
                field="key",
                reason="NO_MATCH_INDEX",
            )
        limit = at_least_one(request.limit, "limit") if request.HasField("limit") else 10
        refusals.limit_too_large(limit=limit, offset=0, limits=self._limits)
        facet = edge.FacetRequest(key, limit=limit, exact=request.exact, filter=_filter(request))
        with Guard("count values"):
            found = collection.shard.facet(facet)
        response = pb.FacetResponse()
        answers.facet_hits(response.hits, found.hits)
        response.time = time.perf_counter() - began
        return response

    async def Query(self, request: pb.QueryPoints, context: Context) -> pb.QueryResponse:
        """The best points by a query of any kind."""
        began, collection = self._begin(request)
        response = pb.QueryResponse()
        await self._query(collection, request, response.result)
        response.time = time.perf_counter() - began
        return response

    async def QueryBatch(self, request: pb.QueryBatchPoints, context: Context) -> pb.QueryBatchResponse:
        """Several queries; the event loop is free between them."""
        began, collection = self._begin(request)
        refusals.too_many(request.query_points, limit=self._limits.max_batch, field="query_points")
        response = pb.QueryBatchResponse()
        for n, query in enumerate(request.query_points):
            if n:
                await _breathe()
            await self._query(collection, query, response.result.add().result)
        response.time = time.perf_counter() - began
        return response

    async def Search(self, request: pb.SearchPoints, context: Context) -> pb.SearchResponse:
        """The older form of a query by vector."""
        began, collection = self._begin(request)
        response = pb.SearchResponse()
        await self._query(collection, query_forms.query_of(request), response.result)
        response.time = time.perf_counter() - began
        return response

    async def SearchBatch(self, request: pb.SearchBatchPoints, context: Context) -> pb.SearchBatchResponse:
        """The older form of several queries by vector."""
        began, collection = self._begin(request)
        refusals.too_many(request.search_points, limit=self._limits.max_batch, field="search_points")
        response = pb.SearchBatchResponse()
        for n, search in enumerate(request.search_points):
            if n:
                await _breathe()
            await self._query(collection, query_forms.query_of(search), response.result.add().result)
        response.time = time.perf_counter() - began
        return response

    async def QueryGroups(self, request: pb.QueryPointGroups, context: Context) -> pb.QueryGroupsResponse:
        """The best groups of points that share a value."""
        began, collection = self._begin(request)
        refusals.shard_keys(request)
        key = filters.checked_key(request.group_by, "group_by")
        size = at_least_one(request.group_size, "group_size") if request.HasField("group_size") else 3
        limit = at_least_one(request.limit, "limit") if request.HasField("limit") else 10
        refusals.limit_too_large(limit=limit * size, offset=0, limits=self._limits, field="limit × group_size")
        wanted = with_vectors(request, collection.definition.configuration.schema)
        selector = with_payload(request, default=False)
        lookup = query_forms.lookup_of(request, self._store)
        search = self._group_search(collection, query_forms.ungrouped(request), key, size)
        found = await groups.collect(search, limit=limit, size=size, refine=not request.prefetch)
        chosen = list(dict.fromkeys(cast(PointId, hit.id) for group in found for hit in group.hits))
        records = {record.id: record for record in _retrieve(collection, chosen, selector, wanted)}
        response = pb.QueryGroupsResponse()
        for group in found:
            message = response.result.groups.add()
            query_forms.fill_group_id(message.id, group.value)
            # One may have been deleted since it was found.
            answers.group_hits(message.hits, [hit for hit in group.hits if hit.id in records], records, wanted)
            if lookup is not None:
                lookup.fill(message.lookup, group.value)
        response.time = time.perf_counter() - began
        return response

    # What they share.

    def _begin(self, request: Any) -> tuple[float, Collection]:
        began = time.perf_counter()
        refusals.unknown_fields(request)
        return began, self._store.get(request.collection_name)

    def _writes(self, collection: Collection) -> WriteReader:
        return WriteReader(collection.definition.configuration.schema, self._limits)

    @staticmethod
    async def _write(
        collection: Collection, changes: Sequence[Change], request: Any, began: float
    ) -> pb.PointsOperationResponse:
        number = await collection.write(changes, wait=request.wait)
        return _operation(number, began, wait=request.wait)

    def _scope(self, collection: Collection) -> Scope:
        definition = collection.definition

        def lookup(other: str, point_id: PointId, name: str, field: str) -> vectors.EngineVector:
            return _stored_vector(self._store.get(other) if other else collection, point_id, name, field)

        return Scope(
            collection=collection.name,
            schema=definition.configuration.schema,
            indexes=definition.indexes,
            limits=self._limits,
            lookup=lookup,
            exact_filters=definition.graph_lags,
        )

    async def _query(self, collection: Collection, request: pb.QueryPoints, target: Any) -> None:
        refusals.shard_keys(request)
        wanted = with_vectors(request, collection.definition.configuration.schema)
        query = QueryReader(self._scope(collection)).read(request)
        with Guard("search"):
            points = collection.shard.query(query)
        await _in_slices(points, lambda some: answers.scored(target, some, wanted))

    def _group_search(
        self, collection: Collection, request: pb.QueryPoints, key: str, size: int
    ) -> groups.Search[edge.ScoredPoint]:
        reader = QueryReader(self._scope(collection))
        request.with_payload.include.fields.append(key)

        async def search(
            *, limit: int, without: Sequence[groups.GroupValue], only: groups.GroupValue | None
        ) -> list[tuple[edge.ScoredPoint, list[groups.GroupValue]]]:
            # A search for each group: together they may take seconds.
            await _breathe()
            extra = query_forms.group_filter(key, without=without, only=only)
            query = reader.read(request, limit=limit, extra=extra, prefetch_factor=size)
            with Guard("search for groups"):
                points = collection.shard.query(query)
            return [(point, groups.values_at(point.payload, key)) for point in points]

        return search


def _filter(request: Any) -> edge.Filter | None:
    return filters.from_wire(request.filter) if request.HasField("filter") else None


def _retrieve(
    collection: Collection, wanted: Sequence[PointId], payload: Any, vector: bool | list[str]
) -> list[edge.Record]:
    with Guard("get points"):
        records = collection.shard.retrieve(cast(Any, list(wanted)), payload, vector)
    found = {cast(PointId, record.id): record for record in records}
    return [found[point_id] for point_id in wanted if point_id in found]


def _stored_vector(collection: Collection, point_id: PointId, name: str, field: str) -> vectors.EngineVector:
    schema = collection.definition.configuration.schema
    if name not in schema.dense and name not in schema.sparse:
        raise vectors.unknown_vector(name, field)
    records = _retrieve(collection, [point_id], False, [name])
    if not records:
        raise NotFound(
            f"Not found: No point with id {point_id} found", reason="POINT_NOT_FOUND", metadata={"id": str(point_id)}
        )
    vector = vectors.by_name(records[0].vector).get(name)
    if vector is None:
        raise NotFound(
            f"Not found: Point {point_id} has no vector `{name}`", reason="VECTOR_NOT_FOUND", metadata={"vector": name}
        )
    return vector


def _update_result(number: int, *, wait: bool) -> pb.UpdateResult:
    status = pb.UpdateStatus.Completed if wait else pb.UpdateStatus.Acknowledged
    return pb.UpdateResult(operation_id=number, status=status)


def _operation(number: int, began: float, *, wait: bool) -> pb.PointsOperationResponse:
    return pb.PointsOperationResponse(result=_update_result(number, wait=wait), time=time.perf_counter() - began)
