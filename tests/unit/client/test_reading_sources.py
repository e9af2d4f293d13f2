from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pyarrow
import pyarrow.parquet
import pytest

from winnow_client.cli.reading.mapping import FieldMapping
from winnow_client.cli.reading.records import Item, Meter, Refusal
from winnow_client.cli.reading.sources import Format, Source, Unreadable, find_sources, format_of, read_items
from winnow_client.cli.reading.text import first_heading, read_text


def no_stdin() -> IO[bytes]:
    raise AssertionError("standard input is not to be read")


def read(sources: Sequence[Source], meter: Meter | None = None) -> list[Item | Refusal]:
    return list(read_items(sources, mapping=FieldMapping(), meter=meter or Meter(), stdin=no_stdin))


def ids(items: list[Item | Refusal]) -> list[str | None]:
    return [each.document.id if isinstance(each, Item) else each.reason for each in items]


def test_a_folder_is_read_recursively_with_ids_from_its_paths(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "a.md").write_text("# The Title\n\nwords")
    (tmp_path / "b" / "plain.txt").write_text("words")
    (tmp_path / "b" / "c" / "d.markdown").write_text("no heading")
    (tmp_path / "b" / "e.pdf").write_text("left out")
    (tmp_path / ".git" / "f.md").write_text("hidden")
    found = find_sources([str(tmp_path)], format=None)
    items = read(found.sources)
    assert ids(items) == ["a.md", "b/plain.txt", "b/c/d.markdown"]
    assert [item.document.title for item in items if isinstance(item, Item)] == ["The Title", "plain.txt", "d.markdown"]
    assert found.left_out == 1


def test_a_folder_is_read_for_one_format_if_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "b.jsonl").write_text('{"id": "1", "text": "x"}\n')
    assert ids(read(find_sources([str(tmp_path)], format=Format.JSONL).sources)) == ["1"]
    with pytest.raises(Unreadable, match=r"holds no file that ends in \.parquet"):
        find_sources([str(tmp_path)], format=Format.PARQUET)


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("a.jsonl", Format.JSONL),
        ("a.JSONL.GZ", Format.JSONL),
        ("a.csv.gz", Format.CSV),
        ("a.tsv", Format.TSV),
        ("a.parquet", Format.PARQUET),
        ("a.md", Format.MARKDOWN),
        ("a.txt", Format.TEXT),
        ("a.md.gz", None),
        ("a.json", None),
        ("jsonl", None),
    ],
)
def test_the_format_is_known_by_the_name(name: str, format_: Format | None) -> None:
    assert format_of(Path(name)) == format_


def test_what_cannot_be_read_is_said_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(Unreadable, match="no file or folder"):
        find_sources([str(tmp_path / "absent.jsonl")], format=None)
    with pytest.raises(Unreadable, match="say it with --format"):
        find_sources([str(tmp_path / "a.json")], format=None)
    with pytest.raises(Unreadable, match="only once"):
        find_sources(["-", "-"], format=None)
    with pytest.raises(Unreadable, match="cannot be read as parquet"):
        find_sources(["-"], format=Format.PARQUET)


def test_standard_input_is_json_lines_unless_said_otherwise() -> None:
    [source] = find_sources(["-"], format=None).sources
    items = list(
        read_items([source], mapping=FieldMapping(), meter=Meter(), stdin=lambda: io.BytesIO(b'{"id":"1","text":"x"}'))
    )
    assert ids(items) == ["1"]
    assert str(items[0].place) == "-:1"
    [source] = find_sources(["-"], format=Format.CSV).sources
    items = list(read_items([source], mapping=FieldMapping(), meter=Meter(), stdin=lambda: io.BytesIO(b"id,text\n2,x")))
    assert ids(items) == ["2"]


def test_an_id_that_comes_again_is_refused_and_names_where_it_came_first(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text('{"id": "a", "text": "x"}\n{"id": "b", "text": "x"}\n')
    two.write_text('{"id": "b", "text": "y"}\n')
    items = read(find_sources([str(one), str(two)], format=None).sources)
    assert ids(items) == ["a", "b", "DUPLICATE_ID"]
    refusal = items[2]
    assert isinstance(refusal, Refusal)
    assert refusal.message == f"the id 'b' was read before, at {one}:2"
    assert str(refusal.place) == f"{two}:1"


def test_a_refused_row_does_not_take_its_id(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a", "text": 1}\n{"id": "a", "text": "x"}\n')
    assert ids(read(find_sources([str(path)], format=None).sources)) == ["WRONG_TYPE", "a"]


def test_the_meter_knows_all_bytes_and_ends_at_their_number(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"id": str(i), "text": "words " * 50}) + "\n" for i in range(300))
    (tmp_path / "a.jsonl").write_text(lines)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as packed:
        packed.write(lines)
    (tmp_path / "c.md").write_text("# c")
    pyarrow.parquet.write_table(pyarrow.table({"id": ["p"], "text": ["x"]}), tmp_path / "d.parquet")
    paths = sorted(tmp_path.iterdir())
    meter = Meter()
    sources = find_sources([str(path) for path in paths], format=None).sources
    seen = []
    for _ in read_items(sources, mapping=FieldMapping(), meter=meter, stdin=no_stdin):
        seen.append(meter.done)
        assert meter.total is not None
        assert meter.done <= meter.total
    assert meter.total == meter.done == sum(path.stat().st_size for path in paths)
    assert seen == sorted(seen)
    assert seen[150] > 0


def test_the_meter_knows_no_end_of_a_pipe() -> None:
    meter = Meter()
    [source] = find_sources(["-"], format=None).sources
    list(read_items([source], mapping=FieldMapping(), meter=meter, stdin=lambda: io.BytesIO(b"{}\n")))
    assert meter.total is None
    assert meter.done == 3


def test_a_damaged_archive_loses_only_what_comes_after(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b'{"id": "%d", "text": "%d"}\n' % (i, i * 7919) for i in range(5000)))
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.jsonl.gz").write_bytes(b"not gzip")
    (tmp_path / "c.jsonl").write_text('{"id": "last", "text": "x"}\n')
    items = ids(read(find_sources([str(path) for path in sorted(tmp_path.iterdir())], format=None).sources))
    assert items[0] == "0"
    assert items[-3:] == ["CANNOT_READ", "CANNOT_READ", "last"]
    assert 100 < len(items) < 5000


def test_a_text_that_is_no_utf8_is_refused_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\nalso\n\xff")
    refusal = read_text(path, id="a.txt", markdown=False)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.place.line, refusal.id) == ("NOT_UTF8", 3, "a.txt")


def test_a_file_that_went_away_is_refused(tmp_path: Path) -> None:
    refusal = read_text(tmp_path / "gone.txt", id="gone.txt", markdown=False)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "CANNOT_READ"


@pytest.mark.parametrize(
    ("text", "heading"),
    [
        ("# One\n", "One"),
        ("intro\n\n  ## Two ##\n", "Two"),
        ("```sh\n# comment\n```\n# Real", "Real"),
        ("~~~\n# comment\n", None),
        ("````\n```\n# comment\n````\n# Real", "Real"),
        ("Underlined\n==========\n", "Underlined"),
        ("- item\n---\n", None),
        ("---\ntitle: x\n---\n# Real\n", "Real"),
        ("#hashtag\n", None),
        ("#\n# Second", "Second"),
        ("", None),
        ("# " + "é" * 4000, "é" * 2048),
    ],
)
def test_the_title_is_the_first_heading_outside_code(text: str, heading: str | None) -> None:
    assert first_heading(text) == heading
