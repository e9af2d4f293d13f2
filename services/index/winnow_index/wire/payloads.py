"""Payloads: JSON objects with 64-bit integers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qdrant_client import grpc as pb

from winnow_rpc.faults import InvalidArgument

# Deeper nesting than this overflows recursive readers further on (protobuf itself stops at 100 messages).
_DEEPEST = 32
_INT64 = range(-(2**63), 2**63)


def value_from_wire(value: pb.Value, field: str, depth: int = 0) -> Any:
    """A JSON value. Raises InvalidArgument on NaN, infinity and absurd nesting; a missing kind is null."""
    kind = value.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    if kind in ("struct_value", "list_value"):
        if depth >= _DEEPEST:
            raise InvalidArgument(f"{field}: nested deeper than {_DEEPEST} levels", field=field, reason="TOO_DEEP")
        if kind == "struct_value":
            return {k: value_from_wire(v, f"{field}.{k}", depth + 1) for k, v in value.struct_value.fields.items()}
        return [value_from_wire(v, f"{field}[]", depth + 1) for v in value.list_value.values]
    if kind == "double_value" and not math.isfinite(value.double_value):
        raise InvalidArgument(f"{field}: NaN and infinity have no place in a payload", field=field, reason="NOT_FINITE")
    return getattr(value, str(kind))


def from_wire(payload: Mapping[str, pb.Value], field: str) -> dict[str, Any]:
    """A payload from a message's map."""
    return {key: value_from_wire(value, f"{field}.{key}") for key, value in payload.items()}


def fill_value(target: pb.Value, value: Any) -> None:
    """Writes a JSON value into a message."""
    # bool before int: a bool is an int to isinstance.
    if value is None:
        target.null_value = pb.NullValue.NULL_VALUE
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        if value in _INT64:
            target.integer_value = value
        else:
            target.double_value = float(value)
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        for key, inner in value.items():
            fill_value(target.struct_value.fields[key], inner)
    else:
        target.list_value.SetInParent()
        for inner in value:
            fill_value(target.list_value.values.add(), inner)


def fill(target: Any, payload: Mapping[str, Any] | None) -> None:
    """Writes a payload into a message's map field."""
    for key, value in (payload or {}).items():
        fill_value(target[key], value)
