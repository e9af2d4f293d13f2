"""Page tokens."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from winnow_gateway.documents import point_id
from winnow_gateway.paging import is_point, read_token, write_token
from winnow_rpc.faults import InvalidArgument


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_token_gives_back_its_position(position: str) -> None:
    assert read_token("documents", write_token("documents", position)) == position


def test_the_end_is_the_empty_token() -> None:
    assert write_token("documents", None) == ""
    assert read_token("documents", "") is None


@pytest.mark.parametrize("token", ["x", "!!!!", "ZG9jdW1lbnRzOg", "é", "_w", write_token("collections", "a")])
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="page token"):
        read_token("documents", token)


def test_a_page_of_documents_begins_at_a_point() -> None:
    point = point_id("a")
    assert read_token("documents", write_token("documents", point), possible=is_point) == point
    for position in ("nonsense", point[:-1], f"{{{point}}}", point.upper(), "7"):
        with pytest.raises(InvalidArgument) as caught:
            read_token("documents", write_token("documents", position), possible=is_point)
        assert caught.value.reason == "BAD_PAGE_TOKEN"


@given(st.text())
def test_no_token_does_worse_than_being_refused(token: str) -> None:
    try:
        read_token("documents", token)
    except InvalidArgument:
        return
