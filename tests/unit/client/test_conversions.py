from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest
from google.protobuf import timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from winnow.search.v1 import collections_pb2, documents_pb2, search_pb2
from winnow_client import conversions
from winnow_client.collections import Collection, HnswConfig, LexicalConfig, MetadataField, MetadataType
from winnow_client.documents import Acknowledgement, Document, IngestOutcome, StoredDocument
from winnow_client.metadata import MAX_DEPTH, MAX_WHOLE_NUMBER, from_struct, to_struct
from winnow_client.searching import (
    Degradation,
    Hit,
    RankFusion,
    RankMixing,
    RetrievalKind,
    ScoreMixing,
    SearchMode,
    SearchResult,
    SearchTiming,
    StageResult,
)
from winnow_rpc.faults import InvalidArgument
from winnow_rpc.status import status_of

texts = st.text(st.characters(exclude_categories=["Cs"]))
whole = st.integers(-MAX_WHOLE_NUMBER, MAX_WHOLE_NUMBER)
scalars = st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | texts
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
metadata = st.dictionaries(texts, json_values, max_size=4)


@given(st.builds(Document, id=texts, title=texts, text=texts, metadata=metadata))
def test_a_document_comes_back_as_it_was(document: Document) -> None:
    message = conversions.document_to_proto(document)
    again = documents_pb2.Document.FromString(message.SerializeToString())
    assert conversions.document_from_proto(again) == document


@given(metadata)
def test_whole_numbers_come_back_whole(value: dict[str, Any]) -> None:
    def kinds(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {key: kinds(each) for key, each in inner.items()}
        if isinstance(inner, list):
            return [kinds(each) for each in inner]
        # A number without a fraction is whole, however it was written: JSON knows one kind of number.
        if isinstance(inner, float) and inner.is_integer() and abs(inner) <= MAX_WHOLE_NUMBER:
            return int
        return type(inner)

    assert kinds(from_struct(to_struct(value))) == kinds(value)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"a": math.nan}, "metadata.a"),
        ({"a": [1, math.inf]}, "metadata.a[1]"),
        ({"a": {"b": {1, 2}}}, "metadata.a.b"),
        ({"a": 2**53 + 1}, "metadata.a"),
        ({"a": b"bytes"}, "metadata.a"),
        ({"a": "\ud800"}, "metadata.a"),
        ({"a": {1: 2}}, "metadata.a"),
        (["a"], "metadata"),
        ("text", "metadata"),
        (7, "metadata"),
    ],
)
def test_metadata_that_json_cannot_hold_is_refused_by_its_path(value: Any, named: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        to_struct(value)
    assert caught.value.reason == "METADATA_NOT_REPRESENTABLE"
    assert [violation.field for violation in caught.value.violations] == [named]


@pytest.mark.parametrize("wrap", [lambda inner: {"a": inner}, lambda inner: [inner]])
def test_metadata_may_be_as_deep_as_the_contract_allows_and_no_deeper(wrap: Any) -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH - 1):
        value = wrap(value)
    assert from_struct(to_struct({"a": value})) == {"a": value}
    with pytest.raises(InvalidArgument, match="deeper than 16"):
        to_struct({"a": wrap(value)})


@pytest.mark.parametrize(("name", "value"), [("id", 7), ("title", None), ("text", b"bytes")])
def test_a_field_of_the_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=name) as caught:
        conversions.document_to_proto(dataclasses.replace(Document(id="a", text="b"), **{name: value}))
    assert caught.value.reason == "WRONG_TYPE"


def test_half_a_surrogate_pair_is_refused_as_not_utf8() -> None:
    with pytest.raises(InvalidArgument) as caught:
        conversions.document_to_proto(Document(id="a", text="\ud83d"))
    assert caught.value.reason == "NOT_UTF8"


@pytest.mark.parametrize("kind", conversions.ENUMS)
def test_every_member_of_the_contracts_enums_has_one_of_ours(kind: type[StrEnum]) -> None:
    wire, prefix = conversions.ENUMS[kind]
    ours = {member.name for member in kind} - {"UNKNOWN"}
    assert {prefix + name for name in ours} == set(wire.keys()) - {prefix + "UNSPECIFIED"}
    for name in ours:
        assert conversions.enum_from_proto(conversions.enum_to_proto(kind[name]), kind) is kind[name]


def test_a_member_that_is_newer_than_this_version_is_unknown_and_cannot_be_sent() -> None:
    assert conversions.enum_from_proto(99, SearchMode) is SearchMode.UNKNOWN
    assert conversions.enum_from_proto(0, SearchMode) is SearchMode.UNKNOWN
    with pytest.raises(InvalidArgument):
        conversions.enum_to_proto(SearchMode.UNKNOWN)


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        (Collection, collections_pb2.Collection),
        (MetadataField, collections_pb2.MetadataField),
        (HnswConfig, collections_pb2.HnswConfig),
        (LexicalConfig, collections_pb2.LexicalConfig),
        (Document, documents_pb2.Document),
        (StoredDocument, documents_pb2.GetDocumentResponse),
        (Acknowledgement, documents_pb2.IngestAcknowledgement),
        (SearchResult, search_pb2.SearchResponse),
        (Hit, search_pb2.Hit),
        (StageResult, search_pb2.StageResult),
        (SearchTiming, search_pb2.SearchTiming),
        (Degradation, search_pb2.Degradation),
        (RankMixing, search_pb2.RankMixing),
        (ScoreMixing, search_pb2.ScoreMixing),
        (RankFusion, search_pb2.RankFusion),
    ],
)
def test_no_field_of_a_message_is_forgotten(ours: Any, message: Any) -> None:
    assert {each.name for each in dataclasses.fields(ours)} == set(message.DESCRIPTOR.fields_by_name)


