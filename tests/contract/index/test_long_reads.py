"""One caller's long read does not stop the others: between its pieces, whoever waits is served."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, models

from winnow_index.wire import answers
from winnow_index.wire.queries import QueryReader

GROUPS = 40
SOMEBODY_ELSE = "somebody else"


@contextlib.asynccontextmanager
async def _others(happened: list[str]) -> AsyncIterator[None]:
    """Somebody who always has something to do on the same event loop."""

    async def work() -> None:
        while True:
            if happened[-1:] != [SOMEBODY_ELSE]:
                happened.append(SOMEBODY_ELSE)
            await asyncio.sleep(0)

    working = asyncio.create_task(work())
    yield
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


async def test_others_are_served_between_the_searches_for_groups(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.create_collection("c", vectors_config=models.VectorParams(size=2, distance="Dot"))
    await client.create_payload_index("c", "g", "integer", wait=True)
    points = [models.PointStruct(id=n, vector=[1.0, float(n)], payload={"g": n // 2}) for n in range(2 * GROUPS)]
    await client.upsert("c", points, wait=True)
    happened: list[str] = []
    read = QueryReader.read

    def watched(self: QueryReader, *arguments: Any, **options: Any) -> Any:
        happened.append("search")
        return read(self, *arguments, **options)

    monkeypatch.setattr(QueryReader, "read", watched)
    async with _others(happened):
        found = await client.query_points_groups(
            "c", query=[1.0, 1.0], group_by="g", limit=GROUPS, group_size=3, with_payload=True
        )
    assert [(group.id, [hit.id for hit in group.hits]) for group in found.groups] == [
        (g, [2 * g + 1, 2 * g]) for g in reversed(range(GROUPS))
    ]
    assert happened.count("search") > GROUPS
    assert all(pair != ("search", "search") for pair in itertools.pairwise(happened))


MANY = 3000
_READS: dict[str, Callable[[AsyncQdrantClient], Awaitable[Any]]] = {
    "scroll": lambda client: client.scroll("c", limit=MANY, with_vectors=True),
    "get": lambda client: client.retrieve("c", list(range(MANY)), with_vectors=True),
    "query": lambda client: client.query_points("c", query=[1.0, 1.0], limit=MANY, with_vectors=True),
}


@pytest.mark.parametrize("kind", _READS)
async def test_others_are_served_while_a_long_answer_is_written(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    await client.create_collection("c", vectors_config=models.VectorParams(size=2, distance="Dot"))
    points = [models.PointStruct(id=n, vector=[1.0, float(n)], payload={"n": n}) for n in range(MANY)]
    await client.upsert("c", points, wait=True)
    happened: list[str] = []
    fill = answers._fill_point

    def watched(*arguments: Any) -> None:
        happened.append("point")
        fill(*arguments)

    monkeypatch.setattr(answers, "_fill_point", watched)
    async with _others(happened):
        answer = await _READS[kind](client)
    found = answer.points if kind == "query" else answer[0] if kind == "scroll" else answer
    assert {point.id: point.vector for point in found} == {n: [1.0, float(n)] for n in range(MANY)}
    longest = max(len(list(run)) for what, run in itertools.groupby(happened) if what == "point")
    assert longest < MANY / 2
