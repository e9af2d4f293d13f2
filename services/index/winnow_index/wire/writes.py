"""Writes: what a request changes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import qdrant_edge as edge
from google.protobuf.message import Message
from qdrant_client import grpc as pb

from winnow_index.changes import Change, ChangePoints, DeletePoints, Target, UpdateVectors, Upsert, UpsertMode
from winnow_index.engine import PointId
from winnow_index.schema import Limits, VectorSchema
from winnow_index.wire import filters, ids, payloads, refusals, vectors
from winnow_rpc.faults import InvalidArgument, Unimplemented

_MODES = {
    pb.UpdateMode.Upsert: UpsertMode.UPSERT,
    pb.UpdateMode.InsertOnly: UpsertMode.INSERT_ONLY,
    pb.UpdateMode.UpdateOnly: UpsertMode.UPDATE_ONLY,
}
# As long as a writer that applies its changes holds the event loop.
_BREATH_SECONDS = 0.008


class WriteReader:
    """Reads writes for one collection. Everything is validated before anything is applied."""

    def __init__(self, schema: VectorSchema, limits: Limits) -> None:
        self._schema = schema
        self._limits = limits

    async def upsert(self, message: Any, breathe: Any, field: str = "points") -> Change:
        """Insertion or replacement of points. Of points with the same id in one request, the last wins."""
        refusals.shard_keys(message)
        refusals.too_many(message.points, limit=self._limits.max_batch, field=field)
        mode = message.update_mode if message.HasField("update_mode") else pb.UpdateMode.Upsert
        if mode not in _MODES:
            raise Unimplemented("update_mode: this index has upsert, insert_only and update_only")
        points: dict[PointId, tuple[edge.Point, int]] = {}
        async for n, point in _in_turn(message.points, breathe):
            read, size = self._point(point, f"{field}[{n}]")
            point_id = cast(PointId, read.id)
            points.pop(point_id, None)
            points[point_id] = (read, size)
        return Upsert(
            points=[point for point, _ in points.values()],
            sizes=[size for _, size in points.values()],
            mode=_MODES[mode],
            condition=_optional_filter(message, "update_filter"),
        )

    def _point(self, message: pb.PointStruct, field: str) -> tuple[edge.Point, int]:
        refusals.payload_too_large(message, limits=self._limits, field=field)
        point_id = ids.from_wire(message.id, f"{field}.id")
        named: dict[str, Any] = {}
        if message.HasField("vectors"):
            named = vectors.named_from_wire(
                message.vectors, schema=self._schema, limits=self._limits, field=f"{field}.vectors"
            )
        payload = payloads.from_wire(message.payload, f"{field}.payload")
        return edge.Point(point_id, named, payload), message.ByteSize() + 64

    async def update_vectors(self, message: Any, breathe: Any, field: str = "points") -> Change:
        """Replacement of some vectors of points."""
        refusals.shard_keys(message)
        refusals.too_many(message.points, limit=self._limits.max_batch, field=field)
        points: dict[PointId, tuple[dict[str, Any], int]] = {}
        async for n, point in _in_turn(message.points, breathe):
            point_id = ids.from_wire(point.id, f"{field}[{n}].id")
            named = vectors.named_from_wire(
                point.vectors, schema=self._schema, limits=self._limits, field=f"{field}[{n}].vectors"
            )
            if not named:
                raise InvalidArgument(
                    f"{field}[{n}].vectors: a vector is needed", field=f"{field}[{n}].vectors", reason="EMPTY_INPUT"
                )
            merged = {**points.pop(point_id, ({}, 0))[0], **named}
            points[point_id] = (merged, point.ByteSize() + 64)
        return UpdateVectors(
            points=[edge.PointVectors(point_id, cast(Any, named)) for point_id, (named, _) in points.items()],
            sizes=[size for _, size in points.values()],
            condition=_optional_filter(message, "update_filter"),
        )

    def delete_points(self, message: Any) -> Change:
        """Deletion of points."""
        refusals.shard_keys(message)
        return DeletePoints(self.target(message, "points"))

    def delete_vectors(self, message: Any) -> Change:
        """Deletion of some vectors of points."""
        refusals.shard_keys(message)
        names = list(message.vectors.names)
        if not names:
            raise InvalidArgument("vectors: a vector name is needed", field="vectors", reason="EMPTY_INPUT")
        for name in names:
            if name not in self._schema.dense and name not in self._schema.sparse:
                raise vectors.unknown_vector(name, "vectors")
        target = self.target(message, "points_selector")
        return ChangePoints(target, lambda chosen: edge.UpdateOperation.delete_vectors(_any(chosen), names))

    def set_payload(self, message: Any) -> Change:
        """Merging into payloads, at a path if one is given."""
        payload, key, size = self._payload(message)
        target = self.target(message, "points_selector")
        return ChangePoints(target, lambda chosen: edge.UpdateOperation.set_payload(_any(chosen), payload, key), size)

    def overwrite_payload(self, message: Any) -> Change:
        """Replacement of payloads. Qdrant ignores the path here, which nobody can want: it is refused."""
        payload, key, size = self._payload(message)
        if key is not None:
            raise Unimplemented("key: overwriting a part of a payload is not offered; use set_payload with a key")
        target = self.target(message, "points_selector")
        return ChangePoints(target, lambda chosen: edge.UpdateOperation.overwrite_payload(_any(chosen), payload), size)

    def delete_payload(self, message: Any) -> Change:
        """Deletion of paths from payloads."""
        refusals.shard_keys(message)
        keys = [filters.checked_key(key, f"keys[{n}]") for n, key in enumerate(message.keys)]
        if not keys:
            raise InvalidArgument("keys: a key is needed", field="keys", reason="EMPTY_INPUT")
        target = self.target(message, "points_selector")
        return ChangePoints(target, lambda chosen: edge.UpdateOperation.delete_payload(_any(chosen), keys))

    def clear_payload(self, message: Any) -> Change:
        """Deletion of whole payloads."""
        refusals.shard_keys(message)
        target = self.target(message, "points")
        return ChangePoints(target, lambda chosen: edge.UpdateOperation.clear_payload(_any(chosen)))

    def target(self, message: Message, field: str) -> Target:
        """The points that a request is about."""
        selector: pb.PointsSelector = getattr(message, field)
        kind = selector.WhichOneof("points_selector_one_of") if message.HasField(field) else None
        if kind is None:
            raise InvalidArgument(f"{field}: ids or a filter are needed", field=field, reason="EMPTY_SELECTOR")
        if kind == "filter":
            return filters.from_wire(selector.filter, f"{field}.filter")
        refusals.too_many(selector.points.ids, limit=self._limits.max_batch, field=f"{field}.ids")
        return ids.many_from_wire(selector.points.ids, f"{field}.ids")

    def _payload(self, message: Any) -> tuple[dict[str, Any], str | None, int]:
        refusals.shard_keys(message)
        size = message.ByteSize()
        if size > self._limits.max_payload_bytes:
            raise InvalidArgument(
                f"payload: {size} bytes, at most {self._limits.max_payload_bytes} are taken",
                field="payload",
                reason="PAYLOAD_TOO_LARGE",
            )
        key = filters.checked_key(message.key, "key") if message.HasField("key") else None
        # Not the message's: it may name thousands of points, and what is written to each is the payload alone.
        written = sum(len(name) + value.ByteSize() for name, value in message.payload.items())
        return payloads.from_wire(message.payload, "payload"), key, written

    async def operation(self, message: pb.PointsUpdateOperation, breathe: Any, field: str) -> Change:
        """One operation of an UpdateBatch."""
        kind = message.WhichOneof("operation")
        match kind:
            case "upsert":
                return await self.upsert(message.upsert, breathe, f"{field}.upsert.points")
            case "update_vectors":
                return await self.update_vectors(message.update_vectors, breathe, f"{field}.update_vectors.points")
            case "delete_vectors" | "set_payload" | "overwrite_payload" | "delete_payload" | "clear_payload":
                return cast(Change, getattr(self, kind)(getattr(message, kind)))
            case "delete_points":
                return self.delete_points(message.delete_points)
            case "delete_deprecated":
                return self.delete_points(pb.DeletePoints(points=message.delete_deprecated))
            case "clear_payload_deprecated":
                return self.clear_payload(pb.ClearPayloadPoints(points=message.clear_payload_deprecated))
            case _:
                raise InvalidArgument(f"{field}: the operation is empty", field=field, reason="EMPTY_INPUT")


def _any(chosen: list[PointId]) -> Any:
    return chosen


def _optional_filter(message: Message, field: str) -> edge.Filter | None:
    return filters.from_wire(getattr(message, field), field) if message.HasField(field) else None


async def _in_turn(items: Iterable[Any], breathe: Any) -> AsyncIterator[tuple[int, Any]]:
    """The items with their numbers, and room for others whenever reading took a while, as BM25 of long texts does."""
    began = time.perf_counter()
    for number, item in enumerate(items):
        if time.perf_counter() - began > _BREATH_SECONDS:
            await breathe()
            began = time.perf_counter()
        yield number, item
