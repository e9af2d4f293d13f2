"""A small language of filters over documents.

    field("year") >= 2000
    field("lang").any_of("en", "de") & ~field("draft").exists()
    (field("year") < 1990) | (field("author.name") == "Knuth")

A field that is a list satisfies a condition if one of its elements does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

MatchValue = str | int | bool
"""What a metadata field can be compared with for equality."""


class Filter:
    """A condition over documents. Combine with `&`, `|` and `~`."""

    __slots__ = ()

    def __and__(self, other: Filter) -> Filter:
        """Both hold."""
        return AllOf((*_parts(self, AllOf), *_parts(other, AllOf)))

    def __or__(self, other: Filter) -> Filter:
        """At least one holds."""
        return AnyOf((*_parts(self, AnyOf), *_parts(other, AnyOf)))

    def __invert__(self) -> Filter:
        """It does not hold."""
        return self.condition if isinstance(self, Not) else Not(self)

    def __bool__(self) -> NoReturn:
        # `a and b`, `not a` and `1 < field < 3` would silently drop half of what was meant.
        raise TypeError("a filter is neither true nor false: combine filters with &, | and ~, not with and, or and not")


@dataclass(frozen=True)
class Match(Filter):
    """A metadata field equals one of some values: all strings, all whole numbers, or all booleans."""

    key: str
    """Path of the field, keys joined by dots."""
    any_of: tuple[MatchValue, ...]
    """The values."""


@dataclass(frozen=True)
class Range(Filter):
    """A metadata field is a number within bounds."""

    key: str
    """Path of the field, keys joined by dots."""
    at_least: float | None = None
    """Inclusive lower bound."""
    more_than: float | None = None
    """Exclusive lower bound."""
    at_most: float | None = None
    """Inclusive upper bound."""
    less_than: float | None = None
    """Exclusive upper bound."""


@dataclass(frozen=True)
class TimeRange(Filter):
    """A metadata field is a point in time within bounds. Bounds carry a time zone."""

    key: str
    """Path of the field, keys joined by dots."""
    from_time: datetime | None = None
    """At or after this."""
    before_time: datetime | None = None
    """Before this."""


@dataclass(frozen=True)
class Exists(Filter):
    """A metadata field is present, with a value other than null or an empty list."""

    key: str
    """Path of the field, keys joined by dots."""


@dataclass(frozen=True)
class Ids(Filter):
    """The document has one of some ids."""

    ids: tuple[str, ...]
    """The ids."""


@dataclass(frozen=True)
class AllOf(Filter):
    """All of some filters hold."""

    conditions: tuple[Filter, ...]
    """The filters."""


@dataclass(frozen=True)
class AnyOf(Filter):
    """At least one of some filters holds."""

    conditions: tuple[Filter, ...]
    """The filters."""


@dataclass(frozen=True)
class Not(Filter):
    """A filter does not hold."""

    condition: Filter
    """The filter."""


class Field:
    """A metadata field, to be compared with something. Made by `field`."""

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def __eq__(self, value: object) -> Filter:  # type: ignore[override]
        """It equals a string, a whole number or a boolean; or a number, within no tolerance."""
        return _equal(self._key, value)

    def __ne__(self, value: object) -> Filter:  # type: ignore[override]
        """It does not equal a value; documents without the field satisfy this too."""
        return Not(_equal(self._key, value))

    def __ge__(self, bound: float | datetime) -> Filter:
        """It is a number of at least `bound`, or a point in time at or after it."""
        if isinstance(bound, datetime):
            return TimeRange(self._key, from_time=_aware(bound))
        return Range(self._key, at_least=_number(bound))

    def __lt__(self, bound: float | datetime) -> Filter:
        """It is a number less than `bound`, or a point in time before it."""
        if isinstance(bound, datetime):
            return TimeRange(self._key, before_time=_aware(bound))
        return Range(self._key, less_than=_number(bound))

    def __gt__(self, bound: float) -> Filter:
        """It is a number greater than `bound`. Points in time have >= and < only."""
        return Range(self._key, more_than=_number(bound))

    def __le__(self, bound: float) -> Filter:
        """It is a number of at most `bound`. Points in time have >= and < only."""
        return Range(self._key, at_most=_number(bound))

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> NoReturn:
        raise TypeError('a field is neither true nor false: compare it, as in field("draft") == True')

    def any_of(self, *values: MatchValue) -> Filter:
        """It equals one of some values: all strings, all whole numbers, or all booleans."""
        return _match(self._key, values)

    def exists(self) -> Filter:
        """It is present, with a value other than null or an empty list."""
        return Exists(self._key)


def field(key: str) -> Field:
    """The metadata field at a path, keys joined by dots: `field("author.name") == "Knuth"`."""
    return Field(key)


def ids(*values: str) -> Filter:
    """The document has one of these ids."""
    return Ids(tuple(values))


def _parts(whole: Filter, kind: type[AllOf] | type[AnyOf]) -> tuple[Filter, ...]:
    # `a & b & c` is one level deep, not two: the contract allows only eight.
    return whole.conditions if isinstance(whole, kind) else (whole,)


def _equal(key: str, value: object) -> Filter:
    if isinstance(value, float):
        # The contract matches no floats; a range of one point does.
        return Range(key, at_least=value, at_most=value)
    if not isinstance(value, MatchValue):
        raise TypeError(f"a field can equal a string, a number or a boolean, not {type(value).__name__}")
    return _match(key, (value,))


def _match(key: str, values: Iterable[MatchValue]) -> Match:
    values = tuple(values)
    kinds = {type(value) for value in values}
    if len(kinds) != 1 or not kinds <= {str, int, bool}:
        raise TypeError("values to match are one or more, and all strings, all whole numbers or all booleans")
    return Match(key, values)


def _number(bound: object) -> float:
    if isinstance(bound, bool) or not isinstance(bound, int | float):
        raise TypeError(f"a bound is a number, or with >= and < a datetime, not {type(bound).__name__}")
    return bound


def _aware(bound: datetime) -> datetime:
    if bound.tzinfo is None:
        raise TypeError("a bound in time needs a time zone: datetime(2024, 5, 1, tzinfo=UTC)")
    return bound
