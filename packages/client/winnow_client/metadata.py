"""Metadata of documents: Python values to google.protobuf.Struct and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import struct_pb2

from winnow_rpc.faults import InvalidArgument

MAX_DEPTH = 16
"""Levels of metadata that the contract allows."""
MAX_WHOLE_NUMBER = 2**53
"""Beyond this a Struct, whose numbers are binary64, would change a whole number in silence."""


def to_struct(metadata: Mapping[str, Any]) -> struct_pb2.Struct:
    """Metadata as a Struct.

    Raises InvalidArgument (METADATA_NOT_REPRESENTABLE) that names the path of a value which JSON cannot hold, of a
    number that is not finite, and of a whole number beyond 2^53.
    """
    if not isinstance(metadata, Mapping):
        raise _refuse("metadata", f"is a {type(metadata).__name__}, not a mapping of names to values")
    return _struct(metadata, "metadata", 1)


def from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct as a dictionary. Whole numbers up to 2^53 become int, as they were before they were sent."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _struct(metadata: Mapping[str, Any], path: str, depth: int) -> struct_pb2.Struct:
    if depth > MAX_DEPTH:
        raise _refuse(path, f"lies deeper than {MAX_DEPTH} levels")
    fields = {}
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise _refuse(path, f"has a key that is no string: {key!r}")
        fields[_encodable(key, path)] = _value(value, f"{path}.{key}", depth)
    return struct_pb2.Struct(fields=fields)


def _value(value: Any, path: str, depth: int) -> struct_pb2.Value:
    match value:
        case str():
            made = struct_pb2.Value(string_value=_encodable(value, path))
        case bool():
            made = struct_pb2.Value(bool_value=value)
        case int() if abs(value) > MAX_WHOLE_NUMBER:
            raise _refuse(path, f"is {value}, a whole number beyond 2^53, and would lose digits; send it as a string")
        case float() if not math.isfinite(value):
            raise _refuse(path, f"is {value}; numbers must be finite")
        case int() | float():
            made = struct_pb2.Value(number_value=value)
        case None:
            made = struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case Mapping():
            made = struct_pb2.Value(struct_value=_struct(value, path, depth + 1))
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            if depth >= MAX_DEPTH:
                raise _refuse(path, f"lies deeper than {MAX_DEPTH} levels")
            items = [_value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
            made = struct_pb2.Value(list_value=struct_pb2.ListValue(values=items))
        case _:
            raise _refuse(path, f"is a {type(value).__name__}, which JSON cannot hold")
    return made


def _plain(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if abs(number) <= MAX_WHOLE_NUMBER and number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case _:
            return None


def _encodable(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refuse(path, "holds half of a surrogate pair, which UTF-8 cannot hold") from error
    return text


def _refuse(path: str, what: str) -> InvalidArgument:
    return InvalidArgument(f"{path!a} {what}", field=ascii(path)[1:-1], reason="METADATA_NOT_REPRESENTABLE")
