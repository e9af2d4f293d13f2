"""What a request may hold. Each function returns the checked value or raises InvalidArgument that names the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

from winnow_gateway.collections import LANGUAGES, NO_LANGUAGE, HnswConfig, LexicalConfig, MetadataField
from winnow_gateway.documents import Document, Json
from winnow_gateway.filters import Condition, Exists, Filter, HasId, Match, Range, TimeRange
from winnow_gateway.ordering import Fusion
from winnow_rpc.faults import InvalidArgument, quoted

MAX_ID_BYTES = 512
MAX_TITLE_BYTES = 4_096
MAX_TEXT_BYTES = 1024 * 1024
MAX_QUERY_BYTES = 32_768
MAX_METADATA_BYTES = 64 * 1024
# A digit in a list takes 3 bytes as JSON and 11 in a message; nothing that JSON holds grows by more.
_MAX_METADATA_MESSAGE_BYTES = 4 * MAX_METADATA_BYTES
MAX_METADATA_DEPTH = 16
MAX_BATCH_DOCUMENTS = 1_000
MAX_IDS = 10_000
MAX_KEY_BYTES = 255
MAX_METADATA_FIELDS = 64
MAX_DESCRIPTION_BYTES = 1_024
MAX_FILTER_CONDITIONS = 256
MAX_FILTER_DEPTH = 8
MAX_MATCH_VALUES = 1_000
MIN_BUDGET_MICROS = 1_000
MAX_BUDGET_MICROS = 3_600_000_000
MAX_AVERAGE_WORDS = 1_000_000
MAX_FUSION_K = 1_000_000
MAX_FUSION_WEIGHT = 1_000_000
MAX_PAGE_SIZE = 1_000
DEFAULT_PAGE_SIZE = 100

_COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def checked_collection_name(name: str, *, field: str = "collection") -> str:
    """A collection's name."""
    if not _COLLECTION_NAME.fullmatch(name):
        raise InvalidArgument(
            f"{quoted(name)} is no collection name: 1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit",
            field=field,
            reason="BAD_COLLECTION_NAME",
        )
    return name


def checked_document_id(id_: str, *, field: str = "id") -> str:
    """A document's id."""
    if not id_:
        raise InvalidArgument("the document's id is empty", field=field, reason="EMPTY_ID")
    _check_bytes(id_, MAX_ID_BYTES, "the document's id", field=field, reason="ID_TOO_LONG")
    return id_


def checked_ids(ids: Sequence[str], *, field: str) -> Sequence[str]:
    """Ids of several documents."""
    if len(ids) > MAX_IDS:
        raise InvalidArgument(f"{len(ids)} ids are too many: {MAX_IDS} at most", field=field, reason="TOO_MANY_IDS")
    for position, id_ in enumerate(ids):
        checked_document_id(id_, field=f"{field}[{position}]")
    return ids


def checked_document(document: Document, *, field: str) -> Document:
    """A document to be written."""
    checked_document_id(document.id, field=f"{field}.id")
    if not document.text.strip() and not document.title.strip():
        raise InvalidArgument("title and text are both blank", field=f"{field}.text", reason="EMPTY_TEXT")
    _check_bytes(document.title, MAX_TITLE_BYTES, "the title", field=f"{field}.title", reason="TITLE_TOO_LONG")
    _check_bytes(document.text, MAX_TEXT_BYTES, "the text", field=f"{field}.text", reason="TEXT_TOO_LONG")
    _check_metadata(document.metadata, field=f"{field}.metadata")
    return document


def check_metadata_message(size: int, *, field: str) -> None:
    """That metadata of so many bytes in a message can be small enough as JSON: before anything is made of it."""
    if size > _MAX_METADATA_MESSAGE_BYTES:
        raise InvalidArgument(
            f"the metadata has {size} bytes in the message: {MAX_METADATA_BYTES} at most as JSON",
            field=field,
            reason="METADATA_TOO_LARGE",
        )


def checked_query(query: str) -> str:
    """A search query."""
    if not query.strip():
        raise InvalidArgument("the query is blank", field="query", reason="EMPTY_QUERY")
    _check_bytes(query, MAX_QUERY_BYTES, "the query", field="query", reason="QUERY_TOO_LONG")
    return query


def checked_count(value: int, *, field: str, default: int, maximum: int) -> int:
    """A count of 1 to `maximum`, 0 for the default."""
    if value == 0:
        return default
    if not 1 <= value <= maximum:
        raise InvalidArgument(
            f"{field} is {value}: 1 to {maximum}, or 0 for {default}", field=field, reason="OUT_OF_RANGE"
        )
    return value


