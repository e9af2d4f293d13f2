"""An acknowledgement rests on the engine's log alone: with it, any older state of the other files is made good.

The kernel may have written any of the other files, or any of their pages, when the power goes; so each is taken at
random from before or after the writes. (That the log is synced before the acknowledgement, only a disk could show.)
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index.changes import ChangePoints, DeletePoints, Upsert
from winnow_index.schema import Limits
from winnow_index.store import Store
from winnow_index.wire import configs, indexes
from winnow_index.wire.definitions import JsonCodec, WireConfiguration

SIZE, PAGE = 8, 4096


async def _store(path: Path) -> Store:
    store = Store.open(path, JsonCodec())
    if not store.has("c"):
        vectors = pb.VectorsConfig(params=pb.VectorParams(size=SIZE, distance=pb.Distance.Dot))
        request = pb.CreateCollection(collection_name="c", vectors_config=vectors)
        # A long interval: no flush of the engine comes to the help of the log.
        request.optimizers_config.flush_interval_sec = 3600
        config = configs.from_create(request, limits=Limits(), indexing_threshold=10_000)
        await store.create("c", WireConfiguration(config))
        await store.get("c").create_index("n", indexes.IndexRequest("integer", None), wait=True)
    return store


async def _write(store: Store, seed: int, model: dict[int, dict[str, Any]]) -> None:
    chooser = random.Random(seed)
    collection = store.get("c")
    for version in range(25):
        ids = chooser.sample(range(600), 30)
        points = [edge.Point(n, {"": [float(version)] * SIZE}, {"n": n, "version": version}) for n in ids]
        await collection.write([Upsert(points=points, sizes=[100] * 30)], wait=True)
        model |= {n: {"n": n, "version": version} for n in ids}
        gone = chooser.sample(sorted(model), 5)
        await collection.write([DeletePoints(gone)], wait=True)
        for n in gone:
            del model[n]
        marked = chooser.sample(sorted(model), 5)
        mark = {"mark": version}
        change = ChangePoints(marked, lambda ids, mark=mark: edge.UpdateOperation.set_payload(ids, mark))  # type: ignore[misc]
        await collection.write([change], wait=True)
        for n in marked:
            model[n] = {**model[n], **mark}


def _mix(before: Path, after: Path, target: Path, seed: int, *, by_page: bool) -> None:
    chooser = random.Random(seed)
    shutil.copytree(after, target)
    for path in target.rglob("*"):
        old = before / path.relative_to(target)
        if not path.is_file() or "wal" in path.parts or not old.exists():
            continue
        new_bytes, old_bytes = path.read_bytes(), old.read_bytes()
        if by_page and len(new_bytes) == len(old_bytes):
            pages = range(0, len(new_bytes), PAGE)
            path.write_bytes(b"".join(chooser.choice((new_bytes, old_bytes))[n : n + PAGE] for n in pages))
        elif chooser.random() < 0.5:
            path.write_bytes(old_bytes)


@pytest.mark.parametrize("by_page", [False, True])
async def test_acknowledged_writes_survive_the_loss_of_power(tmp_path: Path, by_page: bool) -> None:
    model: dict[int, dict[str, Any]] = {}
    live = tmp_path / "live"
    store = await _store(live)
    await _write(store, 1, model)
    await store.close()
    store = await _store(live)
    shutil.copytree(live, tmp_path / "before")
    await _write(store, 2, model)
    shutil.copytree(live, tmp_path / "after")
    await store.close()
    for seed in range(3):
        lost = tmp_path / f"lost-{seed}"
        _mix(tmp_path / "before", tmp_path / "after", lost, seed, by_page=by_page)
        again = await _store(lost)
        records, _ = again.get("c").shard.scroll(edge.ScrollRequest(limit=10_000, with_payload=True, with_vector=True))
        assert {r.id: r.payload for r in records} == model
        for record in records:
            assert record.vector == [float(model[record.id]["version"])] * SIZE  # type: ignore[index]
        await again.close()
        shutil.rmtree(lost)
