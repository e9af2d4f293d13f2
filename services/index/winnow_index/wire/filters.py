"""Filters: every kind of condition that Qdrant has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import qdrant_edge as edge
from google.protobuf.timestamp_pb2 import Timestamp
from qdrant_client import grpc as pb

from winnow_index.engine import slice_condition
from winnow_index.wire import ids
from winnow_rpc.faults import InvalidArgument, quoted

# Deeper nesting than this serves no reader and could exhaust the engine's stack.
_DEEPEST = 16


def _bad(field: str, what: str, reason: str = "BAD_FILTER") -> InvalidArgument:
    return InvalidArgument(f"{field}: {what}", field=field, reason=reason)


def checked_key(key: str, field: str) -> str:
    """A path into payloads (`a.b[].c`). Raises InvalidArgument if the engine could not parse it."""
    try:
        # The engine's own parser is the judge; the condition itself is thrown away.
        edge.IsNullCondition(key)
    except ValueError:
        raise _bad(field, f"{quoted(key)} is not a path into a payload", "BAD_JSON_PATH") from None
    return key


def from_wire(message: pb.Filter, field: str = "filter", depth: int = 0) -> edge.Filter:
    """The engine's filter for a message."""
    if depth > _DEEPEST:
        raise _bad(field, f"filters nest deeper than {_DEEPEST} levels")
    min_should = None
    if message.HasField("min_should"):
        min_should = edge.MinShould(
            _conditions(message.min_should.conditions, f"{field}.min_should", depth), message.min_should.min_count
        )
    return edge.Filter(
        must=_conditions(message.must, f"{field}.must", depth) or None,
        should=_conditions(message.should, f"{field}.should", depth) or None,
        must_not=_conditions(message.must_not, f"{field}.must_not", depth) or None,
        min_should=min_should,
    )


def _conditions(messages: Sequence[pb.Condition], field: str, depth: int) -> list[Any]:
    return [condition_from_wire(message, f"{field}[{n}]", depth) for n, message in enumerate(messages)]


def condition_from_wire(message: pb.Condition, field: str, depth: int = 0) -> Any:
    """The engine's condition for a message. Raises InvalidArgument if it is empty or malformed."""
    kind = message.WhichOneof("condition_one_of")
    if kind is None or kind not in _CONDITIONS:
        raise _bad(field, "the condition is of no kind that this index knows")
    return _CONDITIONS[kind](getattr(message, kind), f"{field}.{kind}", depth)


def _nested(message: pb.NestedCondition, field: str, depth: int) -> edge.NestedCondition:
    return edge.NestedCondition(
        checked_key(message.key, f"{field}.key"), from_wire(message.filter, f"{field}.filter", depth + 1)
    )


def _slice(message: pb.SliceCondition, field: str, _depth: int) -> Any:
    if message.total < 1 or message.index >= message.total:
        raise _bad(field, f"index {message.index} must be below total {message.total}, and total at least 1")
    return slice_condition(message.total, message.index)


def _box(message: pb.GeoBoundingBox, field: str) -> edge.GeoBoundingBox:
    return edge.GeoBoundingBox(
        geo_point(message.top_left, f"{field}.top_left"), geo_point(message.bottom_right, f"{field}.bottom_right")
    )


def _radius(message: pb.GeoRadius, field: str) -> edge.GeoRadius:
    if not (math.isfinite(message.radius) and message.radius >= 0):
        raise _bad(f"{field}.radius", "a radius is a number of metres, 0 or more")
    return edge.GeoRadius(geo_point(message.center, f"{field}.center"), message.radius)


def _polygon(message: pb.GeoPolygon, field: str) -> edge.GeoPolygon:
    interiors = [_ring(ring, f"{field}.interiors[{n}]") for n, ring in enumerate(message.interiors)]
    return edge.GeoPolygon(_ring(message.exterior, f"{field}.exterior"), interiors)


def _values_count(message: pb.ValuesCount, field: str) -> edge.ValuesCount:
    bounds = _bounds(message)
    if not bounds:
        raise _bad(field, "a count needs at least one bound")
    return edge.ValuesCount(**bounds)


def _field_condition(message: Any, field: str, _depth: int) -> edge.FieldCondition:
    key = checked_key(message.key, f"{field}.key")
    given = [name for name in _FIELD_PARTS if message.HasField(name)]
    if not given:
        raise _bad(field, f"the condition on {quoted(key)} says nothing: it needs a match, a range or the like")
    if len(given) > 1:
        raise _bad(field, f"one condition takes one of {', '.join(given)}; put each in a condition of its own")
    name, (argument, read) = given[0], _FIELD_PARTS[given[0]]
    return edge.FieldCondition(key, **{argument: read(getattr(message, name), f"{field}.{name}")})


