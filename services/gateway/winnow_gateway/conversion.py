"""Messages of the search contract to our values and back; those of searches are in `search_conversion`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

from google.protobuf import struct_pb2, timestamp_pb2

from winnow.search.v1 import collections_pb2, documents_pb2
from winnow_gateway import validation
from winnow_gateway.collections import (
    Collection,
    HnswConfig,
    IndexState,
    LexicalConfig,
    MetadataField,
    MetadataType,
    Similarity,
)
from winnow_gateway.documents import WHOLE_DOCUMENT, Document, DocumentView, Json
from winnow_gateway.filters import Condition, Exists, Filter, HasId, Match, Range, TimeRange
from winnow_gateway.ingesting import Acknowledgement, Outcome
from winnow_gateway.reembedding import ReembedPhase, ReembedProgress
from winnow_rpc.faults import InvalidArgument, quoted
from winnow_rpc.status import status_of

# Up to here every whole number has a double of its own, so a double that is whole was meant as an integer.
_EXACT = 2.0**53

SIMILARITIES = {
    Similarity.COSINE: collections_pb2.SIMILARITY_COSINE,
    Similarity.DOT: collections_pb2.SIMILARITY_DOT,
    Similarity.EUCLIDEAN: collections_pb2.SIMILARITY_EUCLIDEAN,
    Similarity.MANHATTAN: collections_pb2.SIMILARITY_MANHATTAN,
}
METADATA_TYPES = {
    MetadataType.KEYWORD: collections_pb2.METADATA_TYPE_KEYWORD,
    MetadataType.INTEGER: collections_pb2.METADATA_TYPE_INTEGER,
    MetadataType.FLOAT: collections_pb2.METADATA_TYPE_FLOAT,
    MetadataType.BOOL: collections_pb2.METADATA_TYPE_BOOL,
    MetadataType.DATETIME: collections_pb2.METADATA_TYPE_DATETIME,
}
INDEX_STATES = {
    IndexState.READY: collections_pb2.INDEX_STATE_READY,
    IndexState.BUILDING: collections_pb2.INDEX_STATE_BUILDING,
    IndexState.FAILED: collections_pb2.INDEX_STATE_FAILED,
}
REEMBED_PHASES = {
    ReembedPhase.EMBEDDING: collections_pb2.REEMBED_PHASE_EMBEDDING,
    ReembedPhase.INDEXING: collections_pb2.REEMBED_PHASE_INDEXING,
    ReembedPhase.SWITCHING: collections_pb2.REEMBED_PHASE_SWITCHING,
    ReembedPhase.SWITCHED: collections_pb2.REEMBED_PHASE_SWITCHED,
}
OUTCOMES = {
    Outcome.INDEXED: documents_pb2.INGEST_OUTCOME_INDEXED,
    Outcome.UNCHANGED: documents_pb2.INGEST_OUTCOME_UNCHANGED,
    Outcome.REFUSED: documents_pb2.INGEST_OUTCOME_REFUSED,
}


def read_document(message: documents_pb2.Document, *, field: str) -> Document:
    """A document of a request, checked."""
    validation.check_metadata_message(message.metadata.ByteSize(), field=f"{field}.metadata")
    document = Document(message.id, message.title, message.text, read_struct(message.metadata))
    return validation.checked_document(document, field=field)


def write_document(document: Document, view: DocumentView = WHOLE_DOCUMENT) -> documents_pb2.Document:
    """A document of an answer, as far as it was asked for."""
    message = documents_pb2.Document(id=document.id, title=document.title)
    if view.text:
        message.text = document.text
    if view.metadata and document.metadata:
        message.metadata.update(dict(document.metadata))
    return message


def read_struct(struct: struct_pb2.Struct) -> dict[str, Json]:
    """A struct as JSON values; whole numbers become integers."""
    return {key: _read_value(value) for key, value in struct.fields.items()}


def _read_value(value: struct_pb2.Value) -> Json:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if abs(number) <= _EXACT and number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return cast("Json", read_struct(value.struct_value))
        case "list_value":
            return [_read_value(each) for each in value.list_value.values]
        case _:
            return None


def read_view(message: documents_pb2.DocumentView) -> DocumentView:
    """What of each document to return."""
    return DocumentView(text=not message.omit_text, metadata=not message.omit_metadata)


def read_filter(message: documents_pb2.Filter) -> Filter:
    """A filter of a request, checked."""
    return validation.checked_filter(_read_filter(message, field="filter"))


def _read_filter(message: documents_pb2.Filter, *, field: str) -> Filter:
    def read(kind: str, conditions: Sequence[documents_pb2.Condition]) -> tuple[Condition, ...]:
        return tuple(
            _read_condition(condition, field=f"{field}.{kind}[{position}]")
            for position, condition in enumerate(conditions)
        )

    return Filter(
        must=read("must", message.must),
        should=read("should", message.should),
        must_not=read("must_not", message.must_not),
    )


def _read_condition(message: documents_pb2.Condition, *, field: str) -> Condition:
    match message.WhichOneof("condition"):
        case "match":
            values = [_read_match_value(value, field=field) for value in message.match.any_of]
            return Match(message.match.key, values)
        case "range":
            bounds = message.range
            return Range(
                bounds.key,
                at_least=bounds.at_least if bounds.HasField("at_least") else None,
                more_than=bounds.more_than if bounds.HasField("more_than") else None,
                at_most=bounds.at_most if bounds.HasField("at_most") else None,
                less_than=bounds.less_than if bounds.HasField("less_than") else None,
            )
        case "time_range":
            span = message.time_range
            return TimeRange(
                span.key,
                start=_read_time(span.from_time, field=field) if span.HasField("from_time") else None,
                end=_read_time(span.before_time, field=field) if span.HasField("before_time") else None,
            )
        case "exists":
            return Exists(message.exists.key)
        case "ids":
            return HasId(tuple(message.ids.ids))
        case "filter":
            return _read_filter(message.filter, field=f"{field}.filter")
        case _:
            raise InvalidArgument("a condition says nothing", field=field, reason="EMPTY_CONDITION")


def _read_match_value(message: documents_pb2.MatchValue, *, field: str) -> str | int | bool:
    match message.WhichOneof("value"):
        case "string_value":
            return message.string_value
        case "integer_value":
            return message.integer_value
        case "bool_value":
            return message.bool_value
        case _:
            raise InvalidArgument("a value to match is missing", field=field, reason="EMPTY_CONDITION")


def _read_time(message: timestamp_pb2.Timestamp, *, field: str) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(
            "a point in time is outside the years 1 to 9999", field=field, reason="OUT_OF_RANGE"
        ) from error


def read_metadata_fields(messages: Sequence[collections_pb2.MetadataField]) -> Sequence[MetadataField]:
    """Metadata fields to index, checked."""
    types = {number: type_ for type_, number in METADATA_TYPES.items()}
    fields = []
    for position, message in enumerate(messages):
        if message.type not in types:
            raise InvalidArgument(
                f"the metadata field {quoted(message.key)} has no known type",
                field=f"metadata_fields[{position}].type",
                reason="NO_TYPE",
            )
        fields.append(MetadataField(message.key, types[message.type]))
    return validation.checked_metadata_fields(fields)


def read_hnsw(message: collections_pb2.HnswConfig) -> HnswConfig:
    """How to build the graph, checked; zeros are defaults."""
    default = HnswConfig()
    return validation.checked_hnsw(HnswConfig(message.m or default.m, message.ef_construct or default.ef_construct))


def read_lexical(message: collections_pb2.CreateCollectionRequest) -> LexicalConfig | None:
    """How to index for BM25, checked; what is not said is the default. None: not at all."""
    if message.without_lexical:
        if message.HasField("lexical"):
            raise InvalidArgument(
                "lexical says how to index for BM25, and without_lexical not to",
                field="lexical",
                reason="CONTRADICTION",
            )
        return None
    default = LexicalConfig()
    lexical = message.lexical
    return validation.checked_lexical(
        LexicalConfig(lexical.language or default.language, lexical.average_words or default.average_words)
    )


def write_collection(collection: Collection) -> collections_pb2.Collection:
    """A collection as it stands."""
    spec = collection.spec
    message = collections_pb2.Collection(
        name=spec.name,
        document_count=collection.document_count,
        indexed_vector_count=collection.indexed_vector_count,
        index_state=INDEX_STATES[collection.index_state],
        embedder_id=spec.embedder.id,
        embedder_fingerprint=spec.embedder.fingerprint,
        dimension=spec.embedder.dimension,
        similarity=SIMILARITIES[spec.embedder.similarity],
        metadata_fields=[
            collections_pb2.MetadataField(key=field.key, type=METADATA_TYPES[field.type])
            for field in spec.metadata_fields
        ],
        hnsw=collections_pb2.HnswConfig(m=spec.hnsw.m, ef_construct=spec.hnsw.ef_construct),
        description=spec.description,
    )
    if spec.lexical:
        message.lexical.language = spec.lexical.language
        message.lexical.average_words = spec.lexical.average_words
    message.create_time.FromDatetime(collection.created)
    return message


def write_progress(progress: ReembedProgress) -> collections_pb2.ReembedCollectionResponse:
    """How far re-embedding is."""
    return collections_pb2.ReembedCollectionResponse(
        embedded_document_count=progress.embedded_count,
        document_count=progress.document_count,
        embedder_fingerprint=progress.fingerprint,
        complete=progress.complete,
        phase=REEMBED_PHASES[progress.phase],
        former_embedder_fingerprint=progress.former_fingerprint,
    )


def write_acknowledgement(acknowledged: Acknowledgement) -> documents_pb2.IngestAcknowledgement:
    """What became of a document."""
    return documents_pb2.IngestAcknowledgement(
        sequence=acknowledged.sequence,
        id=acknowledged.id,
        outcome=OUTCOMES[acknowledged.outcome],
        refusal=status_of(acknowledged.refusal) if acknowledged.refusal else None,
        dropped_token_count=acknowledged.dropped_token_count,
    )
