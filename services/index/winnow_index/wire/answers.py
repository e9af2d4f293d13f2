"""Answers: points and groups as messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index.wire import ids, payloads, vectors


def _fill_point(target: Any, point: Any, wanted: bool | list[str]) -> None:
    target.id.CopyFrom(ids.to_wire(point.id))
    payloads.fill(target.payload, point.payload)
    given = point.vector
    # The engine gives vectors that nobody asked for after diversification.
    if wanted is not False and given is not None:
        if isinstance(wanted, list):
            given = {name: vector for name, vector in vectors.by_name(given).items() if name in wanted}
        vectors.fill_output(target.vectors, given)
    value = point.order_value
    if value is not None:
        if isinstance(value, int):
            target.order_value.int = value
        else:
            target.order_value.float = value


def scored(target: Any, points: Iterable[edge.ScoredPoint], wanted: bool | list[str]) -> None:
    """Appends scored points to a repeated field."""
    for point in points:
        message = target.add()
        _fill_point(message, point, wanted)
        message.score = point.score
        message.version = point.version


def group_hits(
    target: Any, points: Iterable[edge.ScoredPoint], records: Mapping[Any, edge.Record], wanted: bool | list[str]
) -> None:
    """Appends a group's hits to a repeated field: score and rank of the search, payload and vectors of the records."""
    for point in points:
        message = target.add()
        _fill_point(message, records[point.id], wanted)
        message.score = point.score
        message.version = point.version


def retrieved(target: Any, records: Iterable[edge.Record], wanted: bool | list[str]) -> None:
    """Appends points without a score to a repeated field."""
    for record in records:
        _fill_point(target.add(), record, wanted)


def facet_hits(target: Any, hits: Iterable[edge.FacetHit]) -> None:
    """Appends counted values to a repeated field."""
    for hit in hits:
        message: pb.FacetHit = target.add()
        message.count = hit.count
        if isinstance(hit.value, bool):
            message.value.bool_value = hit.value
        elif isinstance(hit.value, int):
            message.value.integer_value = hit.value
        else:
            message.value.string_value = str(hit.value)
