"""What fuzzing found: refused by name, where the engine used to refuse it too late or clients could not read it."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as pb


async def refused_as_invalid(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value


async def test_what_the_engine_would_refuse_with_the_write_already_in_its_log_is_refused_before(
    client: AsyncQdrantClient, stub: Callable[[str], Any]
) -> None:
    await client.create_collection("c", vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    for field, nested in (("x", "docs"), ("docs.x", "docs[]"), ("a[].b[].x", "a[].b"), ("docs[0][].x", "docs[0]")):
        params = pb.PayloadIndexParams(keyword_index_params=pb.KeywordIndexParams(nested=nested))
        request = pb.CreateFieldIndexCollection(collection_name="c", field_name=field, field_index_params=params)
        await refused_as_invalid(stub("Points").CreateFieldIndex(request))
    params = pb.PayloadIndexParams(keyword_index_params=pb.KeywordIndexParams(nested="docs"))
    await stub("Points").CreateFieldIndex(
        pb.CreateFieldIndexCollection(collection_name="c", field_name="docs[].x", field_index_params=params, wait=True)
    )


async def test_a_choice_that_clients_could_not_read_is_not_taken_into_a_configuration(
    client: AsyncQdrantClient, stub: Callable[[str], Any]
) -> None:
    await client.create_collection("c", vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    for change in (
        {"hnsw_config": pb.HnswConfigDiff(memory=pb.Memory.MemoryUnknown)},
        {"hnsw_config": pb.HnswConfigDiff(memory=9)},  # type: ignore[arg-type]
        {"quantization_config": pb.QuantizationConfigDiff(scalar=pb.ScalarQuantization())},
        {"quantization_config": pb.QuantizationConfigDiff(product=pb.ProductQuantization(compression=9))},  # type: ignore[arg-type]
    ):
        request = pb.UpdateCollection(collection_name="c", **change)  # type: ignore[arg-type]
        await refused_as_invalid(stub("Collections").Update(request))
    assert (await client.get_collection("c")).points_count == 0


async def test_a_query_for_what_its_vector_does_not_have_is_invalid(
    client: AsyncQdrantClient, stub: Callable[[str], Any]
) -> None:
    await client.create_collection("c", vectors_config={"v": models.VectorParams(size=4, distance=models.Distance.DOT)})
    empty = pb.Query(context=pb.ContextInput())
    await refused_as_invalid(stub("Points").Query(pb.QueryPoints(collection_name="c", query=empty)))
    await refused_as_invalid(
        stub("Points").Search(
            pb.SearchPoints(
                collection_name="c", vector=[1] * 4, vector_name="v", limit=1, params=pb.SearchParams(idf={})
            )
        )
    )