def checked_budget(micros: int) -> float:
    """A search's budget in microseconds, as seconds."""
    if not MIN_BUDGET_MICROS <= micros <= MAX_BUDGET_MICROS:
        raise InvalidArgument(
            f"budget_micros is {micros}: {MIN_BUDGET_MICROS:,} (a millisecond) to {MAX_BUDGET_MICROS:,} (an hour)",
            field="budget_micros",
            reason="OUT_OF_RANGE",
        )
    return micros / 1e6


def checked_score(value: float, *, field: str) -> float:
    """A least score."""
    if not math.isfinite(value):
        raise InvalidArgument(f"{field} is {value}: it must be finite", field=field, reason="NOT_FINITE")
    return value


def checked_probability(value: float, *, field: str) -> float:
    """A least probability."""
    if not 0 <= value <= 1:
        raise InvalidArgument(f"{field} is {value}: 0 to 1", field=field, reason="OUT_OF_RANGE")
    return value


def checked_description(description: str) -> str:
    """A collection's description."""
    _check_bytes(
        description, MAX_DESCRIPTION_BYTES, "the description", field="description", reason="DESCRIPTION_TOO_LONG"
    )
    return description


def checked_metadata_fields(fields: Sequence[MetadataField]) -> Sequence[MetadataField]:
    """Metadata fields to index."""
    if len(fields) > MAX_METADATA_FIELDS:
        raise InvalidArgument(
            f"{len(fields)} metadata fields are too many: {MAX_METADATA_FIELDS} at most",
            field="metadata_fields",
            reason="TOO_MANY_FIELDS",
        )
    seen: set[str] = set()
    for position, each in enumerate(fields):
        place = f"metadata_fields[{position}].key"
        _check_key(each.key, field=place)
        if each.key in seen:
            raise InvalidArgument(f"the metadata field {each.key!r} appears twice", field=place, reason="DUPLICATE")
        seen.add(each.key)
    return fields


def checked_hnsw(hnsw: HnswConfig) -> HnswConfig:
    """How to build a graph."""
    for name, value, maximum in (("m", hnsw.m, 128), ("ef_construct", hnsw.ef_construct, 4096)):
        if not 4 <= value <= maximum:
            raise InvalidArgument(
                f"hnsw.{name} is {value}: 4 to {maximum}, or 0 for the default",
                field=f"hnsw.{name}",
                reason="OUT_OF_RANGE",
            )
    return hnsw


def checked_lexical(lexical: LexicalConfig) -> LexicalConfig:
    """How to index for BM25."""
    if lexical.language not in LANGUAGES and lexical.language != NO_LANGUAGE:
        known = ", ".join(sorted(LANGUAGES))
        raise InvalidArgument(
            f"{quoted(lexical.language)} is no language of the BM25 index: {known}, or {NO_LANGUAGE}",
            field="lexical.language",
            reason="UNKNOWN_LANGUAGE",
        )
    if not 1 <= lexical.average_words <= MAX_AVERAGE_WORDS:
        raise InvalidArgument(
            f"lexical.average_words is {lexical.average_words}: 1 to {MAX_AVERAGE_WORDS}, or 0 for the default",
            field="lexical.average_words",
            reason="OUT_OF_RANGE",
        )
    return lexical


def checked_fusion(fusion: Fusion, *, field: str) -> Fusion:
    """How two orders are fused."""
    if not 1 <= fusion.k <= MAX_FUSION_K:
        raise InvalidArgument(
            f"{field}.k is {fusion.k}: 1 to {MAX_FUSION_K}", field=f"{field}.k", reason="OUT_OF_RANGE"
        )
    for name in ("dense_weight", "lexical_weight"):
        weight = getattr(fusion, name)
        # Past some weight the first rank's share is more than a float holds.
        if not 0 < weight <= MAX_FUSION_WEIGHT:
            raise InvalidArgument(
                f"{field}.{name} is {weight}: above 0, {MAX_FUSION_WEIGHT} at most",
                field=f"{field}.{name}",
                reason="OUT_OF_RANGE",
            )
    return fusion


def checked_filter(filter_: Filter, *, field: str = "filter") -> Filter:
    """A filter, with everything in it."""
    count = _check_conditions(filter_, field=field, depth=1)
    if count > MAX_FILTER_CONDITIONS:
        raise InvalidArgument(
            f"the filter has {count} conditions: {MAX_FILTER_CONDITIONS} at most",
            field=field,
            reason="FILTER_TOO_LARGE",
        )
    return filter_


