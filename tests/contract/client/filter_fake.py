"""The contract's filters, as it defines them, for the gateway in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from winnow.search.v1 import documents_pb2


def holds(where: documents_pb2.Filter, id_: str, metadata: dict[str, Any]) -> bool:
    """Whether a document satisfies a filter, as the contract defines it."""
    return (
        all(_satisfies(condition, id_, metadata) for condition in where.must)
        and (not where.should or any(_satisfies(condition, id_, metadata) for condition in where.should))
        and not any(_satisfies(condition, id_, metadata) for condition in where.must_not)
    )


def _satisfies(condition: documents_pb2.Condition, id_: str, metadata: dict[str, Any]) -> bool:
    kind = condition.WhichOneof("condition")
    if kind == "filter":
        return holds(condition.filter, id_, metadata)
    if kind == "ids":
        return id_ in condition.ids.ids
    inner = getattr(condition, str(kind))
    values: Any = metadata
    for key in inner.key.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    values = values if isinstance(values, list) else [] if values is None else [values]
    if kind == "exists":
        return any(value is not None for value in values)
    return any(_value_satisfies(kind, inner, value) for value in values)


def _value_satisfies(kind: str | None, inner: Any, value: Any) -> bool:
    if kind == "match":
        wanted = [getattr(each, each.WhichOneof("value")) for each in inner.any_of]
        return any(each == value and isinstance(each, bool) == isinstance(value, bool) for each in wanted)
    if kind == "range":
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        checks: dict[str, Callable[[float], bool]] = {
            "at_least": lambda bound: value >= bound,
            "more_than": lambda bound: value > bound,
            "at_most": lambda bound: value <= bound,
            "less_than": lambda bound: value < bound,
        }
        return all(check(getattr(inner, name)) for name, check in checks.items() if inner.HasField(name))
    if not isinstance(value, str):
        return False
    moment = datetime.fromisoformat(value)
    return (not inner.HasField("from_time") or inner.from_time.ToDatetime(tzinfo=UTC) <= moment) and (
        not inner.HasField("before_time") or moment < inner.before_time.ToDatetime(tzinfo=UTC)
    )
