"""What the system refuses, a disk or a file, is told as that, ends no work of others and is no mistake of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index import durable_files
from winnow_index.changes import Upsert
from winnow_index.generations import CollectionDirectory
from winnow_index.optimizing import BuildOutcome, Optimizer, OptimizerOptions
from winnow_index.schema import Limits
from winnow_index.store import Store
from winnow_index.wire import configs
from winnow_index.wire.definitions import JsonCodec, WireConfiguration
from winnow_rpc.faults import FailedPrecondition, Unavailable

SIZE = 4


def _configuration() -> WireConfiguration:
    vectors = pb.VectorsConfig(params=pb.VectorParams(size=SIZE, distance=pb.Distance.Dot))
    request = pb.CreateCollection(collection_name="c", vectors_config=vectors)
    return WireConfiguration(configs.from_create(request, limits=Limits(), indexing_threshold=1))


async def _store(path: Path) -> Store:
    store = Store.open(path, JsonCodec())
    if not store.names():
        await store.create("c", _configuration())
        points = [edge.Point(n, {"": [float(n)] * SIZE}, {}) for n in range(200)]
        await store.get("c").write([Upsert(points=points, sizes=[100] * 200)], wait=True)
    return store


async def test_a_build_that_finds_no_file_to_open_is_tried_again_and_the_index_still_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await _store(tmp_path)
    optimizer = Optimizer(store, OptimizerOptions(interval=0.01, retry_seconds=0.01))
    failures, built = iter([OSError(24, "Too many open files")]), asyncio.Event()
    following = CollectionDirectory.next_generation

    def next_generation(self: CollectionDirectory) -> Path:
        for failure in failures:
            raise failure
        return following(self)

    def on_build(outcome: BuildOutcome, seconds: float) -> None:
        if outcome == "built":
            built.set()

    monkeypatch.setattr(CollectionDirectory, "next_generation", next_generation)
    optimizer.on_build = on_build
    optimizer.start()
    async with asyncio.timeout(60):
        await built.wait()
    await optimizer.stop()
    await store.close()


_CHANGES: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "create": lambda store: store.create("d", _configuration()),
    "aliases": lambda store: store.change_aliases(lambda aliases: {**aliases, "live": "c"}),
    "delete": lambda store: store.delete("c"),
}


@pytest.mark.parametrize("kind", _CHANGES)
async def test_a_change_that_the_disk_refuses_is_unavailable_and_names_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    store = await _store(tmp_path)

    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(durable_files, "sync_directory", refuse)
        with pytest.raises(Unavailable, match="No space left on device") as caught:
            await _CHANGES[kind](store)
    assert caught.value.reason == "DISK_FAILED"
    await _CHANGES[kind](store)
    await store.close()


async def test_a_folder_of_collections_that_cannot_be_read_is_named_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await _store(tmp_path)).close()

    def refuse(self: Path) -> object:
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as system:
        system.setattr(Path, "iterdir", refuse)
        with pytest.raises(FailedPrecondition, match=r"collections.*Permission denied") as caught:
            Store.open(tmp_path, JsonCodec())
    assert caught.value.reason == "DATA_DIRECTORY_NOT_WRITABLE"
    await (await _store(tmp_path)).close()
