"""`winnow plan`, as a person or a machine calls it; nothing needs to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from winnow_client.cli.main import main


def winnow(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments])


def planned(*arguments: str) -> dict[str, Any]:
    result = winnow(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_person_reads_sizes_replicas_and_where_the_costs_are_from() -> None:
    result = winnow("--documents", "1000000", "--qps", "5", "--budget", "400ms")
    assert result.exit_code == 0
    for word in ("memory, serving", "GiB", "reranker", "first ingest", "2 shared cores", "note: the budget allows"):
        assert word in result.stdout


def test_a_machine_reads_the_same_as_json() -> None:
    made = planned("--documents", "1000", "--tokens", "50", "--dimension", "768", "--spare", "2", "--without-lexical")
    assert made["workload"]["documents"] == 1000
    assert made["index"]["parts"]["vectors"] == 1000 * 768 * 4
    assert made["index"]["parts"]["bm25"] == 0
    assert {stage["service"]: stage["replicas"] for stage in made["stages"]} == {
        "gateway": 3,
        "embedder": 3,
        "reranker": 3 + 0,
        "index": 1,
    }


def test_json_may_be_asked_for_before_the_command_too() -> None:
    result = CliRunner().invoke(main, ["--json", "plan", "--documents", "10"])
    assert json.loads(result.stdout)["workload"]["documents"] == 10


def test_measured_costs_take_the_place_of_the_built_in_ones(tmp_path: Path) -> None:
    ours = {"name": "winnow auto", "tokens_per_second": 500_000}
    report = {
        "machine": {"cores": 32, "processor": "a quick one"},
        "inference": {"rerank": {"contestants": [ours]}, "embed": {"contestants": [ours]}},
    }
    (tmp_path / "quick.json").write_text(json.dumps(report))
    slow = planned("--documents", "1000", "--qps", "20")
    quick = planned("--documents", "1000", "--qps", "20", "--measured", str(tmp_path / "quick.json"))
    assert quick["costs"]["source"] == "quick.json: 32 cores of a quick one"
    assert quick["stages"][2]["needed"] < slow["stages"][2]["needed"]
    assert quick["first_ingest_seconds"] < slow["first_ingest_seconds"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--documents"),
        (("--documents", "0"), "0 is not in the range"),
        (("--documents", "10", "--utilisation", "1"), "1.0 is not in the range"),
        (("--documents", "10", "--budget", "soon"), "'soon' is no time"),
        (("--documents", "10", "--measured", "nowhere.json"), "does not exist"),
        (
            ("--documents", "10", "--probe", "--embedder", "127.0.0.1:1", "--timeout", "1"),
            "cannot be asked at 127.0.0.1:1",
        ),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(arguments: tuple[str, ...], says: str) -> None:
    result = winnow(*arguments)
    assert result.exit_code in (1, 2)
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert "mistake of ours" not in result.stderr


@pytest.mark.parametrize("content", ["{", "{}", "[]", '"text"', "null"])
def test_a_file_that_is_no_report_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "odd.json").write_text(content)
    result = winnow("--documents", "10", "--measured", str(tmp_path / "odd.json"))
    assert result.exit_code in (1, 2)
    assert "odd.json" in result.stderr
    assert "mistake of ours" not in result.stderr
