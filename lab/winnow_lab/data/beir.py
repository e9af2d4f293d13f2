"""Reads retrieval sets in the BEIR layout: corpus.jsonl, queries.jsonl, qrels/<split>.tsv, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow_client import Document
from winnow_client.cli.reading.records import Place
from winnow_lab.data.texts import check_text
from winnow_lab.hashing import hash_of
from winnow_rpc.faults import InvalidArgument, NotFound

_COLUMNS = {"query-id", "corpus-id", "score"}
_MALFORMED = "not query-id, corpus-id and score, separated by tabs"


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A query, and which documents answer it."""

    id: str
    text: str
    judgements: dict[str, float]

    @property
    def answered(self) -> bool:
        """Whether a document answers it: one with a grade above 0."""
        return any(grade > 0 for grade in self.judgements.values())


@dataclass(frozen=True, slots=True)
class Judgement:
    """One line of a qrels file: how well a document answers a query."""

    place: Place
    query: str
    document: str
    grade: float
    """0: does not answer it."""


def read_documents(folder: Path) -> Iterator[Document]:
    """The documents of a set, one after another. Raises InvalidArgument, naming the line, or NotFound."""
    read: set[str] = set()
    for place, record in _read_lines(folder / "corpus.jsonl"):
        id_, title = _id(record, place), record.get("title") or ""
        if id_ in read:
            raise InvalidArgument(f"{place}: the id {id_!r} comes twice")
        read.add(id_)
        yield Document(id=id_, title=check_text(str(title), "title", place), text=_field(record, "text", place))


def has_text(document: Document) -> bool:
    """Whether there is anything of it to be found: one that is blank is refused by a gateway."""
    return bool(document.title.strip() or document.text.strip())


def content_of(documents: Iterable[Document]) -> str:
    """One hash (hex) over the ids and texts of documents, in their order."""
    return hash_of([each.id, each.title, each.text] for each in documents)


def read_queries(folder: Path, split: str) -> list[JudgedQuery]:
    """The queries of a split that have judgements and a text, by id. Raises NotFound for a missing file."""
    judgements: dict[str, dict[str, float]] = {}
    for judgement in read_judgements(folder, split):
        judgements.setdefault(judgement.query, {})[judgement.document] = judgement.grade
    texts = read_query_texts(folder)
    return [JudgedQuery(id_, texts[id_], judgements[id_]) for id_ in sorted(judgements) if id_ in texts]


def read_query_texts(folder: Path) -> dict[str, str]:
    """The texts of all queries, judged or not, by id. Raises InvalidArgument, naming the line, or NotFound."""
    texts: dict[str, str] = {}
    for place, record in _read_lines(folder / "queries.jsonl"):
        id_, text = _id(record, place), _field(record, "text", place)
        if texts.setdefault(id_, text) != text:
            raise InvalidArgument(f"{place}: the id {id_!r} comes twice, with different texts")
    return texts


def read_judgements(folder: Path, split: str) -> Iterator[Judgement]:
    """The lines of a split's qrels, each judgement once. Raises InvalidArgument, naming the line, or NotFound."""
    path = folder / "qrels" / f"{split}.tsv"
    header: list[str] | None = None
    grades: dict[tuple[str, str], float] = {}
    for place, row in _read_rows(path):
        if header is None:
            header = row
            if not _COLUMNS.issubset(header):
                stands = "\t".join(header)[:80]
                raise InvalidArgument(
                    f"{place}: the header must name query-id, corpus-id and score, separated by tabs, and is {stands!r}"
                )
            continue
        fields = dict(zip(header, row, strict=False))
        try:
            grade = float(fields["score"])
            judgement = Judgement(place, fields["query-id"], fields["corpus-id"], grade)
        except (KeyError, ValueError) as error:
            raise InvalidArgument(f"{place}: {_MALFORMED}") from error
        if not math.isfinite(grade):
            raise InvalidArgument(f"{place}: the score is {fields['score']}")
        judged = judgement.query, judgement.document
        before = grades.get(judged)
        if before is None:
            grades[judged] = grade
            yield judgement
        elif before != grade:
            raise InvalidArgument(
                f"{place}: {judged[0]!r} and {judged[1]!r} were judged {before:g} before, and {grade:g} here"
            )


def is_judged_set(folder: Path) -> bool:
    """Whether a folder is laid out so."""
    return any((folder / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))


def splits_of(folder: Path) -> list[str]:
    """The splits that have judgements, by name."""
    names = {path.name.removesuffix(".gz") for path in (folder / "qrels").glob("*.tsv*")}
    return sorted(name.removesuffix(".tsv") for name in names if name.endswith(".tsv"))


def _read_lines(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    with _open(path) as file:
        for number, line in enumerate(_whole(path, file), start=1):
            place = Place(str(path), number)
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InvalidArgument(f"{place}: not JSON") from error
            if not isinstance(record, dict):
                raise InvalidArgument(f"{place}: not a JSON object")
            yield place, record


def _read_rows(path: Path) -> Iterator[tuple[Place, list[str]]]:
    """The rows of a file of values between tabs, empty lines left out."""
    with _open(path) as file:
        reader = csv.reader(_whole(path, file), delimiter="\t")
        while True:
            place = Place(str(path), reader.line_num + 1)
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                # A quotation mark that opens a value takes all to the next one, or to the module's limit.
                raise InvalidArgument(f"{place}: {_MALFORMED} ({error})") from error
            if row:
                yield place, row


def _id(record: dict[str, Any], place: Place) -> str:
    value = record.get("_id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _field(record, "_id", place)


def _field(record: dict[str, Any], name: str, place: Place) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise InvalidArgument(f"{place}: has no string {name!r}")
    return check_text(value, name, place)


def _whole(path: Path, lines: Iterable[str]) -> Iterator[str]:
    """The lines of a file. Raises InvalidArgument where it is damaged."""
    try:
        yield from lines
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidArgument(f"{path}: the compressed file is damaged") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path}: is not UTF-8 ({error.reason})") from error


def _open(path: Path) -> io.TextIOBase:
    zipped = path.with_name(path.name + ".gz")
    if zipped.exists():
        return gzip.open(zipped, "rt", encoding="utf-8-sig")
    if path.exists():
        return path.open(encoding="utf-8-sig")
    raise NotFound(f"there is no {path}, gzipped or not")
