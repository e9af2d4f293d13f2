"""From a row to an example, by the names of its columns. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from winnow_client.cli.reading.records import Row
from winnow_lab.data.examples import Group, Kind, ScoredPair, Triplet
from winnow_lab.data.texts import check_text
from winnow_rpc.faults import InvalidArgument

COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    Kind.GROUPS: ("query", "documents", "labels"),
    Kind.SCORED_PAIRS: ("sentence1", "sentence2", "score"),
    Kind.TRIPLETS: ("anchor", "positive", "negative"),
    Kind.PAIRS: ("anchor", "positive"),
}
"""Kind → the columns that a row of it must have. The first kind whose columns are all there is what a file holds."""

_NEGATIVE = re.compile(r"negative(_\d+)?")


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """What the scores in a file run from and to; they are mapped to 0 to 1."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InvalidArgument(f"a range of scores runs from low to high, as 0:5 does; {self} does not")

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}"

    def unit(self, score: float) -> float | None:
        """The score mapped to 0 to 1; None if it is outside the range."""
        return (score - self.low) / (self.high - self.low) if self.low <= score <= self.high else None


def kind_by_columns(columns: Collection[str]) -> Kind | None:
    """The kind of the rows that have these columns; None if they are of no kind that is known."""
    return next((kind for kind in COLUMNS if not _missing(columns, kind)), None)


def check_columns(row: Row, kind: Kind) -> None:
    """Raises InvalidArgument, naming the line, unless a row has the columns of a kind."""
    missing = _missing(row.fields, kind)
    if missing:
        raise InvalidArgument(
            f"{row.place}: {kind} need {_listed(COLUMNS[kind])}; there is no {_listed(missing)}, "
            f"but {_listed(list(row.fields)) or 'nothing'}"
        )


def _missing(columns: Collection[str], kind: Kind) -> list[str]:
    """The columns that a kind needs and that are not there; negatives may have numbers alone."""
    there = {*columns, *("negative" for name in columns if _NEGATIVE.fullmatch(name))}
    return [name for name in COLUMNS[kind] if name not in there]


def scored_pair(row: Row, range_: ScoreRange) -> ScoredPair:
    """A row as a scored pair. Raises InvalidArgument, naming the line."""
    score = _number(row, "score", row.fields["score"])
    unit = range_.unit(score)
    if unit is None:
        raise InvalidArgument(
            f"{row.place}: the score {score:g} is outside {range_}; if the scores of this file run from, say, 0 to 5, "
            f"say --score-range 0:5"
        )
    return ScoredPair(_text(row, "sentence1"), _text(row, "sentence2"), unit)


def triplet(row: Row, kind: Kind) -> Triplet:
    """A row as a pair (without negatives) or a triplet. Raises InvalidArgument, naming the line."""
    names = [name for name in row.fields if _NEGATIVE.fullmatch(name)] if kind is Kind.TRIPLETS else []
    return Triplet(_text(row, "anchor"), _text(row, "positive"), tuple(_text(row, name) for name in names))


def group(row: Row) -> Group:
    """A row as a group. Raises InvalidArgument, naming the line."""
    documents, labels = row.fields["documents"], row.fields["labels"]
    for name, value in (("documents", documents), ("labels", labels)):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InvalidArgument(f"{row.place}: {name} must be a list")
    if len(documents) != len(labels):
        raise InvalidArgument(f"{row.place}: {len(documents)} documents but {len(labels)} labels")
    if len(documents) < 2:
        raise InvalidArgument(f"{row.place}: a group needs at least two documents, to order them")
    for text in documents:
        if not isinstance(text, str) or not text.strip():
            raise InvalidArgument(f"{row.place}: a document is empty or not a string")
        check_text(text, "a document", row.place)
    return Group(_text(row, "query"), tuple(documents), tuple(_number(row, "label", value) for value in labels))


def _text(row: Row, name: str) -> str:
    value = row.fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidArgument(f"{row.place}: {name} is empty or not a string")
    return check_text(value, name, row.place)


def _number(row: Row, what: str, value: Any) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not math.isfinite(number):
        raise InvalidArgument(f"{row.place}: the {what} {value!r} is not a finite number")
    return number


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names))
