from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow_client.cli.ingest_run import Replay
from winnow_client.cli.output import plain, printable, snippet
from winnow_client.cli.reading.records import Item, Place
from winnow_client.documents import Document, StoredDocument
from winnow_client.searching import SearchMode
from winnow_rpc.faults import NotFound


def test_values_become_what_json_holds() -> None:
    stored = StoredDocument(document=Document(id="a", metadata={"n": 1}), update_time=datetime(2024, 5, 1, tzinfo=UTC))
    assert plain(stored) == {
        "document": {"id": "a", "text": "", "title": "", "metadata": {"n": 1}},
        "update_time": "2024-05-01T00:00:00Z",
    }
    assert plain([SearchMode.TWO_STAGE, math.nan, (1, None)]) == ["two-stage", None, [1, None]]
    assert plain(NotFound("gone", reason="GONE")) == {"reason": "GONE", "message": "gone", "metadata": {}}


def test_a_document_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[31mred\tb\u202e\x9b") == "a�[31mred b��"
    assert printable("half \ud800") == "half \\ud800"
    assert printable("one\ntwo é") == "one\ntwo é"


def test_a_snippet_begins_near_the_first_word_of_the_query() -> None:
    text = "filler " * 100 + "the needle is here " + "after " * 100
    cut = snippet(text, "where is the needle", width=80)
    assert "needle" in cut
    assert cut.startswith("…filler")
    assert cut.endswith("…")
    assert snippet("short\ntext", "needle") == "short text"


@given(st.text(max_size=300), st.text(max_size=20), st.integers(10, 100))
def test_a_snippet_is_one_line_of_bounded_length(text: str, query: str, width: int) -> None:
    cut = snippet(text, query, width=width)
    assert "\n" not in cut
    assert len(cut) <= width


def item(number: int) -> Item:
    return Item(Place("f", number), Document(id=str(number), text="x"))


def test_a_new_stream_begins_with_what_is_not_settled() -> None:
    replay = Replay(item(number) for number in range(6))
    first = replay.stream()
    assert [next(first).document.id for _ in range(4)] == ["0", "1", "2", "3"]
    assert [replay.settle().document.id for _ in range(2)] == ["0", "1"]
    assert [each.document.id for each in replay.stream()] == ["2", "3", "4", "5"]
    assert replay.settled_count == 2


def test_what_an_abandoned_stream_still_gets_is_not_lost() -> None:
    gate = threading.Event()

    def source() -> Iterator[Item]:
        yield item(0)
        assert gate.wait(timeout=10)
        yield item(1)
        yield item(2)

    replay = Replay(source())
    old = replay.stream()
    next(old)
    waiting = threading.Thread(target=lambda: next(old))
    waiting.start()
    new = replay.stream()
    gate.set()
    assert [each.document.id for each in new] == ["0", "1", "2"]
    waiting.join(timeout=10)
    assert not waiting.is_alive()


def test_what_an_abandoned_stream_is_told_of_a_source_that_fails_is_told_the_next_one_too() -> None:
    def source() -> Iterator[Item]:
        yield item(0)
        raise OSError("the disk is gone")

    replay = Replay(source())
    for _ in range(2):
        stream = replay.stream()
        assert next(stream).document.id == "0"
        with pytest.raises(OSError, match="the disk is gone"):
            next(stream)


def test_settling_does_not_wait_for_a_source_that_does_not_answer() -> None:
    gate = threading.Event()

    def source() -> Iterator[Item]:
        yield item(0)
        assert gate.wait(timeout=10)

    replay = Replay(source())
    reading = threading.Thread(target=lambda: list(replay.stream()))
    reading.start()
    while replay.pending_count == 0:
        time.sleep(0.001)
    assert replay.settle().document.id == "0"
    gate.set()
    reading.join(timeout=10)
    assert not reading.is_alive()


def test_settling_more_than_was_handed_out_is_a_mistake() -> None:
    with pytest.raises(IndexError):
        Replay(iter([item(0)])).settle()
