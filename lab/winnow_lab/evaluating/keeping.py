"""Keeps an evaluation: the report, every query's values, what was found and scored, and runs in TREC's format."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from winnow_client.cli.output import plain
from winnow_lab.evaluating.answers import Answer, Order
from winnow_lab.evaluating.judging import Judged, Report


def keep(folder: Path, report: Report, judged: Judged, answers: Sequence[Answer]) -> None:
    """Writes `report.json`, `queries.jsonl`, `answers.jsonl.gz` and `runs/SYSTEM.trec.gz` into a folder."""
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(plain(report), indent=2) + "\n", encoding="utf-8")
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for at, answer in enumerate(answers):
            _line(file, _values(answer, judged, at))
    with _zipped(folder / "answers.jsonl.gz") as file:
        for answer in answers:
            _line(file, _found(answer))
    for system in judged.systems:
        with _zipped(folder / "runs" / f"{slug(system.name)}.trec.gz") as file:
            for answer in answers:
                file.writelines(trec_lines(answer.query.id, system.order(answer), slug(system.name)))


def new_folder(out: Path, name: str) -> Path:
    """Makes a folder in `out` that nothing was kept in before, named by the time and `name`."""
    out.mkdir(parents=True, exist_ok=True)
    begin = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    # Sets of one name, or two commands, may be done within a second.
    for suffix in chain([""], (f"-{at}" for at in count(2))):
        folder = out / f"{begin}-{name}{suffix}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("numbers do not end")


def slug(name: str) -> str:
    """A system's name as a file's, and as a run's: without what either cannot hold."""
    kept = "".join(char if char.isalnum() or char in ".=" else "-" for char in name)
    return "-".join(filter(None, kept.split("-")))


def trec_lines(query: str, order: Order, tag: str) -> list[str]:
    """`query Q0 document rank score tag`, one line a document.

    trec_eval reads scores in single precision and orders by them, equal ones by id: a score that is not below the one
    before it is lowered to the next number that is, so that the order stays ours.
    """
    lines, last = [], np.float32(np.inf)
    for rank, (id_, score) in enumerate(zip(order.ids, order.scores, strict=True), start=1):
        last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf)))
        lines.append(f"{query} Q0 {id_} {rank} {last!s} {tag}\n")
    return lines


def _values(answer: Answer, judged: Judged, at: int) -> dict[str, Any]:
    return {
        "query": answer.query.id,
        "text": answer.query.text,
        "systems": {
            system.name: {
                **dict(zip(judged.measures, judged.values[at, column].tolist(), strict=True)),
                "ceiling": float(judged.ceilings[at, column, 0]),
                "candidate_recall": float(judged.ceilings[at, column, 1]),
            }
            for column, system in enumerate(judged.systems)
        },
    }


def _found(answer: Answer) -> dict[str, Any]:
    return {
        "query": answer.query.id,
        "judgements": answer.query.judgements,
        "first_stages": {name: asdict(order) for name, order in answer.first_stages.items()},
        "rerank_scores": dict(answer.rerank_scores),
    }


def _line(file: Any, value: Any) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")


def _zipped(path: Path) -> Any:
    return gzip.open(path, "wt", encoding="utf-8", compresslevel=3)
