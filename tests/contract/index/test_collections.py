"""Collections are made as asked, changed, listed, aliased and deleted; what they were made with is told again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as pb

SIZE = 16
Params = models.VectorParams


def _dense(**given: Any) -> models.VectorParams:
    return Params(size=SIZE, distance=models.Distance.COSINE, **given)


CONFIGS: dict[str, dict[str, Any]] = {
    "scalar quantization": {
        "vectors_config": _dense(),
        "quantization_config": models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.5)
        ),
    },
    "product quantization": {
        "vectors_config": _dense(),
        "quantization_config": models.ProductQuantization(
            product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X4)
        ),
    },
    "binary quantization of one vector": {
        "vectors_config": {
            "a": _dense(
                quantization_config=models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
            )
        }
    },
    "half precision": {"vectors_config": _dense(datatype=models.Datatype.FLOAT16)},
    "a graph of its own": {"vectors_config": {"a": _dense(hnsw_config=models.HnswConfigDiff(m=4, ef_construct=20))}},
    "on disk": {"vectors_config": _dense(on_disk=True), "on_disk_payload": False},
    "sparse alone": {"vectors_config": {}, "sparse_vectors_config": {"s": models.SparseVectorParams()}},
    "a sparse index on disk": {
        "vectors_config": _dense(),
        "sparse_vectors_config": {
            "s": models.SparseVectorParams(
                modifier=models.Modifier.IDF, index=models.SparseIndexParams(full_scan_threshold=100, on_disk=True)
            )
        },
    },
}


async def test_configurations_are_taken_and_told_again(client: AsyncQdrantClient, subtests: pytest.Subtests) -> None:
    for number, (case, config) in enumerate(CONFIGS.items()):
        with subtests.test(case):
            name = f"c{number}"
            await client.create_collection(name, **config)
            told = (await client.get_collection(name)).config
            if config["vectors_config"]:
                assert told.params.vectors == config["vectors_config"]
            assert told.params.sparse_vectors == config.get("sparse_vectors_config")
            assert told.quantization_config == config.get("quantization_config")
            assert told.params.on_disk_payload == config.get("on_disk_payload", True)
            vector: Any = {"s": models.SparseVector(indices=[1], values=[1.0])}
            using: str | None = "s"
            if config["vectors_config"]:
                using = "a" if isinstance(config["vectors_config"], dict) else None
                vector = {using: [1.0] * SIZE} if using else [1.0] * SIZE
            await client.upsert(name, [models.PointStruct(id=n, vector=vector) for n in range(3)], wait=True)
            query = vector[using] if using else vector
            assert len((await client.query_points(name, query=query, using=using, limit=2)).points) == 2


async def test_an_update_changes_settings_and_merges_metadata(client: AsyncQdrantClient) -> None:
    await client.create_collection("c", vectors_config=_dense(), metadata={"kept": 1, "gone": 2})
    await client.update_collection(
        "c",
        hnsw_config=models.HnswConfigDiff(m=32),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=5),
        metadata={"gone": None, "new": [1]},
    )
    config = (await client.get_collection("c")).config
    assert (config.hnsw_config.m, config.hnsw_config.ef_construct) == (32, 100)
    assert config.optimizer_config.indexing_threshold == 5
    assert config.metadata == {"kept": 1, "new": [1]}


async def test_aliases_move_at_once_or_not_at_all(client: AsyncQdrantClient) -> None:
    def create(collection: str, alias: str) -> models.CreateAliasOperation:
        return models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
        )

    for name in ("old", "new"):
        await client.create_collection(name, vectors_config=_dense())
    await client.upsert("new", [models.PointStruct(id=1, vector=[1.0] * SIZE)], wait=True)
    await client.update_collection_aliases([create("old", "live")])
    assert (await client.count("live")).count == 0
    with pytest.raises(grpc.aio.AioRpcError, match="nowhere"):
        await client.update_collection_aliases([create("new", "live"), create("nowhere", "other")])
    assert (await client.count("live")).count == 0
    await client.update_collection_aliases([create("new", "live")])
    assert (await client.count("live")).count == 1
    rename = models.RenameAlias(old_alias_name="live", new_alias_name="main")
    await client.update_collection_aliases([models.RenameAliasOperation(rename_alias=rename)])
    assert [(a.alias_name, a.collection_name) for a in (await client.get_aliases()).aliases] == [("main", "new")]
    assert [a.alias_name for a in (await client.get_collection_aliases("new")).aliases] == ["main"]
    with pytest.raises(grpc.aio.AioRpcError, match="already exists"):
        await client.update_collection_aliases([create("new", "old")])
    with pytest.raises(grpc.aio.AioRpcError, match="Alias with the same name"):
        await client.create_collection("main", vectors_config=_dense())
    await client.delete_collection("new")
    assert (await client.get_aliases()).aliases == []


async def test_a_deleted_collection_is_gone_from_the_disk_and_can_be_made_again(
    client: AsyncQdrantClient, settings: Any
) -> None:
    await client.create_collection("c", vectors_config=_dense())
    await client.upsert("c", [models.PointStruct(id=1, vector=[1.0] * SIZE)], wait=True)
    assert await client.delete_collection("c") is True
    assert list((settings.data_dir / "collections").iterdir()) == []
    await client.create_collection("c", vectors_config=_dense())
    assert (await client.count("c")).count == 0


async def test_payload_indexes_of_every_type_are_told_again(client: AsyncQdrantClient) -> None:
    await client.create_collection("c", vectors_config=_dense())
    schemas: dict[str, Any] = {kind.value: kind for kind in models.PayloadSchemaType}
    schemas["words"] = models.TextIndexParams(
        type=models.TextIndexType.TEXT,
        tokenizer=models.TokenizerType.WORD,
        lowercase=True,
        stopwords=models.StopwordsSet(languages=[models.Language.ENGLISH], custom=["foo"]),
        stemmer=models.SnowballParams(type=models.Snowball.SNOWBALL, language=models.SnowballLanguage.ENGLISH),
    )
    schemas["tenant"] = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    for field, schema in schemas.items():
        await client.create_payload_index("c", field, schema, wait=True)
    told = (await client.get_collection("c")).payload_schema
    assert {field: info.params for field, info in told.items() if info.params} == {
        field: schemas[field] for field in ("words", "tenant")
    }
    assert {field: info.data_type for field, info in told.items() if not info.params} == {
        kind.value: kind for kind in models.PayloadSchemaType
    }
    await client.delete_payload_index("c", "words", wait=True)
    assert "words" not in (await client.get_collection("c")).payload_schema


async def test_texts_become_bm25_vectors_and_texts_find_them(client: AsyncQdrantClient) -> None:
    sparse = {"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)}
    await client.create_collection("c", vectors_config={}, sparse_vectors_config=sparse)
    texts = ["the quick brown fox", "a slow red fox jumps", "nothing of the kind", "foxes and hounds and foxes"]
    points = [
        models.PointStruct(id=n, vector={"bm25": models.Document(text=text, model="qdrant/bm25")})
        for n, text in enumerate(texts)
    ]
    await client.upsert("c", points, wait=True)
    found = await client.query_points("c", query=models.Document(text="FOX", model="Qdrant/bm25"), using="bm25")
    assert {p.id for p in found.points} == {0, 1, 3}
    assert found.points[0].id == 3


async def test_texts_are_ranked_by_a_text_index_with_scoring(client: AsyncQdrantClient) -> None:
    await client.create_collection("c", vectors_config=_dense())
    index = models.TextIndexParams(
        type=models.TextIndexType.TEXT,
        lowercase=True,
        scoring=models.TextScoringParams(type=models.TextScoringType.BM25),
    )
    await client.create_payload_index("c", "text", index, wait=True)
    texts = ["the quick brown fox", "a fox and a fox", "nothing"]
    points = [models.PointStruct(id=n, vector=[1.0] * SIZE, payload={"text": t}) for n, t in enumerate(texts)]
    await client.upsert("c", points, wait=True)
    found = await client.query_points(
        "c", query=models.TextQuery(text=models.TextQueryInput(query="fox")), using="text"
    )
    assert [p.id for p in found.points] == [1, 0]


async def test_the_index_says_who_it_is(stub: Callable[[str], Any]) -> None:
    reply = await stub("Qdrant").HealthCheck(pb.HealthCheckRequest())
    assert reply.title.startswith("winnow-index")
    assert reply.version
