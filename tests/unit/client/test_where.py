from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from winnow_client import field
from winnow_client.cli.where import parse_condition, parse_where
from winnow_client.filters import Filter

DAY = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("year>=2000", field("year") >= 2000),
        ("year > 2000", field("year") > 2000),
        ("year<=-1.5", field("year") <= -1.5),
        ("year<1e3", field("year") < 1000.0),
        ("lang=en", field("lang") == "en"),
        ("lang = en,de", field("lang").any_of("en", "de")),
        ("lang!=en", ~(field("lang") == "en")),
        ("lang!=en,de", ~field("lang").any_of("en", "de")),
        ('name="a,b"', field("name") == "a,b"),
        ('name="a,b","c\\"d"', field("name").any_of("a,b", 'c"d')),
        ('year="2000"', field("year") == "2000"),
        ("year=2000,2001", field("year").any_of(2000, 2001)),
        ("draft=true", field("draft") == True),  # noqa: E712
        ("score=0.5", field("score") == 0.5),
        ("a.b=x=y", field("a.b") == "x=y"),
        ("lang=", field("lang") == ""),
        ("name=two words", field("name") == "two words"),
        ("version=1.2.3", field("version") == "1.2.3"),
        ("id=99999999999999999999", field("id") == "99999999999999999999"),
        ("time>=2024-05-01", field("time") >= DAY),
        ("time<2024-05-01T00:00:00Z", field("time") < DAY),
        ("time<2024-05-01T02:00:00+02:00", field("time") < DAY.astimezone(timezone(timedelta(hours=2)))),
        ("author", field("author").exists()),
        ("!draft", ~field("draft").exists()),
    ],
)
def test_a_condition_means_what_it_says(text: str, meant: Filter) -> None:
    assert parse_condition(text) == meant


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no condition"),
        ("=x", "no condition"),
        (">=3", "no condition"),
        ("year>=soon", "neither a number nor a time"),
        ("year>=", "neither a number nor a time"),
        ("year>=2024-13-01", "neither a number nor a time"),
        ("time>2024-05-01", "times have >="),
        ("year=1,a", "several types"),
        ("score=0.5,0.7", "one by one"),
        ("lang=en,,de", "cannot be read"),
        ('lang="en', "cannot be read"),
    ],
)
def test_what_is_no_condition_is_refused_with_a_sentence(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_condition(text)


def test_several_conditions_must_all_hold() -> None:
    assert parse_where([]) is None
    assert parse_where(["year>=2000", "lang=en"]) == (field("year") >= 2000) & (field("lang") == "en")
