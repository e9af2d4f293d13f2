from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.system.running import START_SECONDS, WINNOW, winnow
from winnow_client import Document, Hit, RetrievalKind, SearchMode, SearchResult, SearchTiming, StageResult
from winnow_client.cli.demo_screen import both_stages

pytestmark = pytest.mark.timeout(2.5 * START_SECONDS)


def events(ended: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_a_second_demo_embeds_nothing_that_is_unchanged_and_finds_the_same(tmp_path: Path) -> None:
    first = events(winnow("demo", "--json", "--limit-documents", "60", cwd=tmp_path))
    assert [event["event"] for event in first] == ["started", "ingested", *["searched"] * 3, "stopped"]
    assert (first[1]["indexed"], first[1]["unchanged"], first[1]["refused"]) == (60, 0, 0)
    for search in first[2:5]:
        assert search["mode"] == "two-stage"
        assert search["candidates"] == search["reranked"] == 60
        assert search["degradations"] == []
        best = search["hits"][0]
        assert best["rank"] == 1
        assert best["retrieval"]["rank"] >= 1
        assert best["rerank"]["rank"] >= 1
        assert all(search["millis"][stage] > 0 for stage in ("embed", "retrieve", "rerank", "total"))

    # As a person runs it this time, with a question of their own, until they have seen enough.
    with subprocess.Popen(
        [str(WINNOW), "demo", "--limit-documents", "60", "--query", "how to sort things", "--keep"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as second:
        assert second.stdout is not None
        shown = ""
        for line in second.stdout:
            shown += line
            if "winnow search --gateway" in line:
                second.terminate()
    assert second.returncode == 0, shown
    assert f"60 documents about Python {sys.version_info.major}.{sys.version_info.minor}" in shown
    assert "indexed 0, unchanged 60, refused 0" in shown
    assert "how to sort things" in shown
    assert "rerank (60)" in shown
    assert "all services have stopped" in shown


@pytest.mark.parametrize("width", [80, 100, 160])
def test_both_stages_stand_side_by_side_with_rank_and_score_in_any_terminal(width: int) -> None:
    hits = tuple(
        Hit(
            document=Document(id=f"py:{n}", title=f"package.module.function_{n}", text=f"function_{n}(x)\n\nDo {n}."),
            rank=n,
            score=1 / n,
            retrieval=StageResult(score=0.5 + n / 100, rank=6 - n),
            rerank=StageResult(score=1 / n, rank=n),
        )
        for n in range(1, 6)
    )
    timing = SearchTiming(**dict.fromkeys((field.name for field in dataclasses.fields(SearchTiming)), 0))
    result = SearchResult(
        hits=hits, mode=SearchMode.TWO_STAGE, mode_reason="", candidate_count=5, reranked_count=5, timing=timing,
        degradations=(), embedder_fingerprint="", reranker_fingerprint="", mixing=None,
        retrieval_kind=RetrievalKind.HYBRID, planned_depth=5,
    )  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=width).print(both_stages(result, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    first = next(line for line in lines if line.strip().startswith("1 "))
    # The best of reranking was the last of retrieval, and the other way round.
    assert [part for part in first.split() if part[0].isdigit()] == ["1", "0.550", "1.000", "1", "5"]
    assert first.index("package.module") < first.index("│") < first.rindex("package.module")
    assert any("Do 5." in line and "Do 1." in line for line in lines)


def test_a_demo_that_cannot_write_its_data_says_so_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = winnow("demo", "--data", "file", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: file")
    assert ended.stderr.count("\n") == 1
