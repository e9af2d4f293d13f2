"""Reads one split of a set in the BEIR layout as data to train or evaluate with, checked."""

from __future__ import annotations

from pathlib import Path

from winnow_client.cli.reading.records import Place
from winnow_lab.data.beir import JudgedQuery, read_documents, read_judgements, read_query_texts, splits_of
from winnow_lab.data.examples import JudgedSet
from winnow_rpc.faults import InvalidArgument, NotFound


def read_judged_set(folder: Path, split: str, *, skip_missing: bool = False) -> JudgedSet:
    """The documents, and the queries of a split that have an answer.

    Raises NotFound for a split that is not there, InvalidArgument where qrels name documents or queries that are not
    there, or queries without text (unless `skip_missing`, which leaves those lines out), and where nothing is left.
    """
    splits = splits_of(folder)
    if split not in splits:
        there = f"there are {', '.join(splits)}" if splits else "its folder qrels holds no .tsv file"
        raise NotFound(f"{folder} has no split {split!r}: {there}")
    documents = _documents(folder)
    texts = read_query_texts(folder)
    answers: dict[str, dict[str, float]] = {}
    missing: list[tuple[Place, str]] = []
    for judgement in read_judgements(folder, split):
        if judgement.query not in texts:
            missing.append((judgement.place, f"the query {judgement.query!r}, which is not in queries.jsonl"))
        elif not texts[judgement.query].strip():
            missing.append((judgement.place, f"the query {judgement.query!r}, whose text is blank"))
        elif judgement.document not in documents:
            missing.append((judgement.place, f"the document {judgement.document!r}, which is not in corpus.jsonl"))
        else:
            answers.setdefault(judgement.query, {})[judgement.document] = judgement.grade
    if missing and not skip_missing:
        place, what = missing[0]
        others = f"; so do {len(missing) - 1} other lines" if len(missing) > 1 else ""
        raise InvalidArgument(
            f"{place}: names {what}{others}. Correct the set, or leave such lines out with --skip-missing."
        )
    judged = [JudgedQuery(id_, texts[id_], grades) for id_, grades in sorted(answers.items())]
    queries = [query for query in judged if query.answered]
    if not queries:
        raise InvalidArgument(
            f"{folder}: the split {split!r} is empty: no query of it has a document that answers it (score above 0)"
        )
    return JudgedSet(
        source=f"{folder.name}, split {split}",
        documents=documents,
        queries=queries,
        notes=_notes(len(missing), len(answers) - len(queries), _unjudged(folder, texts)),
    )


def _documents(folder: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for document in read_documents(folder):
        # As the gateway hands it to the models: title and text, a line each.
        texts[document.id] = f"{document.title}\n{document.text}" if document.title else document.text
    if not texts:
        raise InvalidArgument(f"{folder / 'corpus.jsonl'}: is empty")
    return texts


def _unjudged(folder: Path, texts: dict[str, str]) -> int:
    """Queries that have a judgement in no split."""
    judged = {judgement.query for split in splits_of(folder) for judgement in read_judgements(folder, split)}
    return len(texts.keys() - judged)


def _notes(missing: int, unanswered: int, unjudged: int) -> tuple[str, ...]:
    said = (
        (missing, "judgements name a query or document that is not there and are left out"),
        (unanswered, "queries have no document that answers them and are left out"),
        (unjudged, "queries have no judgement in any split and are left out"),
    )
    return tuple(f"{count:,} {what}" for count, what in said if count)
