"""Filters as they are written on a command line: `year>=2000`, `lang=en,de`, `author`, `!draft`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime

import click

from winnow_client.filters import Filter, MatchValue, field

WHERE_HELP = (
    "Only documents whose metadata satisfy it: year>=2000, lang=en, lang=en,de (one of them), lang!=en, "
    "time<2024-05-01, author (has one), !author (has none). Given again: all must hold."
)
"""Help text of every --where."""

_COMPARISON = re.compile(r"([^=<>!]+?)\s*(>=|<=|!=|=|<|>)\s*(.*)", re.DOTALL)
_PRESENCE = re.compile(r"(!?)\s*([^=<>!]+)")
_QUOTED_OR_PLAIN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^,"]*?)\s*(?:,|$)')
_INT64 = 2**63


def parse_where(conditions: Sequence[str]) -> Filter | None:
    """All of some conditions as one filter; None if there are none. Raises ValueError with a sentence."""
    whole: Filter | None = None
    for condition in conditions:
        parsed = parse_condition(condition)
        whole = parsed if whole is None else whole & parsed
    return whole


def parse_condition(text: str) -> Filter:
    """One condition as a filter. Raises ValueError with a sentence."""
    if comparison := _COMPARISON.fullmatch(text.strip()):
        key, operator, value = comparison.groups()
        return _compared(key, operator, value, whole=text)
    if presence := _PRESENCE.fullmatch(text.strip()):
        exists = field(presence[2].strip()).exists()
        return ~exists if presence[1] else exists
    raise ValueError(f"{text!r} is no condition: write FIELD, a sign (= != >= > <= <) and a value, as in year>=2000")


def _compared(key: str, operator: str, text: str, *, whole: str) -> Filter:
    subject = field(key)
    if operator in ("=", "!="):
        values = _values(text, whole=whole)
        if len(values) == 1:
            equal = subject == values[0]
        elif any(isinstance(value, float) for value in values):
            raise ValueError(f"{whole!r} lists numbers with a fraction; they can only be compared one by one")
        else:
            equal = subject.any_of(*(value for value in values if not isinstance(value, float)))
        return ~equal if operator == "!=" else equal
    bound = _bound(text, whole=whole)
    if operator == ">=":
        return subject >= bound
    if operator == "<":
        return subject < bound
    if isinstance(bound, datetime):
        raise ValueError(f"{whole!r} compares a time; times have >= (at or after) and < (before) only")
    return subject > bound if operator == ">" else subject <= bound


def _values(text: str, *, whole: str) -> list[MatchValue | float]:
    """The values of a list. In quotes a value is a string whatever it looks like: `"2000"`, `"a,b"`."""
    values: list[MatchValue | float] = []
    position = 0
    while True:
        part = _QUOTED_OR_PLAIN.match(text, position)
        if part is None or (not part[1] and text):
            raise ValueError(f"{whole!r} has a value that cannot be read: put strings with commas or quotes in quotes")
        values.append(_value(part[1], whole=whole))
        position = part.end()
        if not text[:position].endswith(",") or part[0] == part[1]:
            break
    if len({type(value) for value in values}) != 1:
        raise ValueError(
            f"{whole!r} lists values of several types; they must be all strings, numbers, or true and false"
        )
    return values


def _value(text: str, *, whole: str) -> MatchValue | float:
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except json.JSONDecodeError:
            raise ValueError(f"{whole!r} has a string in quotes that cannot be read: {text}") from None
    if text in ("true", "false"):
        return text == "true"
    number = _number(text)
    return text if number is None else number


def _number(text: str) -> int | float | None:
    if re.fullmatch(r"[+-]?\d{1,19}", text) and -_INT64 <= int(text) < _INT64:
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) and not re.fullmatch(r"[+-]?\d+", text):
        return float(text)
    return None


def _bound(text: str, *, whole: str) -> float | datetime:
    number = _number(text)
    if number is not None:
        return number
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{whole!r} compares with neither a number nor a time such as 2024-05-01") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class WhereType(click.ParamType[str]):
    """A condition on a command line: checked, kept as text."""

    name = "condition"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuses what is no condition."""
        try:
            parse_condition(value)
        except (ValueError, TypeError) as error:
            self.fail(f"{error}.", param, ctx)
        return value
