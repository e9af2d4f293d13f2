from __future__ import annotations

import csv
import gzip
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from tests.contract.client.gateway_fake import FakeGateway, Served
from winnow_client.cli.main import main

Ingest = Callable[..., Result]
PYTHON = [sys.executable, "-W", "error", "-m", "winnow_client.cli.main"]


@pytest.fixture
def ingest(served: Served) -> Ingest:
    def run(*arguments: object, stdin: bytes | None = None) -> Result:
        texts = [str(argument) for argument in arguments]
        return CliRunner().invoke(main, ["ingest", *texts], input=stdin, env={"WINNOW_GATEWAY": served.address})

    return run


def lines(count: int, **more: Any) -> str:
    return "".join(json.dumps({"id": f"{i}", "text": f"words {i}", **more}) + "\n" for i in range(count))


def summary(result: Result) -> Any:
    [line] = result.stdout.splitlines()
    return json.loads(line)


def test_documents_are_indexed_and_counted_and_the_second_time_unchanged(
    ingest: Ingest, gateway: FakeGateway, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines(300) + json.dumps({"id": "long", "text": "x " * 300}))
    first = ingest("docs", path)
    assert first.exit_code == 0
    assert first.stderr == "Made the collection 'docs'.\n"
    counts = "Indexed 301 (1 truncated: longer than the model reads), unchanged 0, refused 0, in "
    assert first.stdout.startswith(counts)
    assert first.stdout.endswith(" documents/s.\n")
    assert len(gateway.held["docs"].documents) == 301
    again = ingest("docs", path, "--json")
    assert (again.exit_code, again.stderr) == (0, "")
    answer = summary(again)
    assert answer.pop("seconds") > 0
    assert answer.pop("documents_per_second") > 0
    assert answer == {
        "collection": "docs",
        "created": False,
        "indexed": 0,
        "unchanged": 301,
        "refused": 0,
        "truncated": 0,
        "complete": True,
        "interrupted": False,
        "refusals": [],
    }


def test_everything_refused_is_named_with_its_line_and_reason_and_the_rest_is_indexed(
    ingest: Ingest, gateway: FakeGateway, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    bad = [
        b'{"id": "json"',
        b'{"text": "no id"}',
        b'{"id": "type", "text": 3}',
        b'{"id": "utf8", "text": "\xff"}',
        b'{"id": "nan", "text": "x", "metadata": {"score": NaN}}',
        b'{"id": "good", "text": "again"}',
        b'{"id": "blank", "text": " "}',
        b'{"id": "half", "text": "\\ud800"}',
    ]
    path.write_bytes(b"\n".join([b'{"id": "good", "text": "first"}', *bad, b'{"id": "last", "text": "x"}']))
    refusals = tmp_path / "refusals.jsonl"
    result = ingest("docs", path, "--refusals", refusals)
    assert result.exit_code == 3
    assert "Indexed 2, unchanged 0, refused 8" in result.stdout
    written = {each["line"]: each for each in map(json.loads, refusals.read_text().splitlines())}
    assert {line: each["reason"] for line, each in sorted(written.items())} == {
        2: "INVALID_JSON",
        3: "MISSING_FIELD",
        4: "WRONG_TYPE",
        5: "NOT_UTF8",
        6: "METADATA_NOT_REPRESENTABLE",
        7: "DUPLICATE_ID",
        8: "EMPTY_TEXT",
        9: "NOT_UTF8",
    }
    assert f"Refused {path}:7 ('good'): the id 'good' was read before, at {path}:1 (DUPLICATE_ID)" in result.stderr
    assert f"Refused {path}:8 ('blank'): title and text are both blank (EMPTY_TEXT)" in result.stderr
    assert set(gateway.held["docs"].documents) == {"good", "last"}
    assert gateway.held["docs"].documents["good"].text == "first"


def test_only_the_first_refusals_are_shown(ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("no json\n" * 50)
    result = ingest("docs", path)
    assert result.stderr.count("Refused") == 20
    assert "… and 30 more; --refusals FILE writes all of them." in result.stderr
    assert "refused 50" in result.stdout


def test_a_long_id_is_cut_for_people_and_whole_for_machines(ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "i" * 1000, "text": 3}))
    refusals = tmp_path / "refusals.jsonl"
    assert len(ingest("docs", path, "--refusals", refusals).stderr.splitlines()[-1]) < 600
    assert json.loads(refusals.read_text())["id"] == "i" * 1000


def test_a_collection_that_is_made_indexes_the_fields_that_have_a_type(
    ingest: Ingest, gateway: FakeGateway, tmp_path: Path
) -> None:
    path = tmp_path / "papers.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["_id", "title", "abstract", "year", "lang"], ["p1", "T", "two\nlines", "2016", "en"]])
    fields = ["--id-field", "_id", "--text-field", "abstract", "--metadata-field", "year:integer"]
    result = ingest("papers", path, *fields, "--metadata-field", "lang")
    assert result.exit_code == 0, result.stderr
    held = gateway.held["papers"]
    assert [(each.key, each.type) for each in held.description.metadata_fields] == [("year", 2)]
    assert held.documents["p1"].text == "two\nlines"
    assert dict(held.documents["p1"].metadata) == {"year": 2016, "lang": "en"}


def test_no_collection_is_made_if_that_is_not_wanted(ingest: Ingest, gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(1))
    result = ingest("docs", tmp_path / "a.jsonl", "--no-create")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: there is no collection 'docs' (COLLECTION_NOT_FOUND).\n"
    assert gateway.held == {}


