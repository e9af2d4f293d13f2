"""Grouping is a function of the searches it is given."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from winnow_index.groups import GroupValue, collect, values_at

# (hit, its values), best first.
DATA: list[tuple[int, list[GroupValue]]] = [(n, [n % 7 if n % 10 else "rare"]) for n in range(500)]


class Searches:
    """A search over DATA that remembers what it was asked."""

    def __init__(self, data: Sequence[tuple[int, list[GroupValue]]] = DATA) -> None:
        self.data = data
        self.asked: list[int] = []

    async def __call__(
        self, *, limit: int, without: Sequence[GroupValue], only: GroupValue | None
    ) -> list[tuple[int, list[GroupValue]]]:
        self.asked.append(limit)
        return [
            (hit, values)
            for hit, values in self.data
            if not set(values) & set(without) and (only is None or only in values)
        ][:limit]


async def test_groups_come_in_the_order_of_their_best_hit() -> None:
    groups = await collect(Searches(), limit=3, size=2, refine=True)
    assert [(group.value, group.hits) for group in groups] == [("rare", [0, 10]), (1, [1, 8]), (2, [2, 9])]


async def test_a_group_that_is_far_down_is_filled_by_a_search_of_its_own() -> None:
    near: list[tuple[int, list[GroupValue]]] = [(n, ["near"]) for n in range(1, 900)]
    data: list[tuple[int, list[GroupValue]]] = [(0, ["far"]), *near, (900, ["far"])]
    groups = await collect(Searches(data), limit=2, size=2, refine=True)
    assert [(group.value, group.hits) for group in groups] == [("far", [0, 900]), ("near", [1, 2])]


async def test_groups_that_are_far_down_are_found_without_those_above() -> None:
    near: list[tuple[int, list[GroupValue]]] = [(n, ["near"]) for n in range(5000)]
    data: list[tuple[int, list[GroupValue]]] = [*near, (5000, ["far"])]
    searches = Searches(data)
    groups = await collect(searches, limit=2, size=1, refine=True)
    assert [group.value for group in groups] == ["near", "far"]
    assert max(searches.asked) < 1000, "it asked for nearly everything"


async def test_one_search_decides_where_candidates_depend_on_the_filter() -> None:
    searches = Searches()
    assert await collect(searches, limit=9, size=3, refine=False)
    assert len(searches.asked) == 1


async def test_a_hit_with_several_values_is_in_several_groups_once() -> None:
    groups = await collect(Searches([(1, ["a", "b", "a"]), (2, ["b"])]), limit=5, size=5, refine=True)
    assert [(group.value, group.hits) for group in groups] == [("a", [1]), ("b", [1, 2])]


async def test_nothing_found_is_no_group() -> None:
    assert await collect(Searches([]), limit=5, size=5, refine=True) == []


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("a", [1]),
        ("list", ["x", "y"]),
        ("deep.b", ["z"]),
        ("items[].n", [1, 2]),
        ("items[1].n", [2]),
        ("items[9].n", []),
        ('"with space".k', [3]),
        ("missing", []),
        ("deep", []),
        ("mixed", []),
        ("flag", []),
        ("real", []),
        ("a[", []),
    ],
)
def test_values_at_a_path(path: str, values: list[GroupValue]) -> None:
    payload = {
        "a": 1,
        "list": ["x", "y"],
        "deep": {"b": "z"},
        "items": [{"n": 1}, {"n": 2}],
        "with space": {"k": 3},
        "mixed": [1, True],
        "flag": True,
        "real": 1.5,
    }
    assert values_at(payload, path) == values
    assert values_at(None, path) == []
