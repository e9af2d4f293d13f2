"""After the same writes, the same points are there, here as in the client's own local mode."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

Field = models.FieldCondition
SIZE = 6
IDS: list[int | str] = [*range(30), *(str(uuid.UUID(int=n)) for n in range(30)), 2**63 - 1]


def _vectors(random: np.random.Generator) -> dict[str, Any]:
    vectors: dict[str, Any] = {}
    if random.random() < 0.9:
        vectors["dense"] = [float(np.float32(v)) for v in random.normal(size=SIZE)]
    if random.random() < 0.7:
        indices = sorted(int(n) for n in random.choice(20, 3, replace=False))
        vectors["sparse"] = models.SparseVector(indices=indices, values=[0.5, 1.0, 2.0])
    return vectors


def _payload(random: np.random.Generator) -> dict[str, Any]:
    payload: dict[str, Any] = {"group": int(random.integers(0, 6)), "deep": {"a": int(random.integers(9)), "b": None}}
    if random.random() < 0.5:
        payload["list"] = [{"x": n, "y": "é"} for n in range(int(random.integers(0, 3)))]
    return payload


def _ids(random: np.random.Generator, most: int = 8) -> list[int | str]:
    return [IDS[int(n)] for n in random.choice(len(IDS), int(random.integers(1, most)), replace=False)]


def _points(random: np.random.Generator) -> list[models.PointStruct]:
    return [models.PointStruct(id=i, vector=_vectors(random), payload=_payload(random)) for i in _ids(random, 12)]


def _group(random: np.random.Generator) -> models.Filter:
    return models.Filter(must=[Field(key="group", match=models.MatchValue(value=int(random.integers(0, 6))))])


@pytest.fixture
async def empty(pair: Any) -> Any:
    await pair.create(
        vectors_config={"dense": models.VectorParams(size=SIZE, distance="Cosine")},
        sparse_vectors_config={"sparse": models.SparseVectorParams()},
    )
    return pair


class _Random:
    """Writes of every kind in a seeded order."""

    def __init__(self, pair: Any, seed: int) -> None:
        self.pair = pair
        self.random = np.random.default_rng(seed)

    async def there(self, most: int = 6) -> list[Any]:
        """Ids of points that are there: naming others is a NotFound after the rest, tested by itself."""
        records = (await self.pair.remote_only("scroll", limit=1000, with_payload=False))[0]
        chosen = [records[int(n)].id for n in self.random.integers(0, len(records), most)] if records else []
        return list(dict.fromkeys(chosen))

    async def upsert(self) -> None:
        await self.pair.call("upsert", points=_points(self.random))

    async def insert_only(self) -> None:
        await self.pair.call("upsert", points=_points(self.random), update_mode=models.UpdateMode.INSERT_ONLY)

    async def update_only(self) -> None:
        await self.pair.call("upsert", points=_points(self.random), update_mode=models.UpdateMode.UPDATE_ONLY)

    async def conditional(self) -> None:
        await self.pair.call("upsert", points=_points(self.random), update_filter=_group(self.random))

    async def delete_ids(self) -> None:
        await self.pair.call("delete", points_selector=models.PointIdsList(points=_ids(self.random, 4)))

    async def delete_by_filter(self) -> None:
        if self.random.random() < 0.4:
            await self.pair.call("delete", points_selector=models.FilterSelector(filter=_group(self.random)))

    async def set_payload(self) -> None:
        if ids := await self.there():
            await self.pair.call("set_payload", payload={"set": {"n": 1.5}, "group": 3}, points=ids)

    async def set_payload_at_a_path(self) -> None:
        if ids := await self.there():
            key = ("deep", "deep.inner", "list[].z", "list[0]")[int(self.random.integers(4))]
            await self.pair.call("set_payload", payload={"v": [1, None, True]}, key=key, points=ids)

    async def set_payload_by_filter(self) -> None:
        chosen = models.FilterSelector(filter=_group(self.random))
        await self.pair.call("set_payload", payload={"by": "filter"}, points=chosen)

    async def overwrite_payload(self) -> None:
        if ids := await self.there():
            await self.pair.call("overwrite_payload", payload={"group": 1, "only": True}, points=ids)

    async def delete_payload(self) -> None:
        if ids := await self.there():
            await self.pair.call("delete_payload", keys=["deep.a", "list", "nothing"], points=ids)

    async def clear_payload(self) -> None:
        if ids := await self.there(2):
            await self.pair.call("clear_payload", points_selector=models.PointIdsList(points=ids))

    async def update_vectors(self) -> None:
        if ids := await self.there():
            vector = {"dense": [float(np.float32(v)) for v in self.random.normal(size=SIZE)]}
            await self.pair.call("update_vectors", points=[models.PointVectors(id=i, vector=vector) for i in ids])

    async def delete_vectors(self) -> None:
        if ids := await self.there(3):
            await self.pair.call("delete_vectors", vectors=["sparse"], points=ids)

    async def batch(self) -> None:
        if ids := await self.there():
            await self.pair.call(
                "batch_update_points",
                update_operations=[
                    models.UpsertOperation(upsert=models.PointsList(points=_points(self.random))),
                    models.SetPayloadOperation(set_payload=models.SetPayload(payload={"batch": 1}, points=ids)),
                    models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["deep"], points=ids)),
                    models.DeleteOperation(delete=models.PointIdsList(points=ids[:1])),
                ],
            )


STEPS = [name for name in vars(_Random) if not name.startswith("_") and name != "there"]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_writes_leave_the_same_points(empty: Any, seed: int) -> None:
    random = _Random(empty, seed)
    await random.upsert()
    order = np.random.default_rng(seed + 100)
    steps = [STEPS[int(n)] for n in order.permutation(len(STEPS) * 3) % len(STEPS)]
    for step in steps:
        await getattr(random, step)()
        await empty.same_contents()
    ours, theirs = await empty.call("count")
    assert ours.count == theirs.count > 0


async def test_of_two_points_with_one_id_the_last_wins(empty: Any) -> None:
    points = [models.PointStruct(id=1, vector={}, payload={"n": n}) for n in range(3)]
    await empty.call("upsert", points=points)
    ours, theirs = await empty.contents()
    assert [r.payload for r in ours] == [{"n": 2}] == [r.payload for r in theirs]


async def test_payloads_come_back_as_they_went_in(empty: Any) -> None:
    payload = {
        "int": 2**63 - 1,
        "negative": -(2**63),
        "real": 0.1,
        "whole real": 3.0,
        "text": 'tschüß "日本" \\ \n\t\u0001 😀',
        "empty": {"list": [], "object": {}, "text": ""},
        "mixed": [1, 1.5, "x", True, False, None, [1, [2]], {"k": None}],
        'a key with spaces, "quotes" and dots.': {"": 1},
    }
    await empty.call("upsert", points=[models.PointStruct(id=1, vector={}, payload=payload)])
    ours, _ = await empty.contents()
    assert ours[0].payload == payload
    assert type(ours[0].payload["whole real"]) is float


async def test_a_point_that_is_not_there_is_named_after_the_others_were_changed(empty: Any) -> None:
    await empty.call("upsert", points=[models.PointStruct(id=1, vector={}, payload={})])
    error = await empty.both_refuse("set_payload", payload={"a": 1}, points=[1, 77], wait=True)
    assert "77" in str(error)
    await empty.same_contents()
    assert (await empty.remote_only("retrieve", ids=[1]))[0].payload == {"a": 1}


@pytest.mark.parametrize("distance", ["Cosine", "Dot", "Euclid", "Manhattan"])
async def test_the_default_vector_comes_back_unnamed(pair: Any, distance: str) -> None:
    await pair.create(vectors_config=models.VectorParams(size=3, distance=distance))
    points = [models.PointStruct(id=n, vector=[1.0, n + 1.0, -2.0], payload={"n": n}) for n in range(5)]
    await pair.call("upsert", points=points)
    await pair.same_contents()


async def test_multivectors_come_back_row_by_row(pair: Any) -> None:
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    await pair.create(vectors_config={"m": models.VectorParams(size=2, distance="Dot", multivector_config=comparator)})
    await pair.call("upsert", points=[models.PointStruct(id=1, vector={"m": [[1.0, 2.0], [3.0, 4.0]]})])
    await pair.same_contents()