def test_all_formats_come_together(ingest: Ingest, gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "sub" / "note.md").write_text("# A note\n\nwith words")
    (tmp_path / "folder" / "other.bin").write_bytes(b"\0")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as packed:
        packed.write(json.dumps({"id": "packed", "text": "x", "kind": "k"}))
    table = pyarrow.table({"id": ["row"], "text": ["x"], "kind": ["k"]})
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet")
    result = ingest("docs", tmp_path / "folder", tmp_path / "a.jsonl.gz", tmp_path / "b.parquet", "--all-metadata")
    assert result.exit_code == 0, result.stderr
    assert "Files of other formats that were left out: 1." in result.stderr
    documents = gateway.held["docs"].documents
    assert set(documents) == {"sub/note.md", "packed", "row"}
    assert documents["sub/note.md"].title == "A note"
    assert dict(documents["row"].metadata) == dict(documents["packed"].metadata) == {"kind": "k"}


def test_standard_input_is_read(ingest: Ingest, gateway: FakeGateway) -> None:
    assert ingest("docs", "-", stdin=lines(5).encode()).exit_code == 0
    assert ingest("docs", "-", "--format", "csv", stdin=b"id,text\nc,x\n").exit_code == 0
    assert set(gateway.held["docs"].documents) == {"0", "1", "2", "3", "4", "c"}


def test_nothing_to_index_is_no_error(ingest: Ingest, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    result = ingest("docs", tmp_path / "a.jsonl")
    assert result.exit_code == 0
    assert result.stdout.startswith("Indexed 0, unchanged 0, refused 0")


def test_a_stream_that_breaks_is_taken_up_again_and_counts_every_document_once(
    ingest: Ingest, gateway: FakeGateway, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines(1000))
    gateway.break_after = [130, 0, 7]
    result = ingest("docs", path, "--json")
    assert result.exit_code == 0, result.stderr
    answer = summary(result)
    assert (answer["indexed"] + answer["unchanged"], answer["refused"]) == (1000, 0)
    assert len(gateway.held["docs"].documents) == 1000
    assert gateway.calls.count("IngestDocuments") == 4
    assert result.stderr.count("Trying again in") == 3
    assert "broke off after 130 documents were acknowledged: the index does not answer" in result.stderr


def test_a_gateway_that_goes_away_and_comes_back_loses_nothing(
    ingest: Ingest, gateway: FakeGateway, served: Served, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines(2000))
    gateway.ingest_delay = 0.02

    def interrupt() -> None:
        while len(gateway.batches) < 5:
            time.sleep(0.01)
        served.stop()
        time.sleep(0.5)
        served.start()

    other = threading.Thread(target=interrupt)
    other.start()
    result = ingest("docs", path, "--json")
    other.join(timeout=20)
    assert result.exit_code == 0, result.stderr
    answer = summary(result)
    assert answer["indexed"] + answer["unchanged"] == 2000
    assert len(gateway.held["docs"].documents) == 2000
    assert "Trying again" in result.stderr


def test_a_gateway_that_stays_away_ends_the_run_with_what_was_done(
    ingest: Ingest, gateway: FakeGateway, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines(500))
    gateway.break_after = [100] + [0] * 100
    began = time.monotonic()
    result = ingest("docs", path, "--retry-for", "0.5", "--json")
    assert time.monotonic() - began < 10
    assert result.exit_code == 1
    answer = summary(result)
    assert (answer["indexed"], answer["complete"]) == (100, False)
    assert "the index does not answer" in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_a_gateway_that_was_never_there_is_not_waited_for(ingest: Ingest, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(1))
    began = time.monotonic()
    result = ingest("docs", tmp_path / "a.jsonl", "--gateway", "127.0.0.1:1")
    assert time.monotonic() - began < 10
    assert (result.exit_code, result.stdout) == (1, "")
    assert "start one with `winnow up`" in result.stderr


def test_ctrl_c_prints_the_counts_and_running_again_resumes(
    ingest: Ingest, gateway: FakeGateway, served: Served, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines(1000))
    gateway.ingest_delay = 0.1
    command = [*PYTHON, "ingest", "docs", str(path), "--gateway", served.address, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while len(gateway.batches) < 4:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Running the same command again resumes" in err
    assert "Traceback" not in err
    answer = json.loads(out)
    assert answer["interrupted"] is True
    assert 0 < answer["indexed"] < 1000
    gateway.ingest_delay = 0
    resumed = summary(ingest("docs", path, "--json"))
    assert resumed["unchanged"] >= answer["indexed"]
    assert resumed["unchanged"] + resumed["indexed"] == 1000


def test_ctrl_c_ends_a_run_that_waits_for_standard_input(gateway: FakeGateway, served: Served) -> None:
    command = [*PYTHON, "ingest", "docs", "-", "--gateway", served.address]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None
        process.stdin.write(lines(3).encode())
        process.stdin.flush()
        # What has been given is written while the rest is still waited for.
        while not gateway.batches or sum(map(len, gateway.batches)) < 3:
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read().startswith(b"Indexed 3,")
        assert b"Fatal" not in process.stderr.read()


def test_a_bar_with_a_rate_is_shown_on_a_terminal(gateway: FakeGateway, served: Served, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines(640))
    gateway.ingest_delay = 0.05
    here, there = pty.openpty()
    command = [*PYTHON, "ingest", "docs", str(path), "--gateway", served.address]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    shown = b""
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=there, env=environment) as process:
            while process.poll() is None:
                if select.select([here], [], [], 0.05)[0]:
                    shown += os.read(here, 65536)
            assert process.stdout is not None
            assert process.stdout.read().startswith(b"Indexed 640,")
    finally:
        os.close(here)
        os.close(there)
    assert b"documents, " in shown
    assert b"/s" in shown
    assert b"%" in shown
