from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from winnow_client.cli.reading import lines
from winnow_client.cli.reading.delimited import read_delimited
from winnow_client.cli.reading.jsonl import read_jsonl
from winnow_client.cli.reading.parquet import read_parquet
from winnow_client.cli.reading.records import Refusal, Row


def rows(content: bytes) -> list[Row | Refusal]:
    return list(read_jsonl(io.BytesIO(content), file="f", on_read=lambda _: None))


def table(content: bytes, delimiter: str = ",") -> list[Row | Refusal]:
    return list(read_delimited(io.BytesIO(content), file="f", delimiter=delimiter, on_read=lambda _: None))


def brief(read: list[Row | Refusal]) -> list[tuple[int | None, Any]]:
    return [(each.place.line, dict(each.fields) if isinstance(each, Row) else each.reason) for each in read]


def test_every_bad_line_is_refused_by_its_number_and_the_others_go_on() -> None:
    content = (
        b'{"id": "1"}\n\n{"id": \n[1]\n{"id": "\xff"}\n'
        + b"[" * 100_000
        + b'\n{"n": '
        + b"9" * 5000
        + b'}\n{"id": "2"}'
    )
    assert brief(rows(content)) == [
        (1, {"id": "1"}),
        (3, "INVALID_JSON"),
        (4, "WRONG_TYPE"),
        (5, "NOT_UTF8"),
        (6, "INVALID_JSON"),
        (7, "INVALID_JSON"),
        (8, {"id": "2"}),
    ]


def test_a_byte_order_mark_and_carriage_returns_do_no_harm() -> None:
    assert brief(rows(b'\xef\xbb\xbf{"id": "1"}\r\n{"id": "2"}\r\n')) == [(1, {"id": "1"}), (2, {"id": "2"})]


def test_a_line_that_is_too_long_is_skipped_without_being_held() -> None:
    taken = 0

    def on_read(count: int) -> None:
        nonlocal taken
        taken += count

    stream = io.BytesIO(b"a" * 25 + b"\nshort\n" + b"b" * 25)
    assert list(lines.read_lines(stream, on_read=on_read, limit=10)) == [(1, None), (2, b"short"), (3, None)]
    assert taken == 25 + 1 + 6 + 25


def test_a_line_exactly_at_the_limit_is_read() -> None:
    stream = io.BytesIO(b"a" * 10 + b"\n" + b"b" * 10)
    read = list(lines.read_lines(stream, on_read=lambda _: None, limit=10))
    assert read == [(1, b"a" * 10), (2, b"b" * 10)]


def test_csv_takes_names_from_its_header_and_counts_lines_as_an_editor_does() -> None:
    content = b'id,text\n1,"two\nlines, ""quoted"""\n2,b\n\n3,c\n'
    assert brief(table(content)) == [
        (2, {"id": "1", "text": 'two\nlines, "quoted"'}),
        (4, {"id": "2", "text": "b"}),
        (6, {"id": "3", "text": "c"}),
    ]


def test_a_bad_record_of_csv_refuses_only_itself() -> None:
    content = b'id,text\n1\n2,b,c\n3,\xff\n4,"x"y\n5,\0\n6,fine\n'
    assert brief(table(content)) == [
        (2, "WRONG_NUMBER_OF_VALUES"),
        (3, "WRONG_NUMBER_OF_VALUES"),
        (4, "NOT_UTF8"),
        (5, "INVALID_CSV"),
        (6, "NOT_UTF8"),
        (7, {"id": "6", "text": "fine"}),
    ]


def test_csv_without_a_usable_header_is_refused_once() -> None:
    assert brief(table(b"id,\xff\n1,a\n2,b\n")) == [(1, "NOT_UTF8")]
    assert brief(table(b"id,id\n1,a\n2,b\n")) == [(1, "INVALID_CSV")]
    assert table(b"") == []


def test_tabs_can_separate() -> None:
    assert brief(table(b"id\ttext\n1\ta,b\n", "\t")) == [(2, {"id": "1", "text": "a,b"})]


def test_parquet_is_read_by_row_with_only_the_columns_that_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {"id": ["a", "b", "c"], "n": [1, None, 3], "tags": [["x"], [], None], "other": [0, 0, 0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    seen: list[int] = []
    read = list(read_parquet(path, columns=frozenset({"id", "n", "tags", "absent"}), on_read=seen.append))
    assert brief(read) == [
        (1, {"id": "a", "n": 1, "tags": ["x"]}),
        (2, {"id": "b", "n": None, "tags": []}),
        (3, {"id": "c", "n": 3, "tags": None}),
    ]
    # Rounded for each group of rows.
    assert sum(seen) == pytest.approx(path.stat().st_size, abs=len(seen))
    [first, *_] = read_parquet(path, columns=None, on_read=seen.append)
    assert isinstance(first, Row)
    assert set(first.fields) == set(columns)


def test_a_string_of_parquet_that_is_no_utf8_refuses_only_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    strings = pyarrow.array([b"ok", b"\xff\xfe", b"fine"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"id": strings}), path)
    read = list(read_parquet(path, columns=None, on_read=lambda _: None))
    assert brief(read) == [(1, {"id": "ok"}), (2, "NOT_UTF8"), (3, {"id": "fine"})]


def test_a_time_of_parquet_beyond_pythons_refuses_only_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    times = pyarrow.array([10**14, 0], pyarrow.timestamp("s"))
    pyarrow.parquet.write_table(pyarrow.table({"id": ["1", "2"], "t": times}), path)
    read = list(read_parquet(path, columns=None, on_read=lambda _: None))
    assert brief(read) == [(1, "CANNOT_READ"), (2, {"id": "2", "t": datetime(1970, 1, 1)})]  # noqa: DTZ001


def test_times_of_parquet_in_nanoseconds_are_read_to_the_microsecond(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    times = pyarrow.array([1_700_000_000_123_456_789, None], pyarrow.timestamp("ns", "UTC"))
    pyarrow.parquet.write_table(pyarrow.table({"t": times}), path)
    read = list(read_parquet(path, columns=None, on_read=lambda _: None))
    assert brief(read) == [(1, {"t": datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)}), (2, {"t": None})]


@pytest.mark.parametrize("content", [b"", b"no parquet at all", b"PAR1" + b"x" * 50 + b"PAR1"])
def test_a_file_that_is_no_parquet_is_one_refusal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    assert brief(list(read_parquet(path, columns=None, on_read=lambda _: None))) == [(None, "CANNOT_READ")]
