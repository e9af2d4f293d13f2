"""An alias is a name to read and write by: it deletes nothing, and one that leads nowhere harms no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from qdrant_client import AsyncQdrantClient, models

VECTORS = models.VectorParams(size=2, distance="Dot")


def _alias(alias: str, collection: str) -> models.CreateAliasOperation:
    return models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=collection, alias_name=alias),
    )


async def _aliases(client: AsyncQdrantClient) -> dict[str, str]:
    return {each.alias_name: each.collection_name for each in (await client.get_aliases()).aliases}


async def test_deleting_an_alias_as_a_collection_deletes_nothing_as_in_qdrant(client: AsyncQdrantClient) -> None:
    await client.create_collection("c", vectors_config=VECTORS)
    await client.upsert("c", [models.PointStruct(id=1, vector=[1.0, 2.0])], wait=True)
    await client.update_collection_aliases([_alias("live", "c")])
    assert await client.delete_collection("live") is False
    assert (await client.count("live")).count == 1
    assert await _aliases(client) == {"live": "c"}
    assert await client.delete_collection("c") is True
    assert await _aliases(client) == {}


async def test_an_alias_of_a_collection_that_lost_its_definition_does_not_hold_up_those_of_others(
    index_process: Callable[..., Any], tmp_path: Path
) -> None:
    index = index_process()
    client = index.client()
    await client.create_collection("lost", vectors_config=VECTORS)
    [definition] = index.data.glob("collections/*/config.json")
    for name in ("old", "new"):
        await client.create_collection(name, vectors_config=VECTORS)
    await client.update_collection_aliases([_alias("nowhere", "lost"), _alias("live", "old")])
    await client.close()
    assert index.stop() == 0
    definition.write_text("{")
    index.start()
    client = index.client()
    await client.update_collection_aliases([_alias("live", "new")])
    assert await _aliases(client) == {"nowhere": "lost", "live": "new"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.update_collection_aliases([_alias("other", "lost")])
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await client.close()
