"""Which field of a row becomes what of a document."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from winnow_client.cli.reading.records import Row, Unfit
from winnow_client.collections import MetadataType
from winnow_client.documents import Document


@dataclass(frozen=True, slots=True)
class MetadataColumn:
    """A field of the rows that goes into the metadata."""

    name: str
    """Its name."""
    type: MetadataType | None = None
    """What its values are to be; strings, as all of CSV is, are converted. None: as they are."""


@dataclass(frozen=True, kw_only=True)
class FieldMapping:
    """Which field of a row becomes what of a document."""

    id: str = "id"
    """Field of the id."""
    title: str = "title"
    """Field of the title; rows may lack it."""
    text: str = "text"
    """Field of the text."""
    metadata: tuple[MetadataColumn, ...] = ()
    """Fields that go into the metadata beside the object `metadata`; rows may lack them."""
    all_metadata: bool = False
    """Whether every other field goes into the metadata."""

    @property
    def columns(self) -> frozenset[str] | None:
        """The fields that are needed; None: all."""
        if self.all_metadata:
            return None
        return frozenset({self.id, self.title, self.text, "metadata", *(column.name for column in self.metadata)})


def document_of(row: Row, mapping: FieldMapping) -> Document:
    """The document of a row. Raises Unfit."""
    fields = row.fields
    id_ = _id(fields, mapping.id)
    try:
        if mapping.text not in fields:
            raise Unfit("MISSING_FIELD", f"the field {mapping.text!r} is missing{_hint(fields, '--text-field')}")
        return Document(
            id=id_,
            title=_string(fields, mapping.title),
            text=_string(fields, mapping.text),
            metadata=_metadata(fields, mapping),
        )
    except Unfit as unfit:
        unfit.id = id_
        raise


def _id(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        hint = "; it has '_id': --id-field _id" if "_id" in fields else _hint(fields, "--id-field")
        raise Unfit("MISSING_FIELD", f"the field {name!r} is missing{hint}")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise Unfit("WRONG_TYPE", f"{name!r} is {_kind(value)}; it must be a string or a whole number")
    return value


def _string(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unfit("WRONG_TYPE", f"{name!r} is {_kind(value)}; it must be a string")
    return value


def _metadata(fields: Mapping[str, Any], mapping: FieldMapping) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    taken = {mapping.id, mapping.title, mapping.text}
    if "metadata" in fields and "metadata" not in taken:
        taken.add("metadata")
        metadata.update(_object(fields["metadata"]))
    for column in mapping.metadata:
        taken.add(column.name)
        value = fields.get(column.name)
        if value is not None:
            converted = _jsonable(value) if column.type is None else _converted(value, column)
            if converted is not None:
                metadata[column.name] = converted
    if mapping.all_metadata:
        metadata.update({name: _jsonable(value) for name, value in fields.items() if name not in taken})
    return metadata


def _object(value: Any) -> Mapping[str, Any]:
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        # A cell of CSV, or a string column.
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unfit("WRONG_TYPE", "'metadata' is a string that is no JSON object") from None
    if not isinstance(value, Mapping):
        raise Unfit("WRONG_TYPE", f"'metadata' is {_kind(value)}; it must be an object")
    return {str(key): _jsonable(inner) for key, inner in value.items()}


def _jsonable(value: Any) -> Any:
    """Values of Parquet as JSON has them; others as they are."""
    match value:
        case datetime():
            # Parquet's times without a zone are of no zone in particular; read as UTC they can be filtered on.
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
        case date():
            return datetime(value.year, value.month, value.day, tzinfo=UTC).isoformat()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case dict():
            return {key: _jsonable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_jsonable(inner) for inner in value]
        case _:
            return value


def _boolean(text: str) -> bool:
    known = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _moment(text: str) -> str:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


_FROM_STRING: dict[MetadataType, Callable[[str], Any]] = {
    MetadataType.KEYWORD: str,
    MetadataType.INTEGER: int,
    MetadataType.FLOAT: float,
    MetadataType.BOOL: _boolean,
    MetadataType.DATETIME: _moment,
}


def _converted(value: Any, column: MetadataColumn) -> Any:
    """A value in the type that was asked for; a blank string of another type than keyword is none."""
    assert column.type is not None
    if isinstance(value, list):
        return [_converted(inner, column) for inner in value]
    value = _jsonable(value)
    text = value.strip() if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    if column.type is MetadataType.KEYWORD:
        return value if isinstance(value, str) else text
    if not text:
        return None
    try:
        if column.type is MetadataType.INTEGER and isinstance(value, float) and value.is_integer():
            return int(value)
        return _FROM_STRING[column.type](text)
    except ValueError:
        raise Unfit("WRONG_TYPE", f"{column.name!r} is {text[:80]!r}, which is no {column.type.value}") from None


def _hint(fields: Mapping[str, Any], option: str) -> str:
    names = ", ".join(repr(name) for name in list(fields)[:8])
    return f"; it has {names}: name one with {option}" if names else ""


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", dict: "an object", list: "a list"}
    return kinds.get(type(value), f"of type {type(value).__name__}")
