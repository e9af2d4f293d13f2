"""Changes to a collection's points, as the engine's operations.

A change by filter, or one that depends on what is there, is resolved to ids against the shard at the moment it is
applied. So the operations can be replayed on a copy and give the same, whatever the copy makes of a filter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, cast

import qdrant_edge as edge

from winnow_index.engine import PointId

CHUNK = 256
"""Points in one operation of the engine, so that no single call holds the event loop for long."""
_ID_CHUNK = 2048
# As many points as the engine takes of an operation at once. Where one of them is not there, it does the rest of them
# and leaves those that follow; and in a replay one may be gone: a flush that is cut short can have put a later deletion
# on disk.
_STEP = 32
_ALL = 2**31

Target = edge.Filter | Sequence[PointId]
"""The points that a change is about."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the engine's `update`."""

    update: edge.UpdateOperation
    size: int
    """Roughly its bytes in memory."""
    written: int = 0
    """Points whose vectors it writes."""
    deleted: int = 0
    """Points that it deletes."""
    on_disk: int = 0
    """Roughly the bytes that it writes, where these are more than `size`."""


class Change(Protocol):
    """A change that a caller asked for, validated."""

    def operations(self, shard: edge.EdgeShard, missing: list[PointId]) -> Iterator[Operation]:
        """The operations, resolved against the shard. Ids that are not there are added to `missing`."""


class UpsertMode(Enum):
    """What to do with points that are there, and with those that are not."""

    UPSERT = "upsert"
    INSERT_ONLY = "insert_only"
    UPDATE_ONLY = "update_only"


def _chunks(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def existing(shard: edge.EdgeShard, ids: Sequence[PointId]) -> set[PointId]:
    """Those of the ids that are there."""
    found: set[PointId] = set()
    for part in _chunks(ids, _ID_CHUNK):
        found.update(cast(PointId, record.id) for record in shard.retrieve(part, False, False))
    return found


def matching(shard: edge.EdgeShard, wanted: edge.Filter) -> list[PointId]:
    """Ids of the points that a filter matches."""
    found, _ = shard.scroll(edge.ScrollRequest(limit=_ALL, filter=wanted, with_payload=False, with_vector=False))
    return [cast(PointId, record.id) for record in found]


def resolve(shard: edge.EdgeShard, target: Target, missing: list[PointId]) -> list[PointId]:
    """Ids of the target's points that are there; ids named but not there go to `missing`."""
    if isinstance(target, edge.Filter):
        return matching(shard, target)
    there = existing(shard, target)
    missing.extend(point_id for point_id in target if point_id not in there)
    return [point_id for point_id in target if point_id in there]


@dataclass(frozen=True, slots=True)
class Upsert:
    """Inserts or replaces points. Ids are unique."""

    points: Sequence[edge.Point]
    sizes: Sequence[int]
    """Bytes of each point."""
    mode: UpsertMode = UpsertMode.UPSERT
    condition: edge.Filter | None = None
    """A point that is there is replaced only where this is met."""

    def operations(self, shard: edge.EdgeShard, missing: list[PointId]) -> Iterator[Operation]:
        """See `Change`."""
        for start in range(0, len(self.points), CHUNK):
            points = list(self.points[start : start + CHUNK])
            size = sum(self.sizes[start : start + CHUNK])
            if self.mode is not UpsertMode.UPSERT or self.condition is not None:
                points = self._chosen(shard, points)
            if points:
                yield Operation(edge.UpdateOperation.upsert_points(points), size, written=len(points))

    def _chosen(self, shard: edge.EdgeShard, points: list[edge.Point]) -> list[edge.Point]:
        ids = [cast(PointId, point.id) for point in points]
        there = existing(shard, ids)
        replaceable = there
        if self.condition is not None:
            among = edge.Filter(must=[self.condition, edge.HasIdCondition(set(ids))])
            replaceable = set(matching(shard, among))
        if self.mode is UpsertMode.INSERT_ONLY:
            return [point for point, point_id in zip(points, ids, strict=True) if point_id not in there]
        if self.mode is UpsertMode.UPDATE_ONLY:
            return [point for point, point_id in zip(points, ids, strict=True) if point_id in replaceable]
        return [
            point
            for point, point_id in zip(points, ids, strict=True)
            if point_id not in there or point_id in replaceable
        ]


@dataclass(frozen=True, slots=True)
class DeletePoints:
    """Deletes points; those that are not there are no error, as in Qdrant."""

    target: Target

    def operations(self, shard: edge.EdgeShard, missing: list[PointId]) -> Iterator[Operation]:
        """See `Change`."""
        for ids in _chunks(resolve(shard, self.target, []), _ID_CHUNK):
            yield Operation(edge.UpdateOperation.delete_points(ids), 16 * len(ids), deleted=len(ids))


@dataclass(frozen=True, slots=True)
class ChangePoints:
    """Applies one engine operation to points that are there: payload changes, deletion of vectors."""

    target: Target
    make: Callable[[list[PointId]], edge.UpdateOperation]
    size: int = field(default=64)
    """Bytes of what is written to each of them."""

    def operations(self, shard: edge.EdgeShard, missing: list[PointId]) -> Iterator[Operation]:
        """See `Change`."""
        for ids in _chunks(resolve(shard, self.target, missing), _STEP):
            # Held once, and written for every point.
            yield Operation(self.make(ids), self.size + 16 * len(ids), on_disk=(self.size + 16) * len(ids))


@dataclass(frozen=True, slots=True)
class UpdateVectors:
    """Replaces some vectors of points that are there."""

    points: Sequence[edge.PointVectors]
    sizes: Sequence[int]
    condition: edge.Filter | None = None

    def operations(self, shard: edge.EdgeShard, missing: list[PointId]) -> Iterator[Operation]:
        """See `Change`."""
        for start in range(0, len(self.points), _STEP):
            points = self.points[start : start + _STEP]
            ids = [cast(PointId, point.id) for point in points]
            there = set(resolve(shard, ids, missing))
            if self.condition is not None:
                there = set(
                    matching(shard, edge.Filter(must=[self.condition, edge.HasIdCondition(set(there))]))
                    if there
                    else ()
                )
            chosen = [point for point, point_id in zip(points, ids, strict=True) if point_id in there]
            if chosen:
                yield Operation(
                    edge.UpdateOperation.update_vectors(chosen),
                    sum(self.sizes[start : start + _STEP]),
                    written=len(chosen),
                )
