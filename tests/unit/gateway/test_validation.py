"""What a request may hold: bounds that are checked before anything large is made of it."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
import qdrant_edge as edge
from hypothesis import example, given, settings

from winnow.search.v1 import documents_pb2
from winnow_gateway import conversion, validation
from winnow_gateway.filters import Exists, Filter
from winnow_gateway.qdrant_filters import metadata_key
from winnow_rpc.faults import InvalidArgument

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


def document(metadata: dict[str, Any]) -> documents_pb2.Document:
    message = documents_pb2.Document(id="a", text="x")
    message.metadata.update(metadata)
    return message


def test_metadata_too_large_for_any_json_is_refused_before_anything_is_made_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each child once took as long as its parent's key.
    message = document({"k" * 1_000_000: {str(n): n for n in range(100)}})
    monkeypatch.setattr(conversion, "read_struct", lambda struct: pytest.fail("it was read"))
    with pytest.raises(InvalidArgument) as caught:
        conversion.read_document(message, field="document")
    assert caught.value.reason == "METADATA_TOO_LARGE"
    assert caught.value.violations[0].field == "document.metadata"


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=3), json_values, max_size=5))
def test_metadata_small_enough_as_json_is_so_in_a_message_too(metadata: dict[str, Any]) -> None:
    size = len(json.dumps(metadata, ensure_ascii=False).encode())
    validation.check_metadata_message(
        document(metadata).metadata.ByteSize() * validation.MAX_METADATA_BYTES // size, field="metadata"
    )


def test_the_densest_metadata_is_taken_up_to_its_bound() -> None:
    digits = [1] * 21_800
    assert conversion.read_document(document({"k": digits}), field="document").metadata == {"k": digits}
    with pytest.raises(InvalidArgument, match="65536 at most"):
        conversion.read_document(document({"k": [*digits, *digits[:100]]}), field="document")


@given(st.text(min_size=1, max_size=8))
@example("a\\b")
def test_the_engine_takes_every_key_that_is_let_through(key: str) -> None:
    try:
        validation.checked_filter(Filter(must=(Exists(key),)))
    except InvalidArgument:
        return
    edge.IsNullCondition(metadata_key(key))
