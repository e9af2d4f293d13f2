"""Between the messages of `winnow.search.v1` and the values of this SDK. Knows nothing of channels."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf import timestamp_pb2

from winnow.search.v1 import collections_pb2, documents_pb2, search_pb2
from winnow_client import filters
from winnow_client.collections import (
    Collection,
    HnswConfig,
    IndexState,
    LexicalConfig,
    MetadataField,
    MetadataType,
    ReembedPhase,
    ReembedProgress,
    Similarity,
)
from winnow_client.documents import Acknowledgement, Document, IngestOutcome, StoredDocument
from winnow_client.metadata import from_struct, to_struct
from winnow_client.searching import (
    Degradation,
    DegradationKind,
    DepthPolicy,
    Effort,
    Hit,
    RankFusion,
    RankingPolicy,
    RankMixing,
    RetrievalKind,
    ScoreMixing,
    SearchMode,
    SearchResult,
    SearchTiming,
    StageResult,
)
from winnow_rpc.faults import InvalidArgument
from winnow_rpc.status import fault_of

EnumT = TypeVar("EnumT", bound=StrEnum)

ENUMS: dict[type[StrEnum], tuple[Any, str]] = {
    Similarity: (collections_pb2.Similarity, "SIMILARITY_"),
    MetadataType: (collections_pb2.MetadataType, "METADATA_TYPE_"),
    IndexState: (collections_pb2.IndexState, "INDEX_STATE_"),
    ReembedPhase: (collections_pb2.ReembedPhase, "REEMBED_PHASE_"),
    IngestOutcome: (documents_pb2.IngestOutcome, "INGEST_OUTCOME_"),
    SearchMode: (search_pb2.SearchMode, "SEARCH_MODE_"),
    RetrievalKind: (search_pb2.RetrievalKind, "RETRIEVAL_KIND_"),
    RankingPolicy: (search_pb2.RankingPolicy, "RANKING_POLICY_"),
    DepthPolicy: (search_pb2.DepthPolicy, "DEPTH_POLICY_"),
    Effort: (search_pb2.Effort, "EFFORT_"),
    DegradationKind: (search_pb2.DegradationKind, "DEGRADATION_KIND_"),
}
"""Each enum of ours, the contract's, and the contract's prefix. UNKNOWN stands for unspecified and for newer ones."""

_DECODERS = {
    kind: {wire.Value(prefix + member.name): member for member in kind if member.name != "UNKNOWN"}
    for kind, (wire, prefix) in ENUMS.items()
}
_ENCODERS = {kind: {member: number for number, member in numbers.items()} for kind, numbers in _DECODERS.items()}


def enum_from_proto(number: int, kind: type[EnumT]) -> EnumT:
    """A number of the contract as a member of ours; what this version does not know is UNKNOWN."""
    member = _DECODERS[kind].get(number)
    return kind["UNKNOWN"] if member is None else kind(member)


def enum_to_proto(member: StrEnum) -> Any:
    """A member of ours, or its value as a string, as a number of the contract. UNKNOWN cannot be sent."""
    number = _ENCODERS[type(member)].get(member)
    if number is None:
        raise InvalidArgument(f"{type(member).__name__}.UNKNOWN cannot be sent", reason="UNKNOWN_ENUM_MEMBER")
    return number


def time_from_proto(message: Any, field: str) -> datetime | None:
    """A timestamp field in UTC, to the microsecond; None where it is not set."""
    return getattr(message, field).ToDatetime(tzinfo=UTC) if message.HasField(field) else None


def time_to_proto(moment: datetime) -> timestamp_pb2.Timestamp:
    """A moment with a time zone as a timestamp."""
    if moment.tzinfo is None:
        raise InvalidArgument("a point in time needs a time zone", reason="TIME_WITHOUT_ZONE")
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(moment)
    return message


def document_to_proto(document: Document) -> documents_pb2.Document:
    """A document as its message. Raises InvalidArgument that names what the contract cannot carry."""
    message = documents_pb2.Document()
    for name in ("id", "title", "text"):
        value = getattr(document, name)
        if not isinstance(value, str):
            raise InvalidArgument(f"{name} is a {type(value).__name__}, not a string", field=name, reason="WRONG_TYPE")
        try:
            setattr(message, name, value)
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"{name} holds half of a surrogate pair, which UTF-8 cannot hold", field=name, reason="NOT_UTF8"
            ) from error
    if document.metadata:
        message.metadata.CopyFrom(to_struct(document.metadata))
    return message


def document_from_proto(message: documents_pb2.Document) -> Document:
    """A document message as a document."""
    return Document(id=message.id, title=message.title, text=message.text, metadata=from_struct(message.metadata))


def stored_document_from_proto(message: documents_pb2.GetDocumentResponse) -> StoredDocument:
    """The answer of GetDocument."""
    return StoredDocument(
        document=document_from_proto(message.document), update_time=time_from_proto(message, "update_time")
    )


def acknowledgement_from_proto(message: documents_pb2.IngestAcknowledgement, *, sequence: int) -> Acknowledgement:
    """An acknowledgement, under the sequence that the caller of `ingest` counts by."""
    return Acknowledgement(
        sequence=sequence,
        id=message.id,
        outcome=enum_from_proto(message.outcome, IngestOutcome),
        refusal=fault_of(message.refusal) if message.HasField("refusal") else None,
        dropped_token_count=message.dropped_token_count,
    )


def metadata_field_to_proto(field: MetadataField) -> collections_pb2.MetadataField:
    """A metadata field as its message."""
    return collections_pb2.MetadataField(key=field.key, type=enum_to_proto(field.type))


def metadata_field_from_proto(message: collections_pb2.MetadataField) -> MetadataField:
    """A metadata field."""
    return MetadataField(message.key, enum_from_proto(message.type, MetadataType))


def hnsw_to_proto(config: HnswConfig) -> collections_pb2.HnswConfig:
    """An HNSW configuration as its message."""
    return collections_pb2.HnswConfig(m=config.m, ef_construct=config.ef_construct)


def hnsw_from_proto(message: collections_pb2.HnswConfig) -> HnswConfig:
    """An HNSW configuration."""
    return HnswConfig(m=message.m, ef_construct=message.ef_construct)


def lexical_to_proto(config: LexicalConfig) -> collections_pb2.LexicalConfig:
    """A BM25 configuration as its message."""
    return collections_pb2.LexicalConfig(language=config.language, average_words=config.average_words)


def lexical_from_proto(message: collections_pb2.LexicalConfig) -> LexicalConfig:
    """A BM25 configuration."""
    return LexicalConfig(language=message.language, average_words=message.average_words)


def collection_from_proto(message: collections_pb2.Collection) -> Collection:
    """A collection."""
    return Collection(
        name=message.name,
        document_count=message.document_count,
        indexed_vector_count=message.indexed_vector_count,
        index_state=enum_from_proto(message.index_state, IndexState),
        embedder_id=message.embedder_id,
        embedder_fingerprint=message.embedder_fingerprint,
        dimension=message.dimension,
        similarity=enum_from_proto(message.similarity, Similarity),
        metadata_fields=tuple(metadata_field_from_proto(field) for field in message.metadata_fields),
        hnsw=hnsw_from_proto(message.hnsw),
        description=message.description,
        create_time=time_from_proto(message, "create_time"),
        lexical=lexical_from_proto(message.lexical) if message.HasField("lexical") else None,
    )


def progress_from_proto(message: collections_pb2.ReembedCollectionResponse) -> ReembedProgress:
    """How far re-embedding is."""
    return ReembedProgress(
        phase=enum_from_proto(message.phase, ReembedPhase),
        embedded_document_count=message.embedded_document_count,
        document_count=message.document_count,
        embedder_fingerprint=message.embedder_fingerprint,
        former_embedder_fingerprint=message.former_embedder_fingerprint,
        complete=message.complete,
    )


def fusion_to_proto(fusion: RankFusion) -> search_pb2.RankFusion:
    """A fusion as its message."""
    return search_pb2.RankFusion(k=fusion.k, dense_weight=fusion.dense_weight, lexical_weight=fusion.lexical_weight)


def fusion_from_proto(message: search_pb2.RankFusion) -> RankFusion:
    """A fusion."""
    return RankFusion(k=message.k, dense_weight=message.dense_weight, lexical_weight=message.lexical_weight)


def mixing_to_proto(mixing: RankMixing) -> search_pb2.RankMixing:
    """A mixing as its message."""
    return search_pb2.RankMixing(
        k=mixing.k, retrieval_weight=mixing.retrieval_weight, rerank_weight=mixing.rerank_weight
    )


def mixing_from_proto(message: search_pb2.RankMixing) -> RankMixing:
    """A mixing."""
    return RankMixing(k=message.k, retrieval_weight=message.retrieval_weight, rerank_weight=message.rerank_weight)


def score_mixing_from_proto(message: search_pb2.ScoreMixing) -> ScoreMixing:
    """A mixing of scores."""
    return ScoreMixing(**{field.name: getattr(message, field.name) for field in fields(ScoreMixing)})


def hit_from_proto(message: search_pb2.Hit) -> Hit:
    """A hit."""

    def stage(name: str) -> StageResult | None:
        result = getattr(message, name)
        return StageResult(score=result.score, rank=result.rank) if message.HasField(name) else None  # type: ignore[arg-type]

    return Hit(
        document=document_from_proto(message.document),
        rank=message.rank,
        score=message.score,
        retrieval=stage("retrieval"),
        rerank=stage("rerank"),
        dense=stage("dense"),
        lexical=stage("lexical"),
        probability=message.probability if message.HasField("probability") else None,
    )


def timing_from_proto(message: search_pb2.SearchTiming) -> SearchTiming:
    """Where a search's time went."""
    return SearchTiming(
        total_micros=message.total_micros,
        embed_micros=message.embed_micros,
        retrieve_micros=message.retrieve_micros,
        rerank_micros=message.rerank_micros,
        gateway_micros=message.gateway_micros,
        embed_inference_micros=message.embed_inference_micros,
        rerank_inference_micros=message.rerank_inference_micros,
        embed_token_count=message.embed_token_count,
        rerank_token_count=message.rerank_token_count,
    )


