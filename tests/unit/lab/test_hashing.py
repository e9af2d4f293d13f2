"""One hash over values: the same for the same, another for what is changed, moved or added."""

from __future__ import annotations

import pytest

from winnow_lab.hashing import hash_of

VALUES = [["a", "b"], {"c": 1.5}, None]


def test_the_same_values_have_the_same_hash_on_every_run() -> None:
    assert hash_of(iter(VALUES)) == hash_of(VALUES)
    assert hash_of(VALUES) == "72b299d13b03375ec58a8c3a5e6021c184de1066f63c0b9e281106e770f72bea"


@pytest.mark.parametrize(
    "other", [[["b", "a"], {"c": 1.5}, None], [{"c": 1.5}, ["a", "b"], None], VALUES[:2], [VALUES]]
)
def test_other_values_have_another(other: list[object]) -> None:
    assert hash_of(other) != hash_of(VALUES)


def test_where_one_value_ends_and_the_next_begins_counts() -> None:
    assert hash_of([1, 23]) != hash_of([12, 3])
