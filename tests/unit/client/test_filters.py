from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.client.filter_fake import holds
from winnow_client import field, ids
from winnow_client.conversions import filter_from_proto, filter_to_proto
from winnow_client.filters import AllOf, AnyOf, Exists, Filter, Ids, Match, Not, Range, TimeRange

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
KEYS = ("year", "lang", "time", "author.name")


def test_comparisons_make_the_conditions_of_the_contract() -> None:
    assert (field("year") >= 2000) == Range("year", at_least=2000)
    assert (field("year") > 2000) == Range("year", more_than=2000)
    assert (field("year") <= 2000) == Range("year", at_most=2000)
    assert (field("year") < 2000) == Range("year", less_than=2000)
    assert (field("time") >= NOON) == TimeRange("time", from_time=NOON)
    assert (field("time") < NOON) == TimeRange("time", before_time=NOON)
    assert (field("lang") == "en") == Match("lang", ("en",))
    assert (field("lang") != "en") == Not(Match("lang", ("en",)))
    assert field("lang").any_of("en", "de") == Match("lang", ("en", "de"))
    assert (field("draft") == True) == Match("draft", (True,))  # noqa: E712
    assert field("author.name").exists() == Exists("author.name")
    assert ids("a", "b") == Ids(("a", "b"))


def test_a_number_with_a_fraction_is_matched_by_a_range_of_one_point() -> None:
    assert (field("score") == 0.5) == Range("score", at_least=0.5, at_most=0.5)


def test_chains_of_one_operator_stay_one_level_deep() -> None:
    a, b, c = (field(name).exists() for name in "abc")
    assert a & b & c == AllOf((a, b, c))
    assert a | (b | c) == AnyOf((a, b, c))
    assert ~~a == a


def test_a_filter_in_a_place_for_truth_values_says_what_to_write_instead() -> None:
    with pytest.raises(TypeError, match="combine filters with"):
        bool(field("year") >= 2000)
    with pytest.raises(TypeError):
        assert 1990 < field("year") < 2000  # type: ignore[operator]
    with pytest.raises(TypeError, match="compare it"):
        bool(field("draft"))


@pytest.mark.parametrize("value", [None, ["en"], NOON])
def test_what_a_field_cannot_equal_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError):
        _ = field("lang") == value


def test_values_of_several_types_cannot_be_matched_together() -> None:
    with pytest.raises(TypeError, match="all strings"):
        field("lang").any_of("en", 1)
    with pytest.raises(TypeError, match="all strings"):
        field("n").any_of(1, True)
    with pytest.raises(TypeError, match="one or more"):
        field("n").any_of()


def test_a_time_without_a_zone_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="time zone"):
        _ = field("time") >= NOON.replace(tzinfo=None)


def test_a_negation_beside_other_conditions_costs_no_level() -> None:
    message = filter_to_proto((field("year") >= 2000) & ~field("draft").exists())
    assert len(message.must) == len(message.must_not) == 1
    assert message.must[0].WhichOneof("condition") == "range"


times = st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
numbers = st.integers(-3, 3)
leaves: st.SearchStrategy[Filter] = st.one_of(
    st.builds(lambda k, v: field(k).any_of(*v), st.sampled_from(KEYS), st.lists(numbers, min_size=1, max_size=3)),
    st.builds(lambda k, v: field(k) == v, st.sampled_from(KEYS), st.sampled_from(["en", "de", True, False])),
    st.builds(lambda k, v: field(k) >= v, st.sampled_from(KEYS), numbers | times),
    st.builds(lambda k, v: field(k) < v, st.sampled_from(KEYS), numbers | times),
    st.builds(lambda k, v: field(k) > v, st.sampled_from(KEYS), numbers),
    st.builds(lambda k: field(k).exists(), st.sampled_from(KEYS)),
    st.builds(lambda v: ids(*v), st.lists(st.sampled_from("abc"), min_size=1, max_size=2)),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        inner.map(lambda a: ~a),
    ),
    max_leaves=8,
)
values = st.one_of(
    numbers,
    st.sampled_from(["en", "de"]),
    st.booleans(),
    times.map(lambda t: t.isoformat()),
    st.lists(numbers, max_size=2),
)
documents = st.dictionaries(st.sampled_from(["year", "lang", "time"]), values)


@given(filters)
def test_every_filter_comes_back_from_its_message_with_the_same_message(where: Filter) -> None:
    message = filter_to_proto(where)
    assert filter_to_proto(filter_from_proto(message)) == message


@given(filters, documents, st.sampled_from("abcd"))
def test_a_message_means_what_the_filter_means(where: Filter, metadata: dict[str, Any], id_: str) -> None:
    assert _bool(lambda: holds(filter_to_proto(where), id_, metadata)) == _bool(lambda: _means(where, id_, metadata))


def _bool(judge: Any) -> bool | str:
    try:
        return bool(judge())
    except ValueError:
        # Neither judge reads every string as a time; then both say so, or neither.
        return "no time"


def _means(where: Filter, id_: str, metadata: dict[str, Any]) -> bool:
    match where:
        case AllOf(conditions):
            # Negations last, as the message has them: a judge that stops early must stop at the same one.
            ordered = sorted(conditions, key=lambda each: isinstance(each, Not))
            return all(_means(each, id_, metadata) for each in ordered)
        case AnyOf(conditions):
            return any(_means(each, id_, metadata) for each in conditions)
        case Not(condition):
            return not _means(condition, id_, metadata)
        case Ids(wanted):
            return id_ in wanted
        case Exists(key):
            return bool(_found(metadata, key))
        case Match(key, wanted):
            return any(v == w and type(v) is type(w) for v in _found(metadata, key) for w in wanted)
        case Range(key):
            numbers = [v for v in _found(metadata, key) if type(v) in (int, float)]
            return any(
                (where.at_least is None or v >= where.at_least)
                and (where.more_than is None or v > where.more_than)
                and (where.at_most is None or v <= where.at_most)
                and (where.less_than is None or v < where.less_than)
                for v in numbers
            )
        case TimeRange(key, start, end):
            moments = [datetime.fromisoformat(v) for v in _found(metadata, key) if isinstance(v, str)]
            far = timedelta(days=10**6)
            return any((start or datetime.min.replace(tzinfo=UTC)) <= m < (end or NOON + far) for m in moments)
    raise AssertionError(where)


def _found(metadata: dict[str, Any], key: str) -> list[Any]:
    value = metadata.get(key)
    return value if isinstance(value, list) else [] if value is None else [value]