def search_result_from_proto(message: search_pb2.SearchResponse) -> SearchResult:
    """The answer to a search."""
    return SearchResult(
        hits=tuple(hit_from_proto(hit) for hit in message.hits),
        mode=enum_from_proto(message.mode, SearchMode),
        mode_reason=message.mode_reason,
        candidate_count=message.candidate_count,
        reranked_count=message.reranked_count,
        timing=timing_from_proto(message.timing),
        degradations=tuple(
            Degradation(
                kind=enum_from_proto(d.kind, DegradationKind),
                reason=d.reason,
                message=d.message,
                affected_count=d.affected_count,
            )
            for d in message.degradations
        ),
        embedder_fingerprint=message.embedder_fingerprint,
        reranker_fingerprint=message.reranker_fingerprint,
        mixing=mixing_from_proto(message.mixing) if message.HasField("mixing") else None,
        retrieval_kind=enum_from_proto(message.retrieval_kind, RetrievalKind),
        planned_depth=message.planned_depth,
        score_mixing=score_mixing_from_proto(message.score_mixing) if message.HasField("score_mixing") else None,
    )


def filter_to_proto(where: filters.Filter) -> documents_pb2.Filter:
    """A filter as its message, as flat as it can be: the contract allows eight levels."""
    match where:
        case filters.AllOf(conditions):
            message = documents_pb2.Filter()
            for condition in conditions:
                if isinstance(condition, filters.Not):
                    message.must_not.append(_condition(condition.condition))
                else:
                    message.must.append(_condition(condition))
            return message
        case filters.AnyOf(conditions):
            return documents_pb2.Filter(should=[_condition(condition) for condition in conditions])
        case filters.Not(condition):
            return documents_pb2.Filter(must_not=[_condition(condition)])
        case _:
            return documents_pb2.Filter(must=[_condition(where)])


