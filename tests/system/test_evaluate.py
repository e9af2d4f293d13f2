"""`winnow evaluate`, with the real models: through running services and in process it measures the same."""

from __future__ import annotations

import gzip
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.system.running import WINNOW, Up, wait_until, winnow
from tests.unit.lab.evaluating.made_up import DOCUMENTS, QUERIES, write_set
from winnow_client import AsyncClient

OPTIONS = ("--depths", "2,5", "--exhaustive", "--json")


def evaluated(folder: Path, *options: str) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
    """The report, what was found for each query, and where it is kept."""
    done = winnow("evaluate", str(folder / "made-up"), *OPTIONS, "--out", str(folder), *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    kept = folder / Path(done.stderr.strip().splitlines()[-1].removeprefix("kept in "))
    with gzip.open(kept / "answers.jsonl.gz", "rt") as file:
        return json.loads(done.stdout), [json.loads(line) for line in file], kept


async def test_services_and_this_process_measure_the_same(up: Up, tmp_path: Path) -> None:
    write_set(tmp_path / "made-up")
    served, found, kept = evaluated(tmp_path, "--gateway", up.addresses["gateway"])
    here, found_here, _ = evaluated(tmp_path, "--in-process")
    assert len(served["rows"]) == 3 + 2 * 2 * 2 + 1
    for row, row_here in zip(served["rows"], here["rows"], strict=True):
        assert row["system"] == row_here["system"]
        for name, estimate in row["measures"].items():
            assert estimate["mean"] == pytest.approx(row_here["measures"][name]["mean"], abs=1e-3), row["system"]
        assert row["ceiling"] == pytest.approx(row_here["ceiling"], abs=1e-6)
    for one, other in zip(found, found_here, strict=True):
        words, words_here = one["first_stages"]["BM25"], other["first_stages"]["BM25"]
        assert words["ids"] == words_here["ids"]
        assert words["scores"] == pytest.approx(words_here["scores"], rel=1e-4), "the index's own BM25"
        assert one["rerank_scores"] == pytest.approx(other["rerank_scores"], abs=0.02)
    assert served["made"]["cross_encoder"] in here["made"]["cross_encoder"]
    assert {row["system"]: row for row in served["rows"]}["exhaustive"]["candidate_recall"] == 1

    # What was made of the scores is what the gateway itself answers.
    with gzip.open(kept / "runs" / "hybrid-rerank-5-mixed.trec.gz", "rt") as file:
        ours = [line.split()[2] for line in file if line.startswith("q1 ")]
    async with AsyncClient(up.addresses["gateway"]) as client:
        answer = await client.search("made-up", QUERIES["q1"], depth=5, limit=10)
        await client.delete_collection("made-up")
    assert [hit.document.id for hit in answer.hits] == ours


def test_advice_is_made_of_searches_that_were_timed(up: Up, tmp_path: Path) -> None:
    write_set(tmp_path / "made-up")
    done = winnow(
        *("advise", "made-up", "--gateway", up.addresses["gateway"], "--budget", "30s", "--depths", "2,5"),
        *("--timed", "2", "--corpus-size", "5000000", "--rate", "3", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    options = {option["name"]: option for option in said["options"]}
    assert {"dense", "BM25", "hybrid", "dense, rerank 2", "hybrid, rerank 5, mixed", "exhaustive"} <= options.keys()
    assert all(0 < option["p50_seconds"] <= option["p95_seconds"] < 30 for option in options.values())
    assert said["keeps_budget"]
    assert said["recommended"]["option"] != "exhaustive", "there will be too many documents for that"
    assert said["sureness"]["queries"] == 4
    assert said["plan"]["workload"]["documents"] == 5_000_000
    assert said["plan"]["costs"]["source"].startswith("measured here")
    kept = next((tmp_path / ".winnow" / "advise").glob("*Z-made-up"))
    assert (kept / "front.png").read_bytes().startswith(b"\x89PNG")
    assert said["recommended"]["option"] in (kept / "report.html").read_text()
    removed = winnow("collections", "delete", "made-up", "--yes", "--gateway", up.addresses["gateway"], cwd=tmp_path)
    assert removed.returncode == 0, removed.stderr


def test_an_evaluation_that_is_interrupted_goes_on(up: Up, tmp_path: Path) -> None:
    queries = {f"q{at:03}": f"{word} number {at}" for at, word in enumerate(sorted(DOCUMENTS) * 15)}
    write_set(tmp_path / "many", queries=queries, qrels={id_: {text.split()[0]: 1} for id_, text in queries.items()})
    given = ["evaluate", "many", "--gateway", up.addresses["gateway"], "--depths", "5", "--json"]
    process = subprocess.Popen([WINNOW, *given], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    unfinished = tmp_path / ".winnow" / "evaluate" / "unfinished"
    try:
        wait_until(lambda: sum(path.read_bytes().count(b"\n") for path in unfinished.glob("*")) > 10, seconds=240)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    told = re.search(r"(\d+) answers are kept: the same command goes on from there", said)
    assert told, said
    resumed = winnow(*given, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{told[1]} of 120 queries were answered before the interruption and are not asked again" in resumed.stderr
    assert list(unfinished.iterdir()) == [], "it is kept for good elsewhere"
    whole = winnow(*given, "--overwrite", cwd=tmp_path)
    for row, expected in zip(json.loads(resumed.stdout)["rows"], json.loads(whole.stdout)["rows"], strict=True):
        assert row["system"] == expected["system"]
        for name, estimate in row["measures"].items():
            assert estimate["mean"] == pytest.approx(expected["measures"][name]["mean"], abs=1e-3), row["system"]
    removed = winnow("collections", "delete", "many", "--yes", "--gateway", up.addresses["gateway"], cwd=tmp_path)
    assert removed.returncode == 0, removed.stderr


def test_a_gateway_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    write_set(tmp_path / "made-up")
    done = winnow("evaluate", "made-up", "--gateway", "127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 1
    assert "there is no gateway at 127.0.0.1:1: start one with `winnow up`" in done.stderr
