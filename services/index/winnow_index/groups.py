"""Grouping of results by a field of their payload. Pure: the searches are given as a function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

HitT = TypeVar("HitT")
HitT_co = TypeVar("HitT_co", covariant=True)
GroupValue = str | int
_MOST_ROUNDS = 12
# One part of a path: a name, bare or quoted, then any number of [] or [3].
_PART = re.compile(r'(?:"([^"]*)"|([^.\[\]"]+))((?:\[\d*\])*)(?:\.|$)')


@dataclass
class Group(Generic[HitT]):
    """Hits that share a value, best first."""

    value: GroupValue
    hits: list[HitT] = field(default_factory=list)


class Search(Protocol[HitT_co]):
    """Finds hits with their values, best first."""

    async def __call__(
        self, *, limit: int, without: Sequence[GroupValue], only: GroupValue | None
    ) -> Sequence[tuple[HitT_co, Sequence[GroupValue]]]:
        """At most `limit` hits that have none of the values `without`, and the value `only` if it is given."""


async def collect(search: Search[HitT], *, limit: int, size: int, refine: bool) -> list[Group[HitT]]:
    """The best `limit` groups in the order of their best hit, each with its best `size` hits.

    With `refine`, searches go on, without the values found, until there are enough groups, and each that is not full is
    filled by a search of its own. Without it, one search decides (for queries whose candidates depend on the filter).
    """
    groups: dict[GroupValue, Group[HitT]] = {}
    page = max(limit * size * 2, 64)
    for _ in range(_MOST_ROUNDS):
        found = await search(limit=page, without=list(groups), only=None)
        for hit, values in found:
            for value in dict.fromkeys(values):
                groups.setdefault(value, Group(value)).hits.append(hit)
        if not refine or len(groups) >= limit or len(found) < page:
            break
        page *= 4
    best = list(groups.values())[:limit]
    for group in best:
        if refine and len(group.hits) < size:
            group.hits = [hit for hit, _ in await search(limit=size, without=(), only=group.value)]
        del group.hits[size:]
    return [group for group in best if group.hits]


def values_at(payload: Mapping[str, Any] | None, path: str) -> list[GroupValue]:
    """Strings and integers at a path of a payload; an array gives each of its elements.

    One value of another kind and the point joins no group at all, as in Qdrant.
    """
    found: Iterable[Any] = [payload or {}]
    position = 0
    while position < len(path):
        part = _PART.match(path, position)
        if part is None:
            return []
        name = part.group(1) if part.group(1) is not None else part.group(2)
        found = [value[name] for value in found if isinstance(value, Mapping) and name in value]
        for bracket in re.findall(r"\[(\d*)\]", part.group(3)):
            found = _elements(found, bracket)
        position = part.end()
    flat: list[Any] = []
    for value in found:
        flat.extend(value) if isinstance(value, list) else flat.append(value)
    # By exact type: a bool is an int to isinstance.
    return flat if all(type(value) in (str, int) for value in flat) else []


def _elements(values: Iterable[Any], bracket: str) -> list[Any]:
    arrays = [value for value in values if isinstance(value, list)]
    if not bracket:
        return [element for array in arrays for element in array]
    return [array[int(bracket)] for array in arrays if int(bracket) < len(array)]
