"""Answers and sets that tests make up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from winnow_lab.data.beir import JudgedQuery
from winnow_lab.evaluating.answers import BM25, DENSE, HYBRID, Answer, Order

DOCUMENTS = {
    "paris": "the capital of france is paris",
    "berlin": "the capital of germany is berlin",
    "cheese": "france has red bread and green cheese",
    "river": "a river to the sea",
    "music": "music in berlin",
    "green": "green and blue and red",
    "numbers": "one two three four five six",
    "world": "hello world",
}
QUERIES = {"q1": "what is the capital of france", "q2": "which river", "q3": "bread and cheese", "q4": "hello"}
QRELS = {"q1": {"paris": 2, "cheese": 1}, "q2": {"river": 1}, "q3": {"cheese": 1}, "q4": {"world": 1}}


def an_order(*ids: str) -> Order:
    return Order(ids, [1 - at / 10 for at in range(len(ids))])


def an_answer(
    judgements: Mapping[str, float],
    *,
    dense: Sequence[str] = ("a", "b"),
    lexical: Sequence[str] = ("c", "a"),
    hybrid: Sequence[str] = ("a", "c"),
    scores: Mapping[str, float] | None = None,
    exhaustive: Sequence[str] | None = None,
    query: str = "q",
) -> Answer:
    return Answer(
        query=JudgedQuery(query, "?", dict(judgements)),
        first_stages={DENSE: an_order(*dense), BM25: an_order(*lexical), HYBRID: an_order(*hybrid)},
        rerank_scores=scores or {},
        exhaustive=an_order(*exhaustive) if exhaustive else None,
    )


def write_set(
    folder: Path,
    *,
    documents: Mapping[str, str] = DOCUMENTS,
    queries: Mapping[str, str] = QUERIES,
    qrels: Mapping[str, Mapping[str, int]] = QRELS,
) -> Path:
    """A set in the BEIR layout."""
    (folder / "qrels").mkdir(parents=True)
    lines = [{"_id": id_, "title": "", "text": text} for id_, text in documents.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = [{"_id": id_, "text": text} for id_, text in queries.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [f"{query}\t{id_}\t{grade}\n" for query, judged in qrels.items() for id_, grade in judged.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder
