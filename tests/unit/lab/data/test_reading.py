"""Reading training data: every kind and format, and what is wrong named by file and line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from winnow_lab.data.examples import Group, Groups, Kind, ScoredPair, ScoredPairs, Triplet, Triplets, kind_of
from winnow_lab.data.parsing import ScoreRange
from winnow_lab.data.reading import read_data, splits_of
from winnow_rpc.faults import InvalidArgument, NotFound

SCORED = [
    {"sentence1": "red", "sentence2": "green", "score": 0.25},
    {"sentence1": "one", "sentence2": "two", "score": 1},
]
PAIRS = [ScoredPair("red", "green", 0.25), ScoredPair("one", "two", 1.0)]


def jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InvalidArgument) as caught:
        read_data(path, **options)
    return caught.value.message


def write(folder: Path, name: str) -> Path:
    path = folder / name
    text = "sentence1,sentence2,score\nred,green,0.25\none,two,1\n"
    if ".parquet" in name:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(SCORED), path)  # type: ignore[no-untyped-call]
    elif ".jsonl" in name:
        jsonl(path, SCORED)
    else:
        path.write_text(text if ".csv" in name else text.replace(",", "\t"))
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "a.csv.gz", "a.tsv.gz"])
def test_scored_pairs_are_read_from_every_format(tmp_path: Path, name: str) -> None:
    data = read_data(write(tmp_path, name))
    assert isinstance(data, ScoredPairs)
    assert list(data.pairs) == PAIRS


def test_pairs_triplets_and_groups_are_told_by_their_columns(tmp_path: Path) -> None:
    pairs = read_data(jsonl(tmp_path / "p.jsonl", [{"anchor": "a", "positive": "b"}]))
    assert isinstance(pairs, Triplets)
    assert (kind_of(pairs), list(pairs.triplets)) == (Kind.PAIRS, [Triplet("a", "b")])
    row = {"anchor": "a", "positive": "b", "negative": "c", "negative_2": "d"}
    triplets = read_data(jsonl(tmp_path / "t.jsonl", [row]))
    assert isinstance(triplets, Triplets)
    assert (kind_of(triplets), list(triplets.triplets)) == (Kind.TRIPLETS, [Triplet("a", "b", ("c", "d"))])
    groups = read_data(jsonl(tmp_path / "g.jsonl", [{"query": "q", "documents": ["a", "b"], "labels": [1, 0.5]}]))
    assert isinstance(groups, Groups)
    assert list(groups.groups) == [Group("q", ("a", "b"), (1.0, 0.5))]


def test_the_kind_may_be_said(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", [{"anchor": "a", "positive": "b", "negative": "c"}])
    data = read_data(path, kind=Kind.PAIRS)
    assert isinstance(data, Triplets)
    assert list(data.triplets) == [Triplet("a", "b")]


def test_scores_of_another_range_are_mapped_and_it_is_said(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", [{**SCORED[0], "score": 5}, {**SCORED[0], "score": 2.5}])
    data = read_data(path, score_range=ScoreRange(0, 5))
    assert isinstance(data, ScoredPairs)
    assert [pair.score for pair in data.pairs] == [1.0, 0.5]
    assert data.notes == ("scores from 0:5 are mapped to 0:1",)


@pytest.mark.parametrize("score", [5, -0.1, 1.01])
def test_a_score_outside_the_range_names_the_line_and_the_option(tmp_path: Path, score: float) -> None:
    path = jsonl(tmp_path / "s.jsonl", [SCORED[0], {**SCORED[1], "score": score}])
    said = refusal(path)
    assert f"{path}:2" in said
    assert f"{score:g}" in said
    assert "--score-range 0:5" in said


@pytest.mark.parametrize("score", ["", "high", None, True, float("nan")])
def test_a_score_that_is_no_number_names_the_line(tmp_path: Path, score: Any) -> None:
    path = jsonl(tmp_path / "s.jsonl", [SCORED[0], {**SCORED[1], "score": score}])
    assert f"{path}:2: the score" in refusal(path)


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(SCORED[0]) + "\n{broken\n")
    assert refusal(path).startswith(f"{path}:2: not valid JSON")


def test_a_missing_column_is_named_with_the_line_and_what_there_is(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", [SCORED[0], {"sentence1": "a", "score": 1}])
    assert refusal(path) == (
        f"{path}:2: scored-pairs need sentence1, sentence2, score; there is no sentence2, but sentence1, score"
    )


def test_columns_of_no_known_kind_are_shown_beside_those_that_are(tmp_path: Path) -> None:
    said = refusal(jsonl(tmp_path / "s.jsonl", [{"text": "a", "label": 1}]))
    assert "text, label" in said
    assert "anchor, positive" in said


@pytest.mark.parametrize("name", ["s.jsonl", "s.csv", "s.tsv"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("")
    assert refusal(path) == f"{path}: is empty: there is no example in it"


def test_a_table_with_a_header_alone_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("sentence1,sentence2,score\n")
    assert "is empty" in refusal(path)


def test_pairs_with_one_score_only_teach_nothing(tmp_path: Path) -> None:
    assert "all 2 pairs have the same score" in refusal(jsonl(tmp_path / "s.jsonl", [SCORED[0], SCORED[0]]))


def test_groups_with_one_label_only_are_left_out_and_counted(tmp_path: Path) -> None:
    good = {"query": "q", "documents": ["a", "b"], "labels": [1, 0]}
    idle = {"query": "r", "documents": ["a", "b"], "labels": [1, 1]}
    data = read_data(jsonl(tmp_path / "g.jsonl", [good, idle]))
    assert isinstance(data, Groups)
    assert len(data.groups) == 1
    assert data.notes == ("1 groups have one label only and are left out",)
    assert "no order to learn" in refusal(jsonl(tmp_path / "h.jsonl", [idle]))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"query": "q", "documents": ["a", "b"], "labels": [1]}, "2 documents but 1 labels"),
        ({"query": "q", "documents": ["a"], "labels": [1]}, "at least two documents"),
        ({"query": "q", "documents": "a", "labels": [1]}, "documents must be a list"),
        ({"query": "q", "documents": ["a", ""], "labels": [1, 0]}, "a document is empty"),
        ({"query": " ", "documents": ["a", "b"], "labels": [1, 0]}, "query is empty"),
        ({"query": "q", "documents": ["a", "b"], "labels": [1, "x"]}, "the label 'x'"),
    ],
)
def test_a_malformed_group_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = jsonl(tmp_path / "g.jsonl", [row])
    assert refusal(path).startswith(f"{path}:1: ")
    assert said in refusal(path)


def test_rows_with_different_numbers_of_negatives_are_refused(tmp_path: Path) -> None:
    rows = [
        {"anchor": "a", "positive": "b", "negative": "c"},
        {"anchor": "a", "positive": "b", "negative": "c", "negative_2": "d"},
    ]
    assert "2 negatives, the first row 1" in refusal(jsonl(tmp_path / "t.jsonl", rows))


def test_a_folder_has_a_file_for_each_split(tmp_path: Path) -> None:
    write(tmp_path, "train.csv")
    write(tmp_path, "dev.jsonl.gz")
    assert splits_of(tmp_path) == ["dev", "train"]
    assert isinstance(read_data(tmp_path, "dev"), ScoredPairs)
    with pytest.raises(NotFound, match=r"no file test\.jsonl.* there are dev, train"):
        read_data(tmp_path, "test")


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    for ask in (splits_of, read_data):
        with pytest.raises(NotFound, match="there is no"):
            ask(tmp_path / "nothing")


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    assert "must end in .jsonl" in refusal(path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-12])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(("low", "high"), [(1, 0), (0, 0), (0, float("inf"))])
def test_a_range_of_scores_must_run_upwards(low: float, high: float) -> None:
    with pytest.raises(InvalidArgument, match="from low to high"):
        ScoreRange(low, high)


@pytest.mark.parametrize(
    "row",
    [
        {"anchor": "a \ud800", "positive": "b"},
        {"sentence1": "a", "sentence2": "\udfff", "score": 1},
        {"query": "q", "documents": ["a", "b \ud800"], "labels": [1, 0]},
    ],
)
def test_half_of_a_character_names_the_line(tmp_path: Path, row: dict[str, Any]) -> None:
    said = refusal(jsonl(tmp_path / "s.jsonl", [row]))
    assert said.startswith(f"{tmp_path / 's.jsonl'}:1: ")
    assert "half of a character" in said


def test_negatives_with_numbers_alone_are_negatives(tmp_path: Path) -> None:
    row = {"anchor": "a", "positive": "b", "negative_1": "c", "negative_2": "d"}
    data = read_data(jsonl(tmp_path / "t.jsonl", [row, row]))
    assert isinstance(data, Triplets)
    assert (kind_of(data), data.triplets[0]) == (Kind.TRIPLETS, Triplet("a", "b", ("c", "d")))
    assert read_data(tmp_path / "t.jsonl", kind=Kind.TRIPLETS) == data
    said = refusal(jsonl(tmp_path / "u.jsonl", [row, {"anchor": "a", "positive": "b"}]))
    assert said.startswith(f"{tmp_path / 'u.jsonl'}:2: triplets need anchor, positive, negative; there is no negative")
