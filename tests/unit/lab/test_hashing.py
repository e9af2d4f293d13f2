"""One hash over values: the same for the same, another for what is changed, moved or added."""

from __future__ import annotations

import pytest

from winnow_lab.hashing import hash_of

VALUES = [["a", "b"], {"c": 1.5}, None]


def test_the_same_values_have_the_same_hash_on_every_run() -> None:
    assert hash_of(iter(VALUES)) == hash_of(VALUES)
    assert hash_of(VALUES) == "3fe4336a4e2e9284d20e9d67aae7c35eaa6bf9005e900f39fc9c759c7509508f"


@pytest.mark.parametrize(
    "other", [[["b", "a"], {"c": 1.5}, None], [{"c": 1.5}, ["a", "b"], None], VALUES[:2], [VALUES]]
)
def test_other_values_have_another(other: list[object]) -> None:
    assert hash_of(other) != hash_of(VALUES)
