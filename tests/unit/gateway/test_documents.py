"""Identity and content hash of documents."""

import uuid

import hypothesis.strategies as st
from hypothesis import given

from winnow_gateway.documents import HEAD_BYTES, Document, point_id, split_text

text = st.text(st.characters(codec="utf-8"), max_size=50)


def test_a_documents_point_is_the_same_on_every_machine() -> None:
    # Stored collections depend on these: a change of the derivation is a change of format.
    assert point_id("a") == "ace264df-8145-8d55-964a-0bdeb2e52aa0"
    assert uuid.UUID(point_id("a")).version == 8


@given(text, text, st.integers(0, 5), st.integers(0, 5))
def test_different_ids_or_passages_have_different_points(first: str, second: str, i: int, j: int) -> None:
    assert (point_id(first, i) == point_id(second, j)) == ((first, i) == (second, j))


def test_any_change_of_content_changes_the_hash_and_the_id_does_not() -> None:
    base = Document("a", "title", "text", {"k": [1, {"x": None}]})
    assert base.content_hash == Document("b", "title", "text", {"k": [1, {"x": None}]}).content_hash
    for changed in (
        Document("a", "titl", "etext", {"k": [1, {"x": None}]}),
        Document("a", "title", "text ", {"k": [1, {"x": None}]}),
        Document("a", "title", "text", {"k": [1, {"x": False}]}),
        Document("a", "title", "text", {}),
    ):
        assert changed.content_hash != base.content_hash


def test_the_order_of_metadata_keys_does_not_matter() -> None:
    assert (
        Document("a", "", "t", {"x": 1, "y": 2}).content_hash == Document("a", "", "t", {"y": 2, "x": 1}).content_hash
    )


def test_the_models_read_title_and_text() -> None:
    assert Document("a", "Title", "Text").passage == "Title\nText"
    assert Document("a", "", "Text").passage == "Text"


@given(st.text(st.characters(codec="utf-8")), st.integers(HEAD_BYTES - 8, HEAD_BYTES + 8))
def test_a_text_is_split_between_characters_and_loses_nothing(tail: str, padding: int) -> None:
    whole = "x" * padding + tail
    head, rest = split_text(whole)
    assert head + rest == whole
    assert len(head.encode()) <= HEAD_BYTES
    assert not rest or len((head + rest[0]).encode()) > HEAD_BYTES
