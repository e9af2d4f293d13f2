"""Payload indexes: their types and parameters."""

from __future__ import annotations

from typing import Any, cast

import qdrant_edge as edge
from google.protobuf import json_format
from google.protobuf.message import Message
from qdrant_client import grpc as pb

from winnow_index.wire import bm25
from winnow_rpc.faults import InvalidArgument

# FieldType of the request (from 0) → PayloadSchemaType of the answer (from 1), both in the order of the protocol.
_NAMES = ("keyword", "integer", "float", "geo", "text", "bool", "datetime", "uuid")
_TYPES: dict[str, edge.PayloadSchemaType] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "geo": edge.PayloadSchemaType.Geo,
    "text": edge.PayloadSchemaType.Text,
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
    "uuid": edge.PayloadSchemaType.Uuid,
}
_PARAMS: dict[str, Any] = {
    "keyword": edge.KeywordIndexParams,
    "integer": edge.IntegerIndexParams,
    "float": edge.FloatIndexParams,
    "geo": edge.GeoIndexParams,
    "text": edge.TextIndexParams,
    "bool": edge.BoolIndexParams,
    "datetime": edge.DatetimeIndexParams,
    "uuid": edge.UuidIndexParams,
}
_TOKENIZERS = {
    1: edge.TokenizerType.Prefix,
    2: edge.TokenizerType.Whitespace,
    3: edge.TokenizerType.Word,
    4: edge.TokenizerType.Multilingual,
    5: edge.TokenizerType.Code,
}
_MEMORY = {1: edge.Memory.Cold, 2: edge.Memory.Cached, 3: edge.Memory.Pinned}

RANGED = frozenset(("integer", "float", "datetime", "uuid"))
"""Types of index that can order points."""
COUNTED = frozenset(("keyword", "integer", "bool", "uuid"))
"""Types of index that can count values (facets)."""


class IndexRequest:
    """A payload index, asked for or existing: its type, its parameters, and its engine form."""

    def __init__(self, kind: str, params: pb.PayloadIndexParams | None) -> None:
        self.kind = kind
        self.params = params

    def engine_schema(self) -> Any:
        """What the engine takes."""
        if self.params is None:
            return _TYPES[self.kind]
        message = getattr(self.params, f"{self.kind}_index_params")
        return _PARAMS[self.kind](**_arguments(message))

    @property
    def engine_type(self) -> edge.PayloadSchemaType:
        """Its type as the engine tells it."""
        return _TYPES[self.kind]

    def document(self) -> dict[str, Any]:
        """A JSON form that `from_document` reads."""
        params = json_format.MessageToDict(self.params, preserving_proto_field_name=True) if self.params else None
        return {"type": self.kind, "params": params}

    def info(self, points: int) -> pb.PayloadSchemaInfo:
        """What CollectionInfo says of it."""
        info = pb.PayloadSchemaInfo(data_type=cast(Any, _NAMES.index(self.kind) + 1), points=points)
        if self.params is not None:
            info.params.CopyFrom(self.params)
        return info

    @property
    def can_order(self) -> bool:
        """Whether points can be ordered by it."""
        return self.kind in RANGED and not self._switched_off("range")

    @property
    def can_count(self) -> bool:
        """Whether its values can be counted."""
        return self.kind in COUNTED and not self._switched_off("lookup")

    @property
    def can_score(self) -> bool:
        """Whether texts can be ranked by it."""
        return self.kind == "text" and self.params is not None and self.params.text_index_params.HasField("scoring")

    def _switched_off(self, name: str) -> bool:
        if self.kind != "integer" or self.params is None:
            return False
        message: Any = self.params.integer_index_params
        return message.HasField(name) and not getattr(message, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IndexRequest) and self.document() == other.document()

    __hash__ = None  # type: ignore[assignment]


def from_document(document: dict[str, Any]) -> IndexRequest:
    """The index whose `document` this is."""
    params = document["params"]
    return IndexRequest(
        document["type"], None if params is None else json_format.ParseDict(params, pb.PayloadIndexParams())
    )


def from_wire(message: pb.CreateFieldIndexCollection) -> IndexRequest:
    """The index that a request asks for. Raises InvalidArgument if type and parameters are missing or disagree."""
    kind = None
    if message.HasField("field_type"):
        if not 0 <= message.field_type < len(_NAMES):
            raise InvalidArgument(
                f"field_type {message.field_type} is no type of payload index",
                field="field_type",
                reason="BAD_INDEX_TYPE",
            )
        kind = _NAMES[message.field_type]
    which = message.field_index_params.WhichOneof("index_params") if message.HasField("field_index_params") else None
    if which is None:
        if kind is None:
            raise InvalidArgument(
                "field_type is missing: an index needs a type or parameters",
                field="field_type",
                reason="BAD_INDEX_TYPE",
            )
        return IndexRequest(kind, None)
    given = which.removesuffix("_index_params")
    if kind is not None and kind != given:
        raise InvalidArgument(
            f"field_type says {kind}, field_index_params say {given}",
            field="field_index_params",
            reason="BAD_INDEX_TYPE",
        )
    request = IndexRequest(given, message.field_index_params)
    try:
        request.engine_schema()
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"field_index_params: not parameters of a {given} index: {error}",
            field="field_index_params",
            reason="BAD_INDEX_PARAMS",
        ) from error
    _check_nested(getattr(message.field_index_params, which), message.field_name)
    if given == "integer":
        _check_integer(message.field_index_params.integer_index_params)
    return request


def _check_nested(params: Any, field: str) -> None:
    """The engine refuses these too, but only once the write is in its log, from where it would come back."""
    if not params.HasField("nested"):
        return
    array = params.nested.removesuffix("[]")
    if not array or "[" in array or not field.startswith(f"{array}[]."):
        raise InvalidArgument(
            f"field_index_params: nested is {params.nested!r}, and {field!r} no field of its elements: of an array "
            "offers, which is in no other array, they are offers[].price and the like",
            field="field_index_params.nested",
            reason="BAD_INDEX_PARAMS",
        )


def _check_integer(params: pb.IntegerIndexParams) -> None:
    off = [name for name in ("lookup", "range") if params.HasField(name) and not getattr(params, name)]
    if len(off) == 2:
        raise InvalidArgument(
            "field_index_params: an integer index needs lookup or range",
            field="field_index_params",
            reason="BAD_INDEX_PARAMS",
        )


def _arguments(message: Message) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        name = descriptor.name
        if name == "tokenizer":
            if value not in _TOKENIZERS:
                raise ValueError(f"tokenizer {value} is unknown")
            arguments[name] = _TOKENIZERS[value]
        elif name == "memory":
            if value not in _MEMORY:
                raise InvalidArgument("field_index_params.memory: unknown placement", field="field_index_params.memory")
            arguments[name] = _MEMORY[value]
        elif name == "stopwords":
            arguments[name] = _stopwords(value)
        elif name == "stemmer":
            arguments[name] = _stemmer(value)
        elif name == "scoring":
            arguments[name] = edge.TextScoringParams()
        elif name == "prefix":
            arguments[name] = True
        else:
            arguments[name] = value
    return arguments


def _stopwords(message: pb.StopwordsSet) -> edge.StopwordsSet:
    return edge.StopwordsSet({bm25.stopword_language(name) for name in message.languages}, set(message.custom))


def _stemmer(message: pb.StemmingAlgorithm) -> Any:
    if message.WhichOneof("stemming_params") == "disabled":
        return edge.DisabledStemmer()
    return edge.SnowballParams(bm25.snowball_language(message.snowball.language))
