"""A disk without room: writes are refused before they begin, reads go on, and nothing that was there is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import qdrant_edge as edge
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as pb

from winnow_index.optimizing import BuildOutcome, Optimizer, OptimizerOptions
from winnow_index.schema import Limits
from winnow_index.snapshots import Snapshots
from winnow_index.store import Store
from winnow_index.wire import configs
from winnow_index.wire.definitions import JsonCodec, WireConfiguration
from winnow_rpc.faults import FailedPrecondition, Unavailable

SIZE = 4
MORE_THAN_ANY_DISK = 1 << 60
NO_RESERVE = ("--disk-reserve-bytes", "0")
NO_ROOM = ("--disk-reserve-bytes", str(MORE_THAN_ANY_DISK))

Start = Callable[..., Any]


def _points(ids: range) -> list[models.PointStruct]:
    return [models.PointStruct(id=n, vector=[float(n)] * SIZE, payload={"n": n}) for n in ids]


async def _refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "disk of the index is full" in str(caught.value.details())
    return str(caught.value.details())


async def test_without_room_on_the_disk_writes_are_refused_and_reads_go_on(
    index_process: Start, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    index = index_process(*NO_RESERVE)
    client = index.client()
    for name in ("c", "d"):
        await client.create_collection(name, vectors_config=models.VectorParams(size=SIZE, distance="Dot"))
        await client.upsert(name, _points(range(20)), wait=True)
    await client.close()
    assert index.stop() == 0
    index = index_process(*NO_ROOM)
    client = index.client()
    writes: dict[str, Callable[[AsyncQdrantClient], Any]] = {
        "upsert": lambda c: c.upsert("c", _points(range(20, 22)), wait=True),
        "delete": lambda c: c.delete("c", points_selector=[1, 2], wait=True),
        "payload": lambda c: c.set_payload("c", {"n": 0}, points=[1], wait=True),
        "index": lambda c: c.create_payload_index("c", "n", "integer", wait=True),
        "create": lambda c: c.create_collection("e", vectors_config=models.VectorParams(size=SIZE, distance="Dot")),
    }
    for kind, write in writes.items():
        with subtests.test(kind):
            await _refused(write(client))
    assert (await client.count("c")).count == 20
    assert len((await client.query_points("c", query=[1.0] * SIZE, limit=5)).points) == 5
    # What makes room is not refused.
    assert await client.delete_collection("d")
    await client.close()
    index.kill()
    index = index_process(*NO_RESERVE)
    client = index.client()
    assert [each.name for each in (await client.get_collections()).collections] == ["c"]
    records, _ = await client.scroll("c", limit=100)
    assert {record.id: record.payload for record in records} == {n: {"n": n} for n in range(20)}
    assert (await client.get_collection("c")).payload_schema == {}
    await client.upsert("c", _points(range(20, 22)), wait=True)
    assert (await client.count("c")).count == 22
    await client.close()


async def _store(path: Path, *, reserve_bytes: int) -> Store:
    store = Store.open(path, JsonCodec(), reserve_bytes=reserve_bytes)
    if not store.names():
        vectors = pb.VectorsConfig(params=pb.VectorParams(size=SIZE, distance=pb.Distance.Dot))
        request = pb.CreateCollection(collection_name="c", vectors_config=vectors)
        config = configs.from_create(request, limits=Limits(), indexing_threshold=1)
        await store.create("c", WireConfiguration(config))
        with_points = store.get("c").shard
        points = [edge.Point(n, {"": [float(n)] * SIZE}, {}) for n in range(200)]
        with_points.update(edge.UpdateOperation.upsert_points(points))
    return store


async def test_without_room_for_its_copy_no_graph_is_built_and_the_build_is_tried_again(tmp_path: Path) -> None:
    await (await _store(tmp_path, reserve_bytes=0)).close()
    store = await _store(tmp_path, reserve_bytes=MORE_THAN_ANY_DISK)
    optimizer = Optimizer(store, OptimizerOptions(interval=0.01, retry_seconds=0.01))
    outcomes: list[BuildOutcome] = []
    twice = asyncio.Event()

    def on_build(outcome: BuildOutcome, seconds: float) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 2:
            twice.set()

    optimizer.on_build = on_build
    optimizer.start()
    async with asyncio.timeout(60):
        await twice.wait()
    await optimizer.stop()
    assert set(outcomes) == {"abandoned"}
    collection = store.get("c")
    assert "disk of the index is full" in str(collection.build_error)
    assert [path.name for path in collection.directory.path.glob("generation-*")] == [collection.generation.name]
    await store.close()


async def test_without_room_for_it_no_snapshot_is_begun(tmp_path: Path) -> None:
    store = await _store(tmp_path / "data", reserve_bytes=0)
    folder = tmp_path / "snapshots"
    with pytest.raises(Unavailable, match="disk of the index is full") as caught:
        await Snapshots(store, folder, reserve_bytes=MORE_THAN_ANY_DISK).create()
    assert caught.value.reason == "DISK_FULL"
    assert list(folder.iterdir()) == []
    await store.close()


async def test_a_collection_that_a_full_disk_kept_from_opening_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await _store(tmp_path, reserve_bytes=0)).close()

    def no_block_left(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "touch", no_block_left)
        store = await _store(tmp_path, reserve_bytes=MORE_THAN_ANY_DISK)
    with pytest.raises(FailedPrecondition, match="the disk is full") as caught:
        store.get("c")
    assert caught.value.reason == "DISK_FULL"
    await store.close()
    store = await _store(tmp_path, reserve_bytes=0)
    assert store.get("c").info().points_count == 200
    await store.close()
