"""Whether a document satisfies a filter, as the contract defines it."""

from __future__ import annotations

import math
from datetime import datetime

from winnow_gateway.documents import Document, Json
from winnow_gateway.filters import Condition, Exists, Filter, HasId, Match, Range, TimeRange


def satisfies(document: Document, filter_: Filter) -> bool:
    """Whether a document satisfies a filter."""
    return (
        all(_holds(document, condition) for condition in filter_.must)
        and (not filter_.should or any(_holds(document, condition) for condition in filter_.should))
        and not any(_holds(document, condition) for condition in filter_.must_not)
    )


def _holds(document: Document, condition: Condition) -> bool:
    match condition:
        case Filter():
            return satisfies(document, condition)
        case HasId(ids=ids):
            return document.id in ids
        case Exists(key=key):
            return any(value is not None for value in _values(document, key))
        case Match(key=key, any_of=wanted):
            return any(
                value == each and isinstance(value, bool) == isinstance(each, bool)
                for value in _values(document, key)
                for each in wanted
            )
        case Range(key=key):
            low = condition.at_least if condition.at_least is not None else -math.inf
            high = condition.at_most if condition.at_most is not None else math.inf
            return any(
                low <= value <= high
                and (condition.more_than is None or value > condition.more_than)
                and (condition.less_than is None or value < condition.less_than)
                for value in _values(document, key)
                if isinstance(value, int | float) and not isinstance(value, bool)
            )
        case TimeRange(key=key, start=start, end=end):
            times = [datetime.fromisoformat(value) for value in _values(document, key) if isinstance(value, str)]
            return any((start is None or time >= start) and (end is None or time < end) for time in times)


def _values(document: Document, key: str) -> list[Json]:
    value: Json = dict(document.metadata)
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, list) else [value]
