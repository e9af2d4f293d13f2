"""A judged set that cannot be evaluated says why, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.lab.evaluating.made_up import DOCUMENTS, QRELS, QUERIES, write_set
from winnow_lab.evaluating.sets import read_set
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
    with pytest.raises(InvalidArgument, match=r"judges 2 documents .*oslo, rome.* --skip-missing"):
        read_set(folder, split="test")
    read = read_set(folder, split="test", skip_missing=True)
    assert [query.id for query in read.queries] == ["q1", "q3", "q4"]
    assert read.queries[0].judgements == {"paris": 1}
    assert any("2 documents" in note for note in read.notes)
    assert any("1 queries" in note for note in read.notes)


def test_queries_without_a_relevant_document_are_left_out_and_counted(tmp_path: Path) -> None:
    read = read_set(write_set(tmp_path / "set", qrels={**QRELS, "q4": {"world": 0}}), split="test")
    assert len(read.queries) == 3
    assert read.notes == ("1 queries have no relevant document and are left out",)


def test_an_empty_split_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", qrels={})
    with pytest.raises(InvalidArgument, match=r"no query with a judgement above 0.*--split"):
        read_set(folder, split="test")
    with pytest.raises(NotFound, match=r"dev\.tsv"):
        read_set(folder, split="dev")


def test_blank_documents_are_left_out_and_a_set_of_none_is_refused(tmp_path: Path) -> None:
    read = read_set(write_set(tmp_path / "set", documents={**DOCUMENTS, "blank": " "}), split="test")
    assert len(read.documents) == len(DOCUMENTS)
    assert read.notes == ("1 documents without title and text are left out",)
    with pytest.raises(InvalidArgument, match="no documents whose id begins with 'x-'"):
        read_set(tmp_path / "set", split="test", prefix="x-")
