"""An index on a payload is of the type that the definition says, also where the end came between the two."""

from __future__ import annotations

from pathlib import Path

import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index.changes import Upsert
from winnow_index.collection import Collection
from winnow_index.schema import Limits
from winnow_index.store import Store
from winnow_index.wire import configs, indexes
from winnow_index.wire.definitions import JsonCodec, WireConfiguration


def _order(collection: Collection) -> list[object]:
    request = edge.ScrollRequest(limit=10, order_by=edge.OrderBy("n", edge.Direction.Desc, None))
    return [record.id for record in collection.shard.scroll(request)[0]]


def _redefine(data: Path) -> None:
    [path] = data.glob("collections/*/config.json")
    path.write_text(path.read_text().replace('"keyword"', '"integer"'))


async def test_an_index_whose_type_was_being_changed_has_the_new_one_after_a_restart(tmp_path: Path) -> None:
    store = Store.open(tmp_path, JsonCodec())
    vectors = pb.VectorsConfig(params=pb.VectorParams(size=2, distance=pb.Distance.Dot))
    config = configs.from_create(
        pb.CreateCollection(collection_name="c", vectors_config=vectors), limits=Limits(), indexing_threshold=10_000
    )
    await store.create("c", WireConfiguration(config))
    collection = store.get("c")
    points = [edge.Point(n, {"": [1.0, float(n)]}, {"n": n}) for n in range(3)]
    await collection.write([Upsert(points=points, sizes=[100] * 3)], wait=True)
    await collection.create_index("n", indexes.IndexRequest("keyword", None), wait=True)
    await store.close()
    # The definition is written first; here the process ended before the engine made the index.
    _redefine(tmp_path)
    store = Store.open(tmp_path, JsonCodec())
    assert store.get("c").info().payload_schema["n"].data_type == edge.PayloadSchemaType.Integer
    assert _order(store.get("c")) == [2, 1, 0]
    await store.close()
