"""A snapshot is of one moment, and of the generation that serves at it, whatever happens between its rounds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index import snapshots
from winnow_index.changes import Upsert
from winnow_index.collection import Collection
from winnow_index.mirroring import Mirror
from winnow_index.restoring import restore
from winnow_index.schema import Limits
from winnow_index.snapshots import Snapshots
from winnow_index.store import Store
from winnow_index.wire import configs
from winnow_index.wire.definitions import JsonCodec, WireConfiguration

SIZE = 4


async def _store(path: Path) -> Store:
    store = Store.open(path, JsonCodec())
    if not store.has("c"):
        vectors = pb.VectorsConfig(params=pb.VectorParams(size=SIZE, distance=pb.Distance.Dot))
        request = pb.CreateCollection(collection_name="c", vectors_config=vectors)
        config = configs.from_create(request, limits=Limits(), indexing_threshold=10_000)
        await store.create("c", WireConfiguration(config))
    return store


async def _write(collection: Collection, ids: range) -> None:
    points = [edge.Point(n, {"": [float(n)] * SIZE}, {"n": n}) for n in ids]
    await collection.write([Upsert(points=points, sizes=[100] * len(points))], wait=True)


def _ids(store: Store) -> set[object]:
    records, _ = store.get("c").shard.scroll(edge.ScrollRequest(limit=10_000))
    return {record.id for record in records}


def _watch(monkeypatch: pytest.MonkeyPatch, before: Callable[[Path, bool], None]) -> None:
    class Watched(Mirror):
        def update(self, *, last: bool = False) -> int:
            before(self._source, last)
            return super().update(last=last)

    monkeypatch.setattr(snapshots, "Mirror", Watched)


async def test_the_last_round_is_made_while_nobody_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await _store(tmp_path / "data")
    collection = store.get("c")
    await _write(collection, range(10))
    rounds: list[tuple[bool, bool]] = []
    _watch(monkeypatch, lambda _source, last: rounds.append((last, collection.lock.locked())))
    await Snapshots(store, tmp_path / "snapshots").create()
    assert rounds[-1] == (True, True)
    assert (False, False) in rounds, "the first round holds nobody up"
    await store.close()


@pytest.mark.parametrize("swaps", [1, 5])
async def test_a_graph_that_begins_to_serve_between_rounds_is_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: int
) -> None:
    store = await _store(tmp_path / "data")
    collection = store.get("c")
    await _write(collection, range(10))
    swapped: list[Path] = []

    def swap(source: Path, last: bool) -> None:
        if last or source in swapped or len(swapped) == swaps or source != collection.generation:
            return
        swapped.append(source)
        target = collection.directory.next_generation()
        shutil.copytree(source, target)
        collection.directory.switch(target)
        collection.swap(edge.EdgeShard.load(str(target)), target, collection.definition).close()
        shutil.rmtree(source)

    _watch(monkeypatch, swap)
    made = await Snapshots(store, tmp_path / "snapshots").create()
    assert swapped
    serving = collection.generation.name
    [kept] = (tmp_path / "snapshots" / made.name).glob("collections/*/generation-*")
    assert kept.name == serving
    assert (kept.parent / "CURRENT").read_text().strip() == serving
    await store.close()
    restore(tmp_path / "snapshots" / made.name, tmp_path / "restored")
    again = await _store(tmp_path / "restored")
    assert _ids(again) == set(range(10))
    await again.close()


async def test_a_collection_that_is_deleted_between_rounds_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await _store(tmp_path / "data")
    collection = store.get("c")

    def delete(_source: Path, _last: bool) -> None:
        store._collections.pop("c", None)
        if collection._shard is not None:
            collection._shard.close()
            collection._shard = None

    _watch(monkeypatch, delete)
    made = await Snapshots(store, tmp_path / "snapshots").create()
    assert list((tmp_path / "snapshots" / made.name / "collections").iterdir()) == []
    await store.close()
