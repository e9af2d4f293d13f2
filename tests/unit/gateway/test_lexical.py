"""How a collection's BM25 is described to the index, and what is kept of it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import qdrant_edge as edge
from qdrant_client import models

from winnow_gateway.collection_metadata import KEY, read_spec, write_spec
from winnow_gateway.collections import (
    LANGUAGES,
    NO_LANGUAGE,
    CollectionSpec,
    EmbedderModel,
    LexicalConfig,
    Similarity,
)
from winnow_gateway.qdrant_points import bm25_text

SPEC = CollectionSpec("docs", EmbedderModel("m", "f" * 64, 8, Similarity.COSINE), lexical=LexicalConfig("german", 40))
CREATED = datetime(2026, 1, 2, tzinfo=UTC)


def test_the_languages_are_those_that_qdrant_has_stop_words_for() -> None:
    assert {language.value for language in models.Language} == LANGUAGES


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_the_engine_knows_every_language(language: str) -> None:
    assert edge.Bm25(edge.Bm25Config(language=language))


def test_no_language_is_said_in_the_way_that_lasts() -> None:
    options = bm25_text("the text", LexicalConfig(NO_LANGUAGE, 10)).options
    assert options == {
        "avg_len": 10.0,
        "stemmer": {"type": "none"},
        "stopwords": {"languages": [], "custom": []},
    }


def test_languages_written_without_spaces_are_cut_into_words_otherwise() -> None:
    assert bm25_text("x", LexicalConfig("german")).options == {"avg_len": 128.0, "language": "german"}
    assert dict(bm25_text("x", LexicalConfig("japanese")).options or {})["tokenizer"] == "multilingual"


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, lexical=None)])
def test_what_a_collection_was_made_from_comes_back(spec: CollectionSpec) -> None:
    assert read_spec("docs", write_spec(spec, created=CREATED)) == (spec, CREATED)


def test_a_collection_made_before_there_was_bm25_has_vectors_alone() -> None:
    metadata = write_spec(replace(SPEC, lexical=None), created=CREATED)
    assert "lexical" not in metadata[KEY]
    read = read_spec("docs", metadata)
    assert read
    assert read[0].lexical is None


def test_a_gateway_that_knows_no_bm25_takes_a_collection_with_it_for_anothers() -> None:
    assert write_spec(SPEC, created=CREATED)[KEY]["version"] != 1
    assert write_spec(replace(SPEC, lexical=None), created=CREATED)[KEY]["version"] == 1
