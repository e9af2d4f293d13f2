"""A judged set that cannot be evaluated says why, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.lab.evaluating.made_up import DOCUMENTS, QRELS, QUERIES, write_set
from winnow_lab.evaluating.sets import count_judged, read_set
from winnow_rpc.faults import InvalidArgument, NotFound


def test_the_same_queries_are_drawn_each_time(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "made-up")
    whole, drawn = read_set(folder, split="test"), read_set(folder, split="test", queries=2)
    assert [query.id for query in whole.queries] == list(QUERIES)
    assert (whole.name, whole.judged_count, len(whole.documents), whole.notes) == ("made-up", 4, len(DOCUMENTS), ())
    assert drawn.queries == read_set(folder, split="test", queries=2).queries
    assert (len(drawn.queries), drawn.judged_count) == (2, 4)


def test_judged_documents_that_are_not_there_are_named_or_left_out(tmp_path: Path) -> None:
    qrels = {**QRELS, "q1": {"paris": 1, "rome": 1}, "q2": {"oslo": 1}}
    folder = write_set(tmp_path / "set", qrels=qrels)
    with pytest.raises(InvalidArgument, match=r"test\.tsv.*'rome'.* --skip-missing"):
        read_set(folder, split="test")
    read = read_set(folder, split="test", skip_missing=True)
    assert [query.id for query in read.queries] == ["q1", "q3", "q4"]
    assert read.queries[0].judgements == {"paris": 1}
    assert any("2 judgements" in note for note in read.notes)


def test_judged_documents_that_are_not_taken_are_named_or_left_out(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", documents={**DOCUMENTS, "world": " "})
    with pytest.raises(InvalidArgument, match=r"1 documents are judged that are blank or not taken \(world\)"):
        read_set(folder, split="test")
    read = read_set(folder, split="test", skip_missing=True)
    assert [query.id for query in read.queries] == ["q1", "q2", "q3"]
    assert read.notes == (
        "1 documents without title and text are left out",
        "judgements of 1 documents that are not taken (world) are left out",
        "1 queries have no document that answers them and are left out",
    )
    part = read_set(folder, split="test", prefix="river", skip_missing=True)
    assert ([query.id for query in part.queries], len(part.documents)) == (["q2"], 1)
    with pytest.raises(InvalidArgument, match="no query of the split 'test'"):
        read_set(folder, split="test", prefix="green", skip_missing=True)
    with pytest.raises(InvalidArgument, match="no documents whose id begins with 'x-'"):
        read_set(folder, split="test", prefix="x-")


def test_queries_without_a_relevant_document_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", qrels={**QRELS, "q4": {"world": 0}})
    read = read_set(folder, split="test")
    assert len(read.queries) == 3
    assert any("1 queries have no document that answers them" in note for note in read.notes)
    assert (count_judged(folder, "test"), count_judged(folder, "train")) == (3, 0)


def test_an_empty_split_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", qrels={})
    with pytest.raises(InvalidArgument, match="the split 'test' is empty"):
        read_set(folder, split="test")
    with pytest.raises(NotFound, match="no split 'dev': there are test"):
        read_set(folder, split="dev")
