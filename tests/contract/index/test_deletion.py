"""A collection is there or not: no deletion, and no creation, leaves half of one behind."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index import durable_files
from winnow_index.changes import Upsert
from winnow_index.collection import Collection
from winnow_index.definition import Configuration
from winnow_index.optimizing import Optimizer, OptimizerOptions
from winnow_index.schema import Limits
from winnow_index.store import Store
from winnow_index.wire import configs
from winnow_index.wire.definitions import JsonCodec, WireConfiguration
from winnow_rpc.faults import AlreadyExists, DataLoss, NotFound, Unavailable

SIZE = 4


def _configuration() -> Configuration:
    vectors = pb.VectorsConfig(params=pb.VectorParams(size=SIZE, distance=pb.Distance.Dot))
    request = pb.CreateCollection(collection_name="c", vectors_config=vectors)
    return WireConfiguration(configs.from_create(request, limits=Limits(), indexing_threshold=10_000))


async def _store(path: Path) -> Store:
    store = Store.open(path, JsonCodec())
    if not store.names():
        await store.create("c", _configuration())
        await store.change_aliases(lambda aliases: {**aliases, "short": "c"})
    return store


async def _write(collection: Collection, ids: range) -> None:
    points = [edge.Point(n, {"": [float(n)] * SIZE}, {"n": n}) for n in ids]
    await collection.write([Upsert(points=points, sizes=[100] * len(points))], wait=True)


def _directories(store_path: Path) -> list[str]:
    return sorted(path.name for path in (store_path / "collections").iterdir())


async def test_a_deletion_whose_caller_goes_away_while_it_waits_changes_nothing(tmp_path: Path) -> None:
    store = await _store(tmp_path)
    collection = store.get("c")
    await _write(collection, range(3))
    async with collection.lock:  # a writer, a copy or a swap holds it
        deletion = asyncio.create_task(store.delete("c"))
        await asyncio.sleep(0.01)
        deletion.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deletion
    with pytest.raises(AlreadyExists):
        await store.create("c", _configuration())
    await _write(store.get("short"), range(3, 5))
    await store.close()
    again = await _store(tmp_path)
    assert again.get("short").info().points_count == 5
    assert await again.delete("c")
    assert _directories(tmp_path) == []
    assert again.aliases() == {}
    await again.close()


async def test_a_deletion_goes_on_where_a_failing_disk_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for step in ("write_json", "sync_directory"):
        with subtests.test(step):
            store = await _store(tmp_path / step)

            def fail(*arguments: object) -> None:
                raise OSError(5, "Input/output error")

            with monkeypatch.context() as disk:
                disk.setattr(durable_files, step, fail)
                with pytest.raises(Unavailable, match="Input/output"):
                    await store.delete("c")
            with pytest.raises(AlreadyExists):
                await store.create("c", _configuration())
            with pytest.raises(NotFound):
                store.get("c").info()
            assert await store.delete("c")
            await store.create("c", _configuration())
            await _write(store.get("c"), range(2))
            await store.close()
            again = await _store(tmp_path / step)
            assert again.get("c").info().points_count == 2
            assert again.aliases() == {}
            await again.close()


async def test_of_a_deleted_collection_the_optimizer_keeps_nothing(tmp_path: Path) -> None:
    store = await _store(tmp_path)
    optimizer = Optimizer(store, OptimizerOptions(interval=0.005))
    optimizer.start()
    async with asyncio.timeout(20):
        while len(optimizer._paces) != 1:  # noqa: ASYNC110 - the optimizer looks for work by itself
            await asyncio.sleep(0.005)
        await store.delete("c")
        while optimizer._paces:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await optimizer.stop()
    await store.close()


async def test_a_creation_that_fails_at_its_last_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await _store(tmp_path)
    before = _directories(tmp_path)

    def fail(self: Store, path: Path) -> Collection:
        raise DataLoss("the engine cannot read what it wrote")

    with monkeypatch.context() as engine:
        engine.setattr(Store, "_load", fail)
        with pytest.raises(DataLoss):
            await store.create("other", _configuration())
    assert _directories(tmp_path) == before
    await store.create("other", _configuration())
    await store.close()


async def test_of_two_directories_with_one_name_none_takes_the_others_place(tmp_path: Path) -> None:
    store = await _store(tmp_path)
    await _write(store.get("c"), range(3))
    await store.create("good", _configuration())
    path = store.get("c").directory.path
    await store.close()
    shutil.copytree(path, path.with_name("twin"))
    again = await _store(tmp_path)
    with pytest.raises(DataLoss, match=r"several directories.* are left alone") as caught:
        again.get("c")
    assert caught.value.metadata["directory"] == f"{path.name}, twin"
    assert again.get("good").info().points_count == 0
    assert await again.delete("c")
    assert _directories(tmp_path) == [again.get("good").directory.path.name]
    await again.close()
