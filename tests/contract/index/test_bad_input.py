"""Bad input is refused by name before it reaches the engine, and harms nothing that is there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as pb

from tests.contract.index.refusing import Code, P, refused, settings, there

__all__ = ["settings", "there"]


BAD_POINTS: dict[str, tuple[Any, str]] = {
    "a wrong dimension": (P(id=9, vector={"a": [1.0, 2.0]}), "expected dim: 3, got 2"),
    "an unknown vector name": (P(id=9, vector={"b": [1.0, 2.0, 3.0]}), "Not existing vector name error: b"),
    "an unnamed vector": (P(id=9, vector=[1.0, 2.0, 3.0]), "Not existing vector name error"),
    "NaN": (P(id=9, vector={"a": [1.0, math.nan, 3.0]}), "NaN or infinity"),
    "infinity": (P(id=9, vector={"a": [1.0, math.inf, -math.inf]}), "NaN or infinity"),
    "sparse for dense": (P(id=9, vector={"a": models.SparseVector(indices=[1], values=[1.0])}), "is dense"),
    "dense for sparse": (P(id=9, vector={"s": [1.0, 2.0, 3.0]}), "is sparse"),
    "several rows for one": (P(id=9, vector={"a": [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]}), "multi and regular"),
    "a ragged multivector": (P(id=9, vector={"m": [[1.0, 2.0], [1.0]]}), "expected dim: 2, got 1"),
    "NaN in a sparse vector": (P(id=9, vector={"s": models.SparseVector(indices=[1], values=[math.nan])}), "NaN"),
    "a repeated index": (P(id=9, vector={"s": models.SparseVector(indices=[1, 1], values=[1.0, 2.0])}), "unique"),
    "uneven sparse": (
        P(id=9, vector={"s": models.SparseVector(indices=[1, 2], values=[1.0])}),
        "2 indices and 1 values",
    ),
    "a payload too large": (P(id=9, vector={}, payload={"t": "x" * 3000}), "at most 2000"),
    "NaN in a payload": (P(id=9, vector={}, payload={"deep": [{"x": math.nan}]}), "NaN and infinity"),
    "a payload too deep": (P(id=9, vector={}, payload={"a": eval("[" * 40 + "]" * 40)}), "deeper than"),
}


async def test_a_bad_point_is_refused_with_its_batch(there: AsyncQdrantClient, subtests: pytest.Subtests) -> None:
    for case, (point, words) in BAD_POINTS.items():
        with subtests.test(case):
            good = P(id=8, vector={"a": [1.0, 1.0, 1.0]})
            fields = await refused(there.upsert("c", [good, point], wait=True), Code.INVALID_ARGUMENT, words)
            assert fields
            assert fields[0].startswith("points[1]")


async def test_an_id_that_is_no_uuid_is_refused(there: AsyncQdrantClient) -> None:
    for bad in ("abc", "", "123e4567-e89b-12d3-a456-42661417400"):
        fields = await refused(there.upsert("c", [P(id=bad, vector={})]), Code.INVALID_ARGUMENT, "UUID")
        assert fields == ["points[0].id"]


async def test_a_missing_id_is_refused(there: AsyncQdrantClient, stub: Callable[[str], Any]) -> None:
    request = pb.UpsertPoints(collection_name="c", points=[pb.PointStruct()])
    await refused(stub("Points").Upsert(request), Code.INVALID_ARGUMENT, "a point id is missing")


async def test_too_many_at_once_are_refused_with_the_limit(there: AsyncQdrantClient) -> None:
    points = [P(id=n, vector={}) for n in range(100, 151)]
    for call in (
        there.upsert("c", points),
        there.retrieve("c", list(range(51))),
        there.delete("c", models.PointIdsList(points=list(range(100, 151)))),
        there.query_batch_points("c", [models.QueryRequest(query=[1.0, 2.0, 3.0], using="a")] * 51),
    ):
        await refused(call, Code.INVALID_ARGUMENT, "51 items", "at most 50")


async def test_nothing_at_once_is_no_error(there: AsyncQdrantClient) -> None:
    await there.upsert("c", [])
    await there.delete("c", models.PointIdsList(points=[]))
    assert await there.retrieve("c", []) == []
    assert await there.query_batch_points("c", []) == []


async def test_a_selector_of_nothing_deletes_nothing(there: AsyncQdrantClient, stub: Callable[[str], Any]) -> None:
    for points in (pb.PointsSelector(), None):
        request = pb.DeletePoints(collection_name="c", points=points)
        await refused(stub("Points").Delete(request), Code.INVALID_ARGUMENT, "ids or a filter are needed")


BAD_COLLECTIONS: dict[str, tuple[dict[str, Any], grpc.StatusCode, str]] = {
    "an empty name": ({"collection_name": ""}, Code.INVALID_ARGUMENT, "1 to 255 characters"),
    "a long name": ({"collection_name": "x" * 256}, Code.INVALID_ARGUMENT, "1 to 255 characters"),
    "a path": ({"collection_name": "../x"}, Code.INVALID_ARGUMENT, "cannot contain"),
    "a taken name": ({"collection_name": "c"}, Code.ALREADY_EXISTS, "Collection `c` already exists!"),
    "no dimension": (
        {"vectors_config": models.VectorParams.model_construct(size=0, distance=models.Distance.DOT)},
        Code.INVALID_ARGUMENT,
        "a dimension is from 1",
    ),
    "too many dimensions": (
        {"vectors_config": models.VectorParams(size=65_537, distance="Dot")},
        Code.INVALID_ARGUMENT,
        "65536",
    ),
    "several shards": ({"shard_number": 2}, Code.UNIMPLEMENTED, "shard_number"),
    "replicas": ({"replication_factor": 2}, Code.UNIMPLEMENTED, "replication_factor"),
    "shard keys": ({"sharding_method": models.ShardingMethod.CUSTOM}, Code.UNIMPLEMENTED, "sharding_method"),
    "strict mode": ({"strict_mode_config": models.StrictModeConfig(enabled=True)}, Code.UNIMPLEMENTED, "strict_mode"),
    "one name twice": (
        {
            "vectors_config": {"s": models.VectorParams(size=2, distance="Dot")},
            "sparse_vectors_config": {"s": models.SparseVectorParams()},
        },
        Code.INVALID_ARGUMENT,
        "used twice",
    ),
    "a lazy graph": ({"hnsw_config": models.HnswConfigDiff(ef_construct=1)}, Code.INVALID_ARGUMENT, "ef_construct"),
}


async def test_a_bad_collection_is_refused_and_leaves_nothing(
    there: AsyncQdrantClient, settings: Any, subtests: pytest.Subtests
) -> None:
    for case, (given, code, words) in BAD_COLLECTIONS.items():
        with subtests.test(case):
            config = {"collection_name": "new", "vectors_config": models.VectorParams(size=2, distance="Dot"), **given}
            await refused(there.create_collection(**config), code, words)
            assert [c.name for c in (await there.get_collections()).collections] == ["c"]
            assert len(list((settings.data_dir / "collections").iterdir())) == 1


async def test_an_unknown_collection_is_not_found_by_any_call(there: AsyncQdrantClient) -> None:
    for call in (
        there.get_collection("nope"),
        there.count("nope"),
        there.scroll("nope"),
        there.retrieve("nope", [1]),
        there.upsert("nope", [P(id=1, vector={})]),
        there.query_points("nope", query=[1.0]),
        there.facet("nope", "a"),
        there.create_payload_index("nope", "a", models.PayloadSchemaType.KEYWORD),
        there.get_collection_aliases("nope"),
    ):
        await refused(call, Code.NOT_FOUND, "Collection `nope` doesn't exist!")
    assert await there.delete_collection("nope") is False
    assert await there.collection_exists("nope") is False


async def test_indexes_of_no_type_or_two_are_refused(there: AsyncQdrantClient, stub: Callable[[str], Any]) -> None:
    index = pb.CreateFieldIndexCollection
    text = pb.PayloadIndexParams(text_index_params=pb.TextIndexParams(tokenizer=pb.TokenizerType.Word))
    cases = [
        (index(collection_name="c", field_name="a"), "field_type is missing"),
        (index(collection_name="c", field_name="a[", field_type=pb.FieldType.FieldTypeKeyword), "path into a payload"),
        (
            index(
                collection_name="c", field_name="a", field_type=pb.FieldType.FieldTypeKeyword, field_index_params=text
            ),
            "field_index_params say text",
        ),
    ]
    for request, words in cases:
        await refused(stub("Points").CreateFieldIndex(request), Code.INVALID_ARGUMENT, words)
    assert (await there.get_collection("c")).payload_schema == {}


async def test_facets_need_an_index(there: AsyncQdrantClient) -> None:
    await refused(there.facet("c", "n"), Code.INVALID_ARGUMENT, "No appropriate index for faceting: `n`")


async def test_methods_that_are_not_offered_are_named(there: AsyncQdrantClient, stub: Callable[[str], Any]) -> None:
    points, collections = stub("Points"), stub("Collections")
    await refused(
        points.SearchMatrixPairs(pb.SearchMatrixPoints(collection_name="c")),
        Code.UNIMPLEMENTED,
        "Points/SearchMatrixPairs",
    )
    await refused(
        collections.CreateShardKey(pb.CreateShardKeyRequest(collection_name="c")),
        Code.UNIMPLEMENTED,
        "Collections/CreateShardKey",
    )


async def test_fields_of_a_newer_protocol_are_refused(there: AsyncQdrantClient, stub: Callable[[str], Any]) -> None:
    # Field 100, a varint, at the top and inside a filter.
    unknown = b"\xa0\x06\x01"
    request = pb.CountPoints.FromString(pb.CountPoints(collection_name="c").SerializeToString() + unknown)
    await refused(stub("Points").Count(request), Code.UNIMPLEMENTED, "fields that this index does not know")
    deep = pb.CountPoints(collection_name="c")
    deep.filter.MergeFrom(pb.Filter.FromString(unknown))
    await refused(stub("Points").Count(deep), Code.UNIMPLEMENTED, "fields that this index does not know")


async def test_bad_input_leaves_nothing_behind_for_a_restart(
    index_process: Callable[..., Any],
) -> None:
    """The engine keeps what it rejects in its log and would bring a part of it back: nothing bad may reach it."""
    index = index_process()
    client = index.client()
    config = {"a": models.VectorParams(size=3, distance="Cosine")}
    await client.create_collection("c", vectors_config=config, sparse_vectors_config={"s": models.SparseVectorParams()})
    await client.upsert("c", [P(id=1, vector={"a": [1, 2, 3]})], wait=True)
    for case in ("a wrong dimension", "an unknown vector name", "NaN", "uneven sparse", "dense for sparse"):
        with pytest.raises(grpc.aio.AioRpcError):
            await client.upsert("c", [P(id=5, vector={"a": [1, 2, 3]}), BAD_POINTS[case][0]], wait=True)
    for _ in range(2):
        index.kill()
        index.start()
        await client.close()
        client = index.client()
        assert [r.id for r in (await client.scroll("c"))[0]] == [1]
    await client.close()