def filter_from_proto(message: documents_pb2.Filter) -> filters.Filter:
    """A filter message as a filter that means the same."""
    parts = [_from_condition(condition) for condition in message.must]
    if message.should:
        either = tuple(_from_condition(condition) for condition in message.should)
        parts.append(either[0] if len(either) == 1 else filters.AnyOf(either))
    parts += [filters.Not(_from_condition(condition)) for condition in message.must_not]
    return parts[0] if len(parts) == 1 else filters.AllOf(tuple(parts))


def _condition(where: filters.Filter) -> documents_pb2.Condition:
    match where:
        case filters.Match(key, any_of):
            match_condition = documents_pb2.MatchCondition(key=key, any_of=[_match_value(value) for value in any_of])
            return documents_pb2.Condition(match=match_condition)
        case filters.Range():
            bounds = documents_pb2.RangeCondition(
                key=where.key,
                at_least=where.at_least,
                more_than=where.more_than,
                at_most=where.at_most,
                less_than=where.less_than,
            )
            return documents_pb2.Condition(range=bounds)
        case filters.TimeRange():
            times = documents_pb2.TimeRangeCondition(key=where.key)
            if where.from_time is not None:
                times.from_time.CopyFrom(time_to_proto(where.from_time))
            if where.before_time is not None:
                times.before_time.CopyFrom(time_to_proto(where.before_time))
            return documents_pb2.Condition(time_range=times)
        case filters.Exists(key):
            return documents_pb2.Condition(exists=documents_pb2.ExistsCondition(key=key))
        case filters.Ids(ids):
            return documents_pb2.Condition(ids=documents_pb2.IdsCondition(ids=ids))
        case _:
            return documents_pb2.Condition(filter=filter_to_proto(where))


def _match_value(value: filters.MatchValue) -> documents_pb2.MatchValue:
    # A bool is an int in Python, so it comes first.
    if isinstance(value, bool):
        return documents_pb2.MatchValue(bool_value=value)
    if isinstance(value, int):
        return documents_pb2.MatchValue(integer_value=value)
    return documents_pb2.MatchValue(string_value=value)


def _from_condition(message: documents_pb2.Condition) -> filters.Filter:
    match message.WhichOneof("condition"):
        case "match":
            kinds = [value.WhichOneof("value") or "string_value" for value in message.match.any_of]
            values = zip(message.match.any_of, kinds, strict=True)
            return filters.Match(message.match.key, tuple(getattr(value, kind) for value, kind in values))
        case "range":
            bounds = message.range
            names = ("at_least", "more_than", "at_most", "less_than")
            return filters.Range(bounds.key, **{n: getattr(bounds, n) for n in names if bounds.HasField(n)})  # type: ignore[arg-type]
        case "time_range":
            times = message.time_range
            return filters.TimeRange(
                times.key, time_from_proto(times, "from_time"), time_from_proto(times, "before_time")
            )
        case "exists":
            return filters.Exists(message.exists.key)
        case "ids":
            return filters.Ids(tuple(message.ids.ids))
        case "filter":
            return filter_from_proto(message.filter)
        case _:
            raise InvalidArgument(
                "a condition of the filter is of a kind that is not known", reason="UNKNOWN_CONDITION"
            )
