"""Points that a query is made of are none of its results where they are of its own collection."""

from __future__ import annotations

import pytest
from qdrant_client import AsyncQdrantClient, models


# An alias counts as another collection, as in Qdrant.
@pytest.mark.parametrize(("named", "expected"), [("c", [3, 2, 1, 0]), ("live", [4, 3, 2, 1, 0])])
async def test_a_point_looked_up_in_the_collection_itself_is_no_result(
    client: AsyncQdrantClient, named: str, expected: list[int]
) -> None:
    await client.create_collection("c", vectors_config={"a": models.VectorParams(size=2, distance="Dot")})
    points = [models.PointStruct(id=n, vector={"a": [1.0, float(n)]}) for n in range(5)]
    await client.upsert("c", points, wait=True)
    alias = models.CreateAlias(collection_name="c", alias_name="live")
    await client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    where = models.LookupLocation(collection=named, vector="a")
    found = await client.query_points("c", query=4, using="a", lookup_from=where, limit=10)
    assert [point.id for point in found.points] == expected