_MATCHES: dict[str, Callable[[Any], Any]] = {
    "keyword": edge.MatchValue,
    "integer": edge.MatchValue,
    # The binding takes Python's own bool for an integer, which then matches nothing.
    "boolean": lambda value: edge.MatchValue(cast(Any, np.bool_(value))),
    "text": edge.MatchText,
    "text_any": edge.MatchTextAny,
    "phrase": edge.MatchPhrase,
    "prefix": edge.MatchPrefix,
    "substring": edge.MatchSubstring,
    "keywords": lambda value: edge.MatchAny(list(value.strings)),
    "integers": lambda value: edge.MatchAny(list(value.integers)),
    "except_keywords": lambda value: edge.MatchExcept(list(value.strings)),
    "except_integers": lambda value: edge.MatchExcept(list(value.integers)),
}


def _match(message: pb.Match, field: str) -> Any:
    kind = message.WhichOneof("match_value")
    if kind is None or kind not in _MATCHES:
        raise _bad(field, "the match is of no kind that this index knows")
    return _MATCHES[kind](getattr(message, kind))


def _bounds(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in ("lt", "gt", "gte", "lte") if message.HasField(name)}


def _range(message: pb.Range, field: str) -> edge.RangeFloat:
    bounds = _bounds(message)
    if any(math.isnan(bound) for bound in bounds.values()):
        raise _bad(field, "a bound must not be NaN", "NOT_FINITE")
    return edge.RangeFloat(**bounds)


def _datetime_range(message: pb.DatetimeRange, field: str) -> edge.RangeDateTime:
    bounds = {name: instant(bound, f"{field}.{name}") for name, bound in _bounds(message).items()}
    return edge.RangeDateTime(**bounds)


def instant(message: Timestamp, field: str) -> str:
    """RFC 3339 text of a timestamp, to the microsecond, which is what the engine compares."""
    try:
        moment = datetime.fromtimestamp(message.seconds, UTC).replace(microsecond=message.nanos // 1000)
    except (OverflowError, ValueError, OSError):
        raise _bad(field, "the timestamp is outside of the years 1 to 9999") from None
    return moment.isoformat().replace("+00:00", "Z")


def geo_point(message: pb.GeoPoint, field: str) -> edge.GeoPoint:
    """A point on the globe; raises InvalidArgument outside of it."""
    # NaN fails both comparisons.
    if not (-180 <= message.lon <= 180 and -90 <= message.lat <= 90):
        raise _bad(field, "longitude runs from -180 to 180, latitude from -90 to 90")
    return edge.GeoPoint(message.lon, message.lat)


def _ring(message: pb.GeoLineString, field: str) -> list[edge.GeoPoint]:
    points = [geo_point(point, f"{field}.points[{n}]") for n, point in enumerate(message.points)]
    if len(points) < 4 or (message.points[0].lon, message.points[0].lat) != (
        message.points[-1].lon,
        message.points[-1].lat,
    ):
        raise _bad(field, "a ring needs at least 4 points and ends where it begins")
    return points


def both(first: edge.Filter | None, second: Any | None) -> edge.Filter | None:
    """The filter that is met where both are; None is met everywhere."""
    if first is None or second is None:
        return first if second is None else second if isinstance(second, edge.Filter) else edge.Filter(must=[second])
    return edge.Filter(must=[first, second])


def excluding(base: edge.Filter | None, unwanted: set[Any]) -> edge.Filter | None:
    """The filter without some ids."""
    if not unwanted:
        return base
    return edge.Filter(must=[base] if base is not None else None, must_not=[edge.HasIdCondition(unwanted)])


_CONDITIONS: dict[str, Callable[[Any, str, int], Any]] = {
    "field": _field_condition,
    "is_empty": lambda message, field, _: edge.IsEmptyCondition(checked_key(message.key, f"{field}.key")),
    "is_null": lambda message, field, _: edge.IsNullCondition(checked_key(message.key, f"{field}.key")),
    "has_id": lambda message, field, _: edge.HasIdCondition(set(ids.many_from_wire(message.has_id, field))),
    "has_vector": lambda message, field, _: edge.HasVectorCondition(message.has_vector),
    "filter": lambda message, field, depth: from_wire(message, field, depth + 1),
    "nested": _nested,
    "slice": _slice,
}
_FIELD_PARTS: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    "match": ("match", _match),
    "range": ("range", _range),
    "datetime_range": ("range", _datetime_range),
    "geo_bounding_box": ("geo_bounding_box", _box),
    "geo_radius": ("geo_radius", _radius),
    "geo_polygon": ("geo_polygon", _polygon),
    "values_count": ("values_count", _values_count),
    "is_empty": ("is_empty", lambda value, field: value),
    "is_null": ("is_null", lambda value, field: value),
}
