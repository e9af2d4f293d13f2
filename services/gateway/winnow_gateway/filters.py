"""Filters over documents, as values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Match:
    """A metadata field, or an element of it, equals one of `any_of`: strings, whole numbers or booleans, not mixed."""

    key: str
    any_of: Sequence[str | int | bool]


@dataclass(frozen=True, slots=True)
class Range:
    """A metadata field is a number within bounds."""

    key: str
    at_least: float | None = None
    more_than: float | None = None
    at_most: float | None = None
    less_than: float | None = None


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A metadata field is a point in time, from `start` (inclusive) to `end` (exclusive)."""

    key: str
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """A metadata field is there, neither null nor an empty list."""

    key: str


@dataclass(frozen=True, slots=True)
class HasId:
    """The document has one of these ids."""

    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Filter:
    """All of `must`, at least one of `should` if there are any, and none of `must_not` hold."""

    must: Sequence[Condition] = ()
    should: Sequence[Condition] = ()
    must_not: Sequence[Condition] = ()

    @property
    def empty(self) -> bool:
        """True if every document satisfies it for want of conditions."""
        return not (self.must or self.should or self.must_not)


Condition = Match | Range | TimeRange | Exists | HasId | Filter

NO_FILTER = Filter()
"""Lets every document pass."""


def filtered_keys(filter_: Filter) -> Iterator[str]:
    """Metadata fields that a filter looks at, each as often as it does."""
    for condition in (*filter_.must, *filter_.should, *filter_.must_not):
        if isinstance(condition, Filter):
            yield from filtered_keys(condition)
        elif not isinstance(condition, HasId):
            yield condition.key
