"""Reads a judged set for evaluation: checks that it can be evaluated, and draws the queries."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from winnow_client import Document
from winnow_lab.data.beir import JudgedQuery, has_text, read_documents, read_queries, splits_of
from winnow_lab.data.judged import read_judged_set
from winnow_rpc.faults import InvalidArgument

_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSet:
    """Documents, and queries with judgements."""

    name: str
    split: str
    documents: Sequence[Document]
    queries: Sequence[JudgedQuery]
    """Those that are evaluated, by id."""
    judged_count: int
    """Queries of the split that could be evaluated."""
    prefix: str = ""
    """Documents are those whose id begins with this."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""


def read_set(folder: Path, *, split: str, queries: int = 0, prefix: str = "", skip_missing: bool = False) -> JudgedSet:
    """A set in the BEIR layout: documents whose id begins with `prefix`, and at most `queries` queries (0: all).

    The same queries are drawn each time, so that systems can be compared query by query. Faults are those of
    `read_judged_set`; InvalidArgument too where the documents that are judged are not among those that are taken
    (unless `skip_missing`, which leaves their judgements out).
    """
    read = read_judged_set(folder, split, skip_missing=skip_missing)
    every = [document for document in read_documents(folder) if document.id.startswith(prefix)]
    documents = [document for document in every if has_text(document)]
    if not documents:
        which = f" whose id begins with {prefix!r}" if prefix else ""
        raise InvalidArgument(f"{folder} has no documents{which}", field="data", reason="EMPTY_SET")
    notes = list(read.notes)
    if blank := len(every) - len(documents):
        notes.append(f"{blank:,} documents without title and text are left out")
    judged, left_out = _of_documents(read.queries, documents, skip_missing=skip_missing)
    notes += left_out
    if not judged:
        raise InvalidArgument(
            f"no query of the split {split!r} of {folder} is answered by a document that is taken: there is nothing to "
            f"evaluate",
            field="split",
            reason="EMPTY_SPLIT",
        )
    # The same draw each time.
    drawn = random.Random(0).sample(judged, queries) if 0 < queries < len(judged) else judged
    return JudgedSet(
        name=folder.resolve().name,
        split=split,
        documents=documents,
        queries=sorted(drawn, key=lambda query: query.id),
        judged_count=len(judged),
        prefix=prefix,
        notes=tuple(notes),
    )


def count_judged(folder: Path, split: str) -> int:
    """Queries of a split with a relevant document; 0 where there is no such split."""
    if split not in splits_of(folder):
        return 0
    return sum(query.answered for query in read_queries(folder, split))


def _of_documents(
    queries: Sequence[JudgedQuery], documents: Sequence[Document], *, skip_missing: bool
) -> tuple[list[JudgedQuery], list[str]]:
    known = {document.id for document in documents}
    missing = sorted({id_ for query in queries for id_ in query.judgements if id_ not in known})
    if not missing:
        return list(queries), []
    named = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
    if not skip_missing:
        raise InvalidArgument(
            f"{len(missing):,} documents are judged that are blank or not taken ({named}): nothing can find them; take "
            f"them too, or leave their judgements out with --skip-missing",
            field="data",
            reason="JUDGED_DOCUMENT_MISSING",
        )
    kept = [
        replace(query, judgements={id_: grade for id_, grade in query.judgements.items() if id_ in known})
        for query in queries
    ]
    left = [query for query in kept if query.answered]
    notes = [f"judgements of {len(missing):,} documents that are not taken ({named}) are left out"]
    if lost := len(kept) - len(left):
        notes.append(f"{lost:,} queries have no document that answers them and are left out")
    return left, notes