def _check_conditions(filter_: Filter, *, field: str, depth: int) -> int:
    if depth > MAX_FILTER_DEPTH:
        raise InvalidArgument(
            f"the filter is nested deeper than {MAX_FILTER_DEPTH}", field=field, reason="FILTER_TOO_DEEP"
        )
    count = 0
    for name in ("must", "should", "must_not"):
        conditions: Sequence[Condition] = getattr(filter_, name)
        for position, condition in enumerate(conditions):
            place = f"{field}.{name}[{position}]"
            if isinstance(condition, Filter):
                if condition.empty:
                    raise InvalidArgument("a filter within a filter is empty", field=place, reason="EMPTY_CONDITION")
                count += _check_conditions(condition, field=f"{place}.filter", depth=depth + 1)
            else:
                _check_condition(condition, field=place)
                count += 1
    return count


def _check_condition(condition: Condition, *, field: str) -> None:
    match condition:
        case HasId(ids=ids):
            if not ids:
                raise InvalidArgument("no ids are given", field=f"{field}.ids.ids", reason="EMPTY_CONDITION")
            checked_ids(ids, field=f"{field}.ids.ids")
        case Match(key=key, any_of=values):
            _check_key(key, field=f"{field}.match.key")
            if not 1 <= len(values) <= MAX_MATCH_VALUES:
                raise InvalidArgument(
                    f"{len(values)} values to match: 1 to {MAX_MATCH_VALUES}",
                    field=f"{field}.match.any_of",
                    reason="OUT_OF_RANGE",
                )
            if len({type(value) for value in values}) > 1:
                raise InvalidArgument(
                    "the values to match are of several types", field=f"{field}.match.any_of", reason="MIXED_TYPES"
                )
        case Range(key=key):
            _check_key(key, field=f"{field}.range.key")
            bounds = (condition.at_least, condition.more_than, condition.at_most, condition.less_than)
            given = [bound for bound in bounds if bound is not None]
            if not given:
                raise InvalidArgument("the range has no bound", field=f"{field}.range", reason="EMPTY_CONDITION")
            if not all(math.isfinite(bound) for bound in given):
                raise InvalidArgument("a bound of the range is not finite", field=f"{field}.range", reason="NOT_FINITE")
        case TimeRange(key=key, start=start, end=end):
            _check_key(key, field=f"{field}.time_range.key")
            if start is None and end is None:
                raise InvalidArgument("the range has no bound", field=f"{field}.time_range", reason="EMPTY_CONDITION")
        case Exists(key=key):
            _check_key(key, field=f"{field}.exists.key")
        case Filter():
            raise AssertionError("filters within filters are taken apart by the caller")


def _check_key(key: str, *, field: str) -> None:
    # Qdrant reads brackets and quotes in a path as its own syntax, and no backslash.
    if not key or any(not part for part in key.split(".")) or re.search(r'[\[\]"\\\x00-\x1f]', key):
        raise InvalidArgument(
            f"{quoted(key)} is no path of a metadata field: keys joined by dots, without brackets, quotes, backslashes",
            field=field,
            reason="BAD_KEY",
        )
    _check_bytes(key, MAX_KEY_BYTES, "the path", field=field, reason="KEY_TOO_LONG")


def _check_metadata(metadata: Mapping[str, Json], *, field: str) -> None:
    _check_json(dict(metadata), field, ())
    size = len(json.dumps(metadata, ensure_ascii=False).encode())
    if size > MAX_METADATA_BYTES:
        raise InvalidArgument(
            f"the metadata has {size} bytes as JSON: {MAX_METADATA_BYTES} at most",
            field=field,
            reason="METADATA_TOO_LARGE",
        )


def _check_json(value: Json, field: str, path: tuple[str | int, ...]) -> None:
    # The path is put into words for a refusal alone: to write out a long key for each of its children takes too long.
    if len(path) > MAX_METADATA_DEPTH:
        raise InvalidArgument(
            f"the metadata is nested deeper than {MAX_METADATA_DEPTH}",
            field=_place(field, path),
            reason="METADATA_TOO_DEEP",
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidArgument("a number in the metadata is not finite", field=_place(field, path), reason="NOT_FINITE")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_json(inner, field, (*path, key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _check_json(inner, field, (*path, position))


def _place(field: str, path: tuple[str | int, ...]) -> str:
    return field + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _check_bytes(text: str, maximum: int, what: str, *, field: str, reason: str) -> None:
    size = len(text.encode())
    if size > maximum:
        raise InvalidArgument(f"{what} has {size} bytes: {maximum} at most", field=field, reason=reason)
