"""Folders in the BEIR layout, checked."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from winnow_lab.data.beir import read_queries
from winnow_lab.data.examples import JudgedSet, Kind
from winnow_lab.data.judged import read_judged_set
from winnow_lab.data.reading import read_data, splits_of
from winnow_rpc.faults import InvalidArgument, NotFound

CORPUS = [{"_id": "d1", "title": "Red", "text": "bread"}, {"_id": "d2", "title": "", "text": "cheese"}]
QUERIES = [{"_id": "q1", "text": "what is bread"}, {"_id": "q2", "text": "what is cheese"}, {"_id": "q3", "text": "?"}]
QRELS = "q1\td1\t1\nq2\td2\t2\nq2\td1\t0\n"


def write_set(
    folder: Path, *, corpus: Any = CORPUS, queries: Any = QUERIES, qrels: str = QRELS, zipped: bool = False
) -> Path:
    (folder / "qrels").mkdir(parents=True)
    files = {
        "corpus.jsonl": "".join(json.dumps(each) + "\n" for each in corpus),
        "queries.jsonl": "".join(json.dumps(each) + "\n" for each in queries),
        "qrels/train.tsv": "query-id\tcorpus-id\tscore\n" + qrels,
    }
    for name, text in files.items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text)
    return folder


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(InvalidArgument) as caught:
        read_judged_set(folder, "train", **options)
    return caught.value.message


@pytest.mark.parametrize("zipped", [False, True])
def test_a_set_is_read_gzipped_or_not(tmp_path: Path, zipped: bool) -> None:
    folder = write_set(tmp_path / "set", zipped=zipped)
    assert splits_of(folder) == ["train"]
    data = read_data(folder)
    assert isinstance(data, JudgedSet)
    assert data.documents == {"d1": "Red\nbread", "d2": "cheese"}
    assert {query.id: query.judgements for query in data.queries} == {"q1": {"d1": 1.0}, "q2": {"d2": 2.0, "d1": 0.0}}
    assert data.notes == ("1 queries have no judgement in any split and are left out",)


def test_qrels_that_name_a_missing_document_are_refused_with_the_line_and_what_to_do(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", qrels=QRELS + "q1\td9\t1\nq1\td8\t1\n")
    said = refusal(folder)
    assert said.startswith(f"{folder / 'qrels/train.tsv'}:5: names the document 'd9', which is not in corpus.jsonl")
    assert "so do 1 other lines" in said
    assert "--skip-missing" in said


def test_missing_documents_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    data = read_judged_set(write_set(tmp_path / "set", qrels=QRELS + "q1\td9\t1\n"), "train", skip_missing=True)
    assert data.queries[0].judgements == {"d1": 1.0}
    assert "1 judgements name a query or document that is not there and are left out" in data.notes


def test_qrels_that_name_a_missing_query_are_refused(tmp_path: Path) -> None:
    assert "the query 'q9', which is not in queries.jsonl" in refusal(
        write_set(tmp_path / "set", qrels=QRELS + "q9\td1\t1\n")
    )


def test_queries_without_an_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    data = read_judged_set(write_set(tmp_path / "set", qrels=QRELS + "q3\td1\t0\n"), "train")
    assert [query.id for query in data.queries] == ["q1", "q2"]
    assert data.notes == ("1 queries have no document that answers them and are left out",)


@pytest.mark.parametrize("qrels", ["", "q1\td1\t0\n"])
def test_a_split_without_any_answer_is_empty(tmp_path: Path, qrels: str) -> None:
    assert "the split 'train' is empty" in refusal(write_set(tmp_path / "set", qrels=qrels))


def test_a_split_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no split 'dev': there are train"):
        read_judged_set(write_set(tmp_path / "set"), "dev")


@pytest.mark.parametrize(
    ("qrels", "said"),
    [("q1 d1 1\n", "not query-id, corpus-id and score"), ("q1\td1\tgood\n", "not query-id"), ("q1\td1\tnan\n", "nan")],
)
def test_a_malformed_line_of_qrels_is_named(tmp_path: Path, qrels: str, said: str) -> None:
    folder = write_set(tmp_path / "set", qrels=qrels)
    assert f"{folder / 'qrels/train.tsv'}:2: " in refusal(folder)
    assert said in refusal(folder)


def test_a_document_without_text_and_one_that_comes_twice_are_refused(tmp_path: Path) -> None:
    assert "corpus.jsonl:1: has no string 'text'" in refusal(write_set(tmp_path / "a", corpus=[{"_id": "d1"}]))
    assert "the id 'd1' comes twice" in refusal(write_set(tmp_path / "b", corpus=[CORPUS[0], CORPUS[0]]))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", zipped=True)
    packed = folder / "corpus.jsonl.gz"
    packed.write_bytes(packed.read_bytes()[:-9])
    assert "the compressed file is damaged" in refusal(folder)


def test_a_judged_set_is_no_other_kind(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read as pairs"):
        read_data(write_set(tmp_path / "set"), kind=Kind.PAIRS)


def test_evaluation_still_reads_judged_queries_alone(tmp_path: Path) -> None:
    assert [query.id for query in read_queries(write_set(tmp_path / "set"), "train")] == ["q1", "q2"]


def with_mark(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def test_files_that_begin_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    plain = read_judged_set(folder, "train")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        with_mark(folder / name)
    assert read_judged_set(folder, "train") == plain


def written(folder: Path, qrels: str) -> Path:
    """A set whose file of qrels holds this and nothing else."""
    made = write_set(folder)
    (made / "qrels" / "train.tsv").write_text(qrels)
    return made


@pytest.mark.parametrize("qrels", ["q1\td1\t1\n", "q1\td1\t1\nq2\td2\t1\n", "q1 0 d1 1\nq2 0 d2 1\n", "query,doc\n"])
def test_qrels_without_their_header_are_refused_with_what_stands_in_its_place(tmp_path: Path, qrels: str) -> None:
    folder = written(tmp_path / "set", qrels)
    said = refusal(folder)
    assert said.startswith(f"{folder / 'qrels/train.tsv'}:1: the header must name query-id, corpus-id and score")
    assert repr(qrels.splitlines()[0]) in said


def test_the_columns_of_qrels_stand_in_any_order_and_may_be_more(tmp_path: Path) -> None:
    folder = written(tmp_path / "set", "score\tby\tcorpus-id\tquery-id\n2\tme\td1\tq1\n")
    assert read_judged_set(folder, "train").queries[0].judgements == {"d1": 2.0}


def test_empty_lines_of_qrels_count_as_lines(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", qrels="q1\td1\t1\n\n\nq2\td2\tgood\n")
    assert f"{folder / 'qrels/train.tsv'}:5: not query-id" in refusal(folder)


def test_a_quotation_mark_of_qrels_that_nothing_closes_is_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", qrels='q1\td1\t1\n"q2\td2\t1\n' + "q1\td2\t1\n" * 20_000)
    assert f"{folder / 'qrels/train.tsv'}:3: not query-id" in refusal(folder)


def test_a_judgement_that_contradicts_an_earlier_line_is_refused_and_one_that_repeats_it_is_not(tmp_path: Path) -> None:
    said = refusal(write_set(tmp_path / "a", qrels=QRELS + "q1\td2\t0\nq1\td1\t0\n"))
    assert f"{tmp_path / 'a/qrels/train.tsv'}:6: " in said
    assert "'q1' and 'd1' were judged 1 before, and 0 here" in said
    again = read_judged_set(write_set(tmp_path / "b", qrels=QRELS + "q1\td1\t1\n"), "train")
    assert again.queries[0].judgements == {"d1": 1.0}


def test_a_query_that_comes_twice_with_different_texts_is_refused(tmp_path: Path) -> None:
    said = refusal(write_set(tmp_path / "a", queries=[*QUERIES, {"_id": "q1", "text": "another"}]))
    assert said == f"{tmp_path / 'a/queries.jsonl'}:4: the id 'q1' comes twice, with different texts"
    assert read_judged_set(write_set(tmp_path / "b", queries=[*QUERIES, QUERIES[0]]), "train").queries


def test_a_document_that_comes_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    said = refusal(write_set(tmp_path / "set", corpus=[*CORPUS, CORPUS[0]]))
    assert said == f"{tmp_path / 'set/corpus.jsonl'}:3: the id 'd1' comes twice"


def test_ids_may_be_whole_numbers_as_they_may_where_documents_are_ingested(tmp_path: Path) -> None:
    folder = write_set(
        tmp_path / "set", corpus=[{**CORPUS[0], "_id": 7}], queries=[{**QUERIES[0], "_id": 1}], qrels="1\t7\t1\n"
    )
    data = read_judged_set(folder, "train")
    assert list(data.documents) == ["7"]
    assert [(query.id, query.judgements) for query in data.queries] == [("1", {"7": 1.0})]
    for id_ in (None, True, 1.5):
        assert "has no string '_id'" in refusal(write_set(tmp_path / f"{id_}", corpus=[{**CORPUS[0], "_id": id_}]))


def test_a_judged_query_without_text_is_refused_or_left_out(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", queries=[QUERIES[0], {"_id": "q2", "text": " \n"}])
    said = refusal(folder)
    assert said.startswith(f"{folder / 'qrels/train.tsv'}:3: names the query 'q2', whose text is blank")
    assert "so do 1 other lines" in said
    assert [query.id for query in read_judged_set(folder, "train", skip_missing=True).queries] == ["q1"]


@pytest.mark.parametrize(
    ("line", "said"),
    [("[" * 100_000, "not JSON"), ('{"_id": "q9", "text": "a \\ud800"}', "is half of a character")],
)
def test_a_line_that_is_no_text_is_named(tmp_path: Path, line: str, said: str) -> None:
    folder = write_set(tmp_path / "set")
    with (folder / "queries.jsonl").open("a") as file:
        file.write(f"{line}\n")
    assert refusal(folder).startswith(f"{folder / 'queries.jsonl'}:4: ")
    assert said in refusal(folder)
