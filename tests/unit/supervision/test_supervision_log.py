from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from winnow_client.cli.supervision_log import OUTPUT, Entry, as_json, for_people, parse_line

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_an_event_is_read_with_its_level_time_and_facts() -> None:
    line = '{"event":"listening","address":"127.0.0.1:1","level":"info","timestamp":"2030-01-01T00:00:00Z"}'
    assert parse_line("index", line, now=NOW) == Entry(
        "index", "listening", timestamp="2030-01-01T00:00:00Z", facts={"address": "127.0.0.1:1"}
    )


def test_a_line_that_is_no_event_is_passed_on_under_the_name_of_the_service() -> None:
    for line in ("Traceback (most recent call last):", "{not json", '{"no": "event"}', '["event"]', '{"event": 3}'):
        entry = parse_line("embedder", line, now=NOW)
        assert (entry.service, entry.event, entry.facts) == ("embedder", OUTPUT, {"line": line})
        assert line in for_people(entry, colour=False)
        assert json.loads(as_json(entry))["service"] == "embedder"


@given(st.text())
def test_no_line_whatever_breaks_the_log(line: str) -> None:
    entry = parse_line("index", line, now=NOW)
    for_people(entry, colour=True)
    json.loads(as_json(entry))


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())))
def test_no_facts_whatever_break_the_log(facts: dict[str, object]) -> None:
    entry = parse_line("index", json.dumps({**facts, "event": "e"}), now=NOW)
    for_people(entry, colour=False)
    json.loads(as_json(entry))


def test_deeply_nested_json_is_a_line_like_any_other() -> None:
    assert parse_line("index", '{"event":' + "[" * 100_000, now=NOW).event == OUTPUT


def test_what_people_read_has_time_service_event_and_facts() -> None:
    entry = Entry("index", "serving", timestamp=NOW.isoformat(), facts={"points": 3, "took": 0.25, "why": "a b"})
    clock = NOW.astimezone().strftime("%H:%M:%S.678")
    assert for_people(entry, colour=False) == f'{clock} index    │ serving points=3 took=0.25 why="a b"'


def test_a_traceback_gets_lines_of_its_own_each_under_the_name_of_the_service() -> None:
    entry = Entry("gateway", "call", level="error", timestamp="", facts={"exception": "one\ntwo"})
    lines = for_people(entry, colour=False).splitlines()
    assert len(lines) == 3
    assert all("gateway" in line for line in lines)
    assert lines[0].endswith("ERROR call")
    assert lines[2].endswith("two")


def test_what_the_supervisor_says_is_its_sentence_for_people_and_its_facts_for_machines() -> None:
    entry = Entry("winnow", "died", level="error", facts={"message": "index was killed", "exit_status": -9})
    assert "index was killed" in for_people(entry, colour=False)
    assert "exit_status" not in for_people(entry, colour=False)
    assert json.loads(as_json(entry))["exit_status"] == -9


def test_colour_adds_nothing_but_colour() -> None:
    entry = Entry("index", "serving", timestamp=NOW.isoformat(), facts={"points": 3})
    import click

    coloured = for_people(entry, colour=True)
    assert coloured != for_people(entry, colour=False)
    assert click.unstyle(coloured) == for_people(entry, colour=False)


def test_a_fact_cannot_pass_for_the_frame_of_its_entry() -> None:
    line = '{"event":"e","service":"gateway","level":"info","timestamp":"t"}'
    assert json.loads(as_json(parse_line("index", line, now=NOW)))["service"] == "index"
