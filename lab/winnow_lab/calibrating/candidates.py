"""What was collected for learning: a line of JSON for each query, with its candidates and what every stage thought of
them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from winnow_gateway.ordering import StagePlace
from winnow_lab.line_file import LineFile, whole_lines
from winnow_rpc.faults import FailedPrecondition, InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A document that the hybrid first stage found, and the reranker scored."""

    id: str
    rerank: float
    """The reranker's score."""
    dense: StagePlace | None
    """Its place by vectors; None if they did not find it."""
    lexical: StagePlace | None
    """Its place by BM25; None if that did not find it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCandidates:
    """A query's candidates in the order of hybrid retrieval, and the judgements on it."""

    query_id: str
    query: str
    judgements: Mapping[str, float]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What all candidates of a file have in common."""

    set: str
    split: str
    depth: int
    reranker_fingerprint: str
    embedder_fingerprint: str
    activation: str
    """Name of the function that makes the reranker's scores."""


def half_of(query_id: str) -> int:
    """0 or 1: which half of its set a query is in, the same on every run."""
    return hashlib.sha256(query_id.encode()).digest()[0] % 2


def fold_of(query_id: str, folds: int) -> int:
    """Which fold of its set a query is in, the same on every run and independent of its half."""
    return int.from_bytes(hashlib.sha256(b"fold " + query_id.encode()).digest()[:4], "big") % folds


class CandidateFile:
    """A file that is added to, query by query: first what all have in common, then a line for each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = LineFile(path)
        self._source: Source | None = None

    def __enter__(self) -> Self:
        if whole_lines(self._path):
            self._source = read_candidates(self._path)[0]
        self._lines.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._lines.__exit__(*raised)

    def add(self, source: Source, query: JudgedCandidates) -> None:
        """Adds a query. Raises FailedPrecondition if the file is of another source."""
        if self._source is None:
            self._source = source
            self._lines.add(asdict(source))
        if self._source != source:
            raise FailedPrecondition(
                f"{self._path} was collected with other models than now; delete it to collect anew",
                reason="CACHE_MISMATCH",
            )
        self._lines.add(asdict(query))


def read_candidates(path: Path) -> tuple[Source, list[JudgedCandidates]]:
    """What is in such a file, but for a line that a kill tore. Raises InvalidArgument that names a line that is no such
    thing."""
    lines = whole_lines(path)
    found: list[JudgedCandidates] = []
    number = 0
    try:
        source = Source(**json.loads(lines[0]))
        for number, line in enumerate(lines[1:], start=1):  # noqa: B007 - told, if it is wrong
            found.append(_read_query(json.loads(line)))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise InvalidArgument(
            f"{path}, line {number + 1}: not what was collected; delete it to collect anew",
            reason="BAD_CACHE",
        ) from error
    return source, found


def _read_query(record: Mapping[str, Any]) -> JudgedCandidates:
    return JudgedCandidates(
        query_id=record["query_id"],
        query=record["query"],
        judgements=record["judgements"],
        candidates=tuple(_read_all(record["candidates"])),
    )


def _read_all(records: Iterable[Mapping[str, Any]]) -> Iterable[Candidate]:
    for record in records:
        dense, lexical = record["dense"], record["lexical"]
        yield Candidate(
            id=record["id"],
            rerank=record["rerank"],
            dense=StagePlace(**dense) if dense else None,
            lexical=StagePlace(**lexical) if lexical else None,
        )
