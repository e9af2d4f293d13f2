"""The process ends while the engine is flushed, so some files are of later than others: the log makes it good."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index.changes import Change, ChangePoints, DeletePoints, UpdateVectors, Upsert
from winnow_index.schema import Limits
from winnow_index.store import Store
from winnow_index.wire import configs
from winnow_index.wire.definitions import JsonCodec, WireConfiguration

SIZE, POINTS = 4, 300
GONE = [3, 40, 299]


def _changed(make: Callable[[Any], edge.UpdateOperation]) -> Change:
    return ChangePoints(range(POINTS), make)


CHANGES: dict[str, Change] = {
    "set_payload": _changed(lambda ids: edge.UpdateOperation.set_payload(ids, {"n": -1})),
    "overwrite_payload": _changed(lambda ids: edge.UpdateOperation.overwrite_payload(ids, {"n": -1})),
    "delete_payload": _changed(lambda ids: edge.UpdateOperation.delete_payload(ids, ["n"])),
    "clear_payload": _changed(edge.UpdateOperation.clear_payload),
    "delete_vectors": _changed(lambda ids: edge.UpdateOperation.delete_vectors(ids, ["a"])),
    "update_vectors": UpdateVectors(
        points=[edge.PointVectors(n, {"a": [9.0] * SIZE}) for n in range(POINTS)], sizes=[100] * POINTS
    ),
}


async def _store(path: Path) -> Store:
    store = Store.open(path, JsonCodec())
    if not store.has("c"):
        params = pb.VectorParams(size=SIZE, distance=pb.Distance.Dot)
        vectors = pb.VectorsConfig(params_map=pb.VectorParamsMap(map={"a": params, "b": params}))
        request = pb.CreateCollection(collection_name="c", vectors_config=vectors)
        # A long interval: it is flushed when the test says so.
        request.optimizers_config.flush_interval_sec = 3600
        config = configs.from_create(request, limits=Limits(), indexing_threshold=10_000)
        await store.create("c", WireConfiguration(config))
    return store


def _contents(store: Store) -> dict[Any, Any]:
    records, _ = store.get("c").shard.scroll(edge.ScrollRequest(limit=10_000, with_payload=True, with_vector=True))
    return {record.id: (record.payload, record.vector) for record in records}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_to_many_points_survives_though_some_of_them_are_deleted_on_disk_already(
    tmp_path: Path, name: str
) -> None:
    live = tmp_path / "live"
    store = await _store(live)
    points = [edge.Point(n, {"a": [float(n)] * SIZE, "b": [1.0] * SIZE}, {"n": n}) for n in range(POINTS)]
    await store.get("c").write([Upsert(points=points, sizes=[100] * POINTS)], wait=True)
    await store.close()
    shutil.copytree(live, tmp_path / "before")
    store = await _store(live)
    await store.get("c").write([CHANGES[name]], wait=True)
    await store.get("c").write([DeletePoints(GONE)], wait=True)
    expected = _contents(store)
    assert len(expected) == POINTS - len(GONE)
    shutil.copytree(live, tmp_path / "unflushed")
    store.get("c").flush_now()
    # The log, and of what the flush writes the first file alone.
    cut_short = tmp_path / "cut-short"
    shutil.copytree(tmp_path / "before", cut_short)
    for path in (tmp_path / "unflushed").rglob("wal/*"):
        shutil.copy(path, cut_short / path.relative_to(tmp_path / "unflushed"))
    [mappings] = live.rglob("mutable_id_tracker.mappings")
    shutil.copy(mappings, cut_short / mappings.relative_to(live))
    await store.close()
    again = await _store(cut_short)
    assert _contents(again) == expected
    await again.close()
