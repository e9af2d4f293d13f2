"""Forms that are turned into the one query: the older search messages, and grouped queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast
from uuid import UUID

import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index.collection import Collection
from winnow_index.engine import Guard, PointId
from winnow_index.groups import GroupValue
from winnow_index.wire import answers, queries, refusals


class Collections(Protocol):
    """Where collections are found."""

    def get(self, name: str) -> Collection:
        """The collection of this name or alias."""


def query_of(message: pb.SearchPoints) -> pb.QueryPoints:
    """The query that an older search means."""
    query = pb.QueryPoints(
        collection_name=message.collection_name,
        limit=message.limit,
        offset=message.offset if message.HasField("offset") else None,
        score_threshold=message.score_threshold if message.HasField("score_threshold") else None,
        using=message.vector_name,
    )
    if message.HasField("sparse_indices"):
        query.query.nearest.sparse.indices.extend(message.sparse_indices.data)
        query.query.nearest.sparse.values.extend(message.vector)
    else:
        query.query.nearest.dense.data.extend(message.vector)
    for name in ("filter", "params", "with_payload", "with_vectors", "shard_key_selector"):
        if message.HasField(name):
            getattr(query, name).CopyFrom(getattr(message, name))
    return query


def ungrouped(message: Any) -> pb.QueryPoints:
    """The query that finds the hits of a grouped one."""
    query = pb.QueryPoints(collection_name=message.collection_name, prefetch=message.prefetch)
    for name in ("query", "filter", "params", "lookup_from"):
        if message.HasField(name):
            getattr(query, name).CopyFrom(getattr(message, name))
    for name in ("using", "score_threshold"):
        if message.HasField(name):
            setattr(query, name, getattr(message, name))
    return query


def group_filter(key: str, *, without: Sequence[GroupValue], only: GroupValue | None) -> edge.Filter:
    """Points that can be in a group at all, have none of some values, and have one value if it is given."""
    unwanted: list[Any] = [edge.IsEmptyCondition(key)]
    texts = [value for value in without if isinstance(value, str)]
    numbers = [value for value in without if isinstance(value, int)]
    unwanted.extend(edge.FieldCondition(key, match=edge.MatchAny(values)) for values in (texts, numbers) if values)
    wanted = None if only is None else [edge.FieldCondition(key, match=edge.MatchValue(only))]
    return edge.Filter(must=cast(Any, wanted), must_not=unwanted)


def fill_group_id(target: pb.GroupId, value: GroupValue) -> None:
    """Writes a group's value into a message."""
    if isinstance(value, str):
        target.string_value = value
    elif value >= 0:
        target.unsigned_value = value
    else:
        target.integer_value = value


class Lookup:
    """A point of another collection for each group: the one whose id is the group's value."""

    def __init__(self, collection: Collection, payload: Any, vectors: bool | list[str]) -> None:
        self._collection = collection
        self._payload = payload
        self._vectors = vectors

    def fill(self, target: pb.RetrievedPoint, value: GroupValue) -> None:
        """Writes the group's point into a message, if there is one."""
        point_id = _as_id(value)
        if point_id is None:
            return
        with Guard("look up a group"):
            records = self._collection.shard.retrieve([point_id], self._payload, self._vectors)
        holder = pb.GetResponse()
        answers.retrieved(holder.result, records, self._vectors)
        if holder.result:
            target.CopyFrom(holder.result[0])


def lookup_of(message: pb.QueryPointGroups, collections: Collections) -> Lookup | None:
    """The lookup that a grouped query asks for."""
    if not message.HasField("with_lookup"):
        return None
    refusals.unknown_fields(message.with_lookup)
    collection = collections.get(message.with_lookup.collection)
    return Lookup(
        collection,
        queries.with_payload(message.with_lookup, default=True),
        queries.with_vectors(message.with_lookup, collection.definition.configuration.schema),
    )


def _as_id(value: GroupValue) -> PointId | None:
    if isinstance(value, int):
        return value if 0 <= value < 2**64 else None
    try:
        return UUID(value)
    except ValueError:
        return None
