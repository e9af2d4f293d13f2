"""What the tests of bad input share: a small index with three points, and how a refusal is asserted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from qdrant_client import AsyncQdrantClient, models

from winnow_index.settings import IndexSettings

P = models.PointStruct
Code = grpc.StatusCode


@pytest.fixture
def settings(tmp_path: Any) -> IndexSettings:
    return IndexSettings(
        port=0, data_dir=tmp_path / "data", probe_seconds=600, max_batch=50, max_limit=100, max_payload_bytes=2000
    )


@pytest.fixture
async def there(client: AsyncQdrantClient) -> AsyncIterator[AsyncQdrantClient]:
    """A collection with three points; after the test they must be there, and must still be there after a restart."""
    await client.create_collection(
        "c",
        vectors_config={
            "a": models.VectorParams(size=3, distance="Cosine"),
            "m": models.VectorParams(
                size=2,
                distance="Dot",
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            ),
        },
        sparse_vectors_config={"s": models.SparseVectorParams()},
    )
    await client.upsert("c", [P(id=n, vector={"a": [1, 2, n]}, payload={"n": n}) for n in range(3)], wait=True)
    yield client
    assert (await client.count("c")).count == 3
    assert [r.payload for r in (await client.scroll("c"))[0]] == [{"n": n} for n in range(3)]


async def refused(call: Any, code: grpc.StatusCode, *says: str) -> list[str]:
    """Asserts a status and words of its message; the fields that its details name."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code
    for words in says:
        assert words in str(caught.value.details())
    status = rpc_status.from_call(_Call(caught.value))
    assert status is not None
    info, fields = error_details_pb2.ErrorInfo(), []
    for detail in status.details:
        if detail.Unpack(info):
            assert info.domain == "winnow.dev"
            assert info.reason
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            fields += [violation.field for violation in bad.field_violations]
    return fields


class _Call:
    """What grpc_status reads of a call."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    def trailing_metadata(self) -> Any:
        return [(key, value) for key, value in self._error.trailing_metadata()]

    def code(self) -> grpc.StatusCode:
        return self._error.code()

    def details(self) -> str | None:
        return self._error.details()
