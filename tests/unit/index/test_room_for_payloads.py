"""A payload is held once for many points, and written for each: room is asked for accordingly."""

from __future__ import annotations

from pathlib import Path

import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index.changes import ChangePoints, Operation
from winnow_index.schema import Limits
from winnow_index.wire import configs

COUNT, SIZE = 40, 4


def operations(folder: Path, size: int) -> list[Operation]:
    vectors = pb.VectorsConfig(params=pb.VectorParams(size=SIZE, distance=pb.Distance.Dot))
    request = pb.CreateCollection(collection_name="c", vectors_config=vectors)
    config = configs.from_create(request, limits=Limits(), indexing_threshold=1)
    shard = edge.EdgeShard.create(str(folder), configs.to_engine(config, graph_revision=0))
    points = [edge.Point(n, {"": [float(n)] * SIZE}, {}) for n in range(COUNT)]
    shard.update(edge.UpdateOperation.upsert_points(points))
    change = ChangePoints(range(COUNT), lambda _: edge.UpdateOperation.set_payload([1], {"n": 0}), size)
    made = list(change.operations(shard, []))
    shard.close()
    return made


def test_room_is_asked_for_every_point_and_the_journal_holds_the_payload_once(tmp_path: Path) -> None:
    size = 100_000
    made = operations(tmp_path, size)
    assert len(made) == 2
    assert sum(each.on_disk for each in made) >= COUNT * size
    assert sum(each.size for each in made) < 3 * size
