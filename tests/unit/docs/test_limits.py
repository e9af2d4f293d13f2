"""docs/limits.md gives the figures that the code holds to."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow_client.cli.reading.records import MAX_RECORD_BYTES
from winnow_embedder.settings import EmbedderSettings
from winnow_gateway import planning, validation
from winnow_gateway.settings import GatewaySettings
from winnow_reranker.settings import RerankerSettings

PAGE = (Path(__file__).parents[3] / "docs" / "limits.md").read_text(encoding="utf-8")
GATEWAY, EMBEDDER, RERANKER = GatewaySettings(), EmbedderSettings(), RerankerSettings()

SAID = [
    f"| id | 1 to {validation.MAX_ID_BYTES} bytes",
    f"| title | {validation.MAX_TITLE_BYTES:,} bytes",
    f"| text | {validation.MAX_TEXT_BYTES:,} bytes",
    f"| metadata | {validation.MAX_METADATA_BYTES:,} bytes as JSON, {validation.MAX_METADATA_DEPTH} levels deep",
    f"| documents in one message of an ingest | 1 to {validation.MAX_BATCH_DOCUMENTS:,};",
    f"| description | {validation.MAX_DESCRIPTION_BYTES:,} bytes",
    f"| metadata fields that are indexed | {validation.MAX_METADATA_FIELDS};",
    f"| path of a metadata field | 1 to {validation.MAX_KEY_BYTES} bytes",
    f"| BM25 `average_words` | 1 to {validation.MAX_AVERAGE_WORDS:,},",
    f"| query | 1 to {validation.MAX_QUERY_BYTES:,} bytes",
    f"| `limit`, hits to return | 1 to {planning.MAX_LIMIT:,}, default {planning.DEFAULT_LIMIT} |",
    f"| `depth`, candidates to rerank | 1 to {planning.MAX_DEPTH:,}, default {planning.DEFAULT_DEPTH} |",
    f"| EXHAUSTIVE | collections of {planning.MAX_EXHAUSTIVE:,} documents",
    f"| budget | {validation.MIN_BUDGET_MICROS:,} to {validation.MAX_BUDGET_MICROS:,} microseconds",
    f"| fusion: k; weights | 1 to {validation.MAX_FUSION_K:,};",
    f"| conditions | {validation.MAX_FILTER_CONDITIONS}, nested {validation.MAX_FILTER_DEPTH} deep",
    f"| values of one match | 1 to {validation.MAX_MATCH_VALUES:,},",
    f"| ids of one condition | 1 to {validation.MAX_IDS:,} |",
    f"| page of documents or collections | 1 to {validation.MAX_PAGE_SIZE:,}, default {validation.DEFAULT_PAGE_SIZE} |",
    f"| ids of one deletion | {validation.MAX_IDS:,} |",
    f"| {GATEWAY.default_deadline_seconds:g} s | `default_deadline_seconds` |",
    f"| {GATEWAY.max_searches}, and {GATEWAY.max_work_seconds:g} s of expected work |",
    f"| {EMBEDDER.max_queued_tokens:,} | `max_queued_tokens` |",
    f"| {EMBEDDER.max_text_count:,} | `max_text_count` |",
    f"| {RERANKER.max_document_count:,} | `max_document_count` |",
    f"| {GATEWAY.max_message_bytes // 2**20} MiB | `max_message_bytes` |",
    f"| {GATEWAY.max_connections:,}; {GATEWAY.max_concurrent_streams:,} | `max_connections`",
    f"a text file of more than {MAX_RECORD_BYTES // 2**20} MiB",
]


@pytest.mark.parametrize("said", SAID)
def test_the_page_says_what_the_code_holds_to(said: str) -> None:
    assert said in PAGE
