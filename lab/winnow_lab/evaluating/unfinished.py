"""The answers of an evaluation that is under way, kept query by query: one that is interrupted goes on from there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from winnow_lab.data.beir import JudgedQuery, content_of
from winnow_lab.evaluating.answers import Answer, Asking, Order
from winnow_lab.evaluating.sets import JudgedSet
from winnow_lab.hashing import hash_of
from winnow_lab.line_file import LineFile, whole_lines
from winnow_rpc.faults import DataLoss

UNFINISHED = "unfinished"
"""Of an evaluation's output folder: nothing else lies in it."""


class UnfinishedAnswers:
    """What was answered already, and a file for what is answered from now on. `with` opens and closes it.

    The file is named by the set and a hash of all that decides an answer: another evaluation has another file.
    """

    def __init__(self, folder: Path, judged: JudgedSet, asking: Asking, answered_by: Mapping[str, str]) -> None:
        """`answered_by`: models by fingerprint and how they are asked."""
        self._identity = {
            "set": judged.name,
            "split": judged.split,
            "documents": content_of(judged.documents),
            # As it is read again.
            **json.loads(json.dumps(asdict(asking))),
            **answered_by,
        }
        name = hash_of([sorted(self._identity.items())])[:12]
        self._of_set = f"{judged.name}-{judged.split}-"
        self.path = folder / f"{self._of_set}{name}.jsonl"
        self._lines = LineFile(self.path)

    def __enter__(self) -> Self:
        is_new = not whole_lines(self.path)
        self._lines.__enter__()
        if is_new:
            self._lines.add(self._identity)
        return self

    def __exit__(self, *raised: object) -> None:
        self._lines.__exit__(*raised)

    def add(self, answer: Answer) -> None:
        """Keeps an answer."""
        self._lines.add({"query": answer.query.id, "text": answer.query.text, **_stored(answer)})

    def read(self, queries: Sequence[JudgedQuery]) -> dict[str, Answer]:
        """Query's id → its answer, of those of the queries that were answered.

        Raises DataLoss that names a line that is no answer.
        """
        by_id = {query.id: query for query in queries}
        found = {}
        for number, line in enumerate(whole_lines(self.path)[1:], start=2):
            try:
                record = json.loads(line)
                query = by_id.get(record["query"])
                if query is not None and query.text == record["text"]:
                    found[query.id] = _read(query, record)
            except (ValueError, TypeError, KeyError) as error:
                raise DataLoss(f"{self.path}, line {number}: no answer; delete the file to ask anew") from error
        return found

    def others(self) -> list[str]:
        """What else was begun with this set and split, and in what it differs; a sentence each."""
        said = []
        for path in sorted(self.path.parent.glob("*.jsonl")):
            lines = whole_lines(path)
            if path == self.path or not path.name.startswith(self._of_set) or not lines:
                continue
            there = json.loads(lines[0])
            different = [name for name in self._identity if there.get(name) != self._identity[name]]
            said.append(f"{path} is of an interrupted evaluation that differs in {', '.join(different)}: not used")
        return said

    def forget(self) -> None:
        """Removes the file: all is kept elsewhere, or is not wanted."""
        self.path.unlink(missing_ok=True)


def _stored(answer: Answer) -> dict[str, Any]:
    return {
        "first_stages": {name: asdict(order) for name, order in answer.first_stages.items()},
        "rerank_scores": dict(answer.rerank_scores),
        "exhaustive": asdict(answer.exhaustive) if answer.exhaustive else None,
    }


def _read(query: JudgedQuery, record: Mapping[str, Any]) -> Answer:
    return Answer(
        query=query,
        first_stages={name: Order(**order) for name, order in record["first_stages"].items()},
        rerank_scores=record["rerank_scores"],
        exhaustive=Order(**record["exhaustive"]) if record["exhaustive"] else None,
    )