@given(st.builds(MetadataField, texts, st.sampled_from([kind for kind in MetadataType if kind != "unknown"])))
def test_a_metadata_field_comes_back_as_it_was(value: MetadataField) -> None:
    assert conversions.metadata_field_from_proto(conversions.metadata_field_to_proto(value)) == value


@given(st.integers(0, 128), st.integers(0, 4096))
def test_an_hnsw_configuration_comes_back_as_it_was(m: int, ef_construct: int) -> None:
    value = HnswConfig(m=m, ef_construct=ef_construct)
    assert conversions.hnsw_from_proto(conversions.hnsw_to_proto(value)) == value


@given(texts, st.integers(0, 1_000_000))
def test_a_bm25_configuration_comes_back_as_it_was(language: str, words: int) -> None:
    value = LexicalConfig(language=language, average_words=words)
    assert conversions.lexical_from_proto(conversions.lexical_to_proto(value)) == value


@given(st.integers(1, 1_000_000), st.floats(0, 10, width=32), st.floats(0, 10, width=32))
def test_a_fusion_comes_back_as_it_was(k: int, dense: float, lexical: float) -> None:
    value = RankFusion(k=k, dense_weight=dense, lexical_weight=lexical)
    assert conversions.fusion_from_proto(conversions.fusion_to_proto(value)) == value


@given(st.floats(1, 100, width=32), st.floats(0, 10, width=32), st.floats(0, 10, width=32))
def test_a_mixing_comes_back_as_it_was(k: float, first: float, second: float) -> None:
    value = RankMixing(k=k, retrieval_weight=first, rerank_weight=second)
    assert conversions.mixing_from_proto(conversions.mixing_to_proto(value)) == value


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-12, 12))  # noqa: DTZ001
def test_a_point_in_time_comes_back_in_utc(moment: datetime, hours: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    message = documents_pb2.GetDocumentResponse(update_time=conversions.time_to_proto(aware))
    assert conversions.stored_document_from_proto(message).update_time == aware


def test_a_whole_answer_is_converted() -> None:
    message = search_pb2.SearchResponse(
        hits=[
            search_pb2.Hit(
                document=documents_pb2.Document(id="a", title="A"),
                rank=1,
                score=0.5,
                retrieval=search_pb2.StageResult(score=0.25, rank=3),
                dense=search_pb2.StageResult(score=0.75, rank=2),
                probability=0.125,
            )
        ],
        mode=search_pb2.SEARCH_MODE_TWO_STAGE,
        candidate_count=7,
        timing=search_pb2.SearchTiming(total_micros=5, rerank_token_count=9),
        degradations=[
            search_pb2.Degradation(
                kind=search_pb2.DEGRADATION_KIND_RERANK_SKIPPED, reason="DEADLINE", affected_count=20
            )
        ],
        retrieval_kind=search_pb2.RETRIEVAL_KIND_HYBRID,
        planned_depth=20,
        mixing=search_pb2.RankMixing(k=2, retrieval_weight=1, rerank_weight=0.5),
    )
    result = conversions.search_result_from_proto(message)
    [hit] = result.hits
    assert hit == Hit(
        document=Document(id="a", title="A"),
        rank=1,
        score=0.5,
        retrieval=StageResult(score=0.25, rank=3),
        rerank=None,
        dense=StageResult(score=0.75, rank=2),
        lexical=None,
        probability=0.125,
    )
    assert (result.mode, result.candidate_count) == (SearchMode.TWO_STAGE, 7)
    assert (result.timing.total_micros, result.timing.rerank_token_count) == (5, 9)
    assert (result.degradations[0].kind, result.degradations[0].affected_count) == ("rerank-skipped", 20)
    assert (result.retrieval_kind, result.planned_depth) == (RetrievalKind.HYBRID, 20)
    assert result.mixing == RankMixing(k=2, retrieval_weight=1, rerank_weight=0.5)
    assert result.score_mixing is None
    assert conversions.search_result_from_proto(search_pb2.SearchResponse()).mixing is None


def test_a_mixing_of_scores_is_converted() -> None:
    weights = {field.name: 0.5 * number for number, field in enumerate(dataclasses.fields(ScoreMixing), start=1)}
    message = search_pb2.SearchResponse(score_mixing=search_pb2.ScoreMixing(**weights))
    assert conversions.search_result_from_proto(message).score_mixing == ScoreMixing(**weights)


def test_a_refusal_becomes_the_fault_that_the_gateway_raised() -> None:
    fault = InvalidArgument("the text has 9 bytes: 8 at most", field="text", reason="TEXT_TOO_LONG")
    message = documents_pb2.IngestAcknowledgement(
        sequence=3, id="x", outcome=documents_pb2.INGEST_OUTCOME_REFUSED, refusal=status_of(fault)
    )
    acknowledgement = conversions.acknowledgement_from_proto(message, sequence=5)
    assert (acknowledgement.sequence, acknowledgement.outcome) == (5, IngestOutcome.REFUSED)
    assert isinstance(acknowledgement.refusal, InvalidArgument)
    assert acknowledgement.refusal.reason == "TEXT_TOO_LONG"


def test_a_time_that_is_not_set_is_none_and_the_epoch_is_not() -> None:
    assert conversions.collection_from_proto(collections_pb2.Collection()).create_time is None
    message = collections_pb2.Collection(create_time=timestamp_pb2.Timestamp())
    assert conversions.collection_from_proto(message).create_time == datetime(1970, 1, 1, tzinfo=UTC)
