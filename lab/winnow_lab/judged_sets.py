"""Reads retrieval sets in the BEIR layout: corpus.jsonl, queries.jsonl, qrels/<split>.tsv, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow_client import Document
from winnow_rpc.faults import InvalidArgument, NotFound


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A query, and which documents answer it."""

    id: str
    text: str
    judgements: dict[str, float]


def read_documents(folder: Path) -> Iterator[Document]:
    """The documents of a set, one after another."""
    for record in _read_lines(folder / "corpus.jsonl"):
        yield Document(id=record["_id"], title=record.get("title", ""), text=record["text"])


def read_queries(folder: Path, split: str) -> list[JudgedQuery]:
    """The queries of a split that have judgements, by id. Raises NotFound for a missing file."""
    judgements: dict[str, dict[str, float]] = {}
    path = folder / "qrels" / f"{split}.tsv"
    with _open(path) as file:
        for number, row in enumerate(csv.DictReader(file, delimiter="\t"), start=2):
            try:
                judgements.setdefault(row["query-id"], {})[row["corpus-id"]] = float(row["score"])
            except (KeyError, TypeError, ValueError) as error:
                raise InvalidArgument(f"{path}, line {number}: not query-id, corpus-id and score") from error
    texts = read_query_texts(folder)
    return [JudgedQuery(id_, texts[id_], judgements[id_]) for id_ in sorted(judgements) if id_ in texts]


def read_query_texts(folder: Path) -> dict[str, str]:
    """The texts of all queries, judged or not, by id. Raises NotFound for a missing file."""
    return {record["_id"]: record["text"] for record in _read_lines(folder / "queries.jsonl")}


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidArgument(f"{path}, line {number}: not JSON") from error


def _open(path: Path) -> io.TextIOBase:
    zipped = path.with_name(path.name + ".gz")
    if zipped.exists():
        return gzip.open(zipped, "rt", encoding="utf-8")
    if path.exists():
        return path.open(encoding="utf-8")
    raise NotFound(f"there is no {path}, gzipped or not")
