"""One caller's long read does not stop the others: between its pieces, whoever waits is served."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, models

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
